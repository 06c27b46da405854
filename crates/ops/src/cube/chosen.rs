//! Chosen experts on matrix units, whatever form their weights have.

use burn_omni_kernels::Buffer;
use burn_omni_kernels::few::{self, Weights};
use burn_omni_kernels::many::{Added, Experts};
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
        let h = activations::between(
            client,
            self.ids.len(),
            x.rounding(),
            (up.rows() / 2, stride),
        );
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
        (weights, count): ([&Weights; 2], usize),
        y: &Buffer,
    ) {
        let experts = Experts {
            weights,
            count,
            ids: &self.ids,
            shares: &self.weights,
            slots: self.slots,
        };
        experts.launch(client, x, Added::default(), y);
    }
}
