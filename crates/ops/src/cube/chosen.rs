//! Chosen experts on matrix units, whatever form their weights have.

use burn_omni_kernels::Buffer;
use burn_omni_kernels::few::{self, Weights};
use burn_omni_kernels::many::{self, Plan};
use burn_omni_kernels::packed::tiles::{Activations, activations};
use cubecl::prelude::*;

/// The chosen experts of each row: numbers and factors, `[rows, slots]`.
pub(super) struct Chosen {
    pub(super) ids: Buffer,
    pub(super) weights: Buffer,
    pub(super) slots: usize,
}

impl Chosen {
    /// Each choice for itself: few choices, so that experts are seldom read twice.
    pub(super) fn listed(
        &self,
        client: &Client,
        x: &Activations,
        [up, down]: [&Weights; 2],
        y: &Buffer,
    ) {
        let stride = down.columns();
        let h = self.hidden(client, x.split, (up.rows() / 2, stride));
        let ids = (&self.ids, self.slots);
        few::gate_up(client, up, x, ids, (&h.buffer, stride));
        let choices = ([&self.ids, &self.weights], self.slots);
        few::down(client, down, &h, choices, y);
    }

    /// The rows of an expert together.
    pub(super) fn grouped(
        &self,
        client: &Client,
        x: &Activations,
        ([up, down], experts): ([&Weights; 2], usize),
        y: &Buffer,
    ) {
        let plan = Plan::new(client, (&self.ids, self.slots), experts, (x.split, x.order));
        let stride = down.width_of_many();
        let h = Activations {
            order: x.order,
            ..self.hidden(client, x.split, (up.rows() / 2, stride))
        };
        many::gate_up(client, up, x, &plan, (&h.buffer, stride));
        // Where rows are rounded, so are the parts of their sums.
        let elem = if x.split {
            y.elem
        } else {
            half::bf16::elem_type_native()
        };
        let parts = Buffer::empty(client, elem, self.ids.len() * down.rows());
        many::down(client, down, &h, (&plan, &self.weights), &parts);
        many::sum_slots(client, (&parts, self.slots), (y, down.rows()));
    }

    /// Room for what lies between gate·up and down, zero behind the width.
    fn hidden(&self, client: &Client, split: bool, (width, stride): (usize, usize)) -> Activations {
        let halves = if split { 2 } else { 1 };
        let count = self.ids.len() * halves * stride;
        if width < stride {
            return activations::zeros(client, count, split);
        }
        Activations::new(
            Buffer::empty(client, half::bf16::elem_type_native(), count),
            split,
        )
    }
}
