//! The chosen experts of many rows, those of an expert together.

use cubecl::prelude::*;

use super::{Added, Plan, down, gate_up, sum_slots};
use crate::Buffer;
use crate::few::Weights;
use crate::packed::tiles::{Activations, activations};

/// Experts, and which of them each row has chosen.
#[derive(Clone, Copy, Debug)]
pub struct Experts<'a> {
    /// Gate and up, and down, of all experts.
    pub weights: [&'a Weights; 2],
    /// How many there are.
    pub count: usize,
    /// Their numbers, u32 `[rows, slots]`.
    pub ids: &'a Buffer,
    /// Their shares, f32 `[rows, slots]`.
    pub shares: &'a Buffer,
    /// Choices of a row.
    pub slots: usize,
}

impl Experts<'_> {
    /// The sum of their outputs times their shares, on top of what is added.
    ///
    /// - x: `[rows, 1 or 2, columns]`
    /// - y: `[rows, width]`
    pub fn launch(&self, client: &Client, x: &Activations, added: Added<'_>, y: &Buffer) {
        let Self {
            weights: [up, below],
            count,
            ids,
            shares,
            slots,
        } = *self;
        let plan = Plan::new(client, (ids, slots), count, (x.split, x.order));
        let stride = below.width_of_many();
        let h = activations::between(client, ids.len(), x.rounding(), (up.rows() / 2, stride));
        gate_up(client, up, x, &plan, (&h.buffer, stride));
        // Where rows are rounded, so are the parts of their sums.
        let elem = if x.split {
            y.elem
        } else {
            half::bf16::elem_type_native()
        };
        let parts = Buffer::empty(client, elem, ids.len() * below.rows());
        down(client, below, &h, (&plan, shares), &parts);
        sum_slots(client, (&parts, slots), added, (y, below.rows()));
    }
}
