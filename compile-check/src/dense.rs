//! Launches the products with weights of bf16.

use burn_omni_kernels::few::{Rows, SEVERAL, Weights, few};
use burn_omni_kernels::many::{self, Plan, Product};
use burn_omni_kernels::packed::tiles::{Activations, ColumnOrder, Rounding};
use burn_omni_kernels::{
    Buffer, Matrix, NormParameters, Taps, norm_rounded, snaked, swiglu_rounded,
};
use cubecl_core::frontend::Scalar;
use cubecl_core::prelude::*;

use crate::model::Model;
use crate::products::MANY;

/// Layers, convolutions and experts of a model; `note` is called after each kind with its name.
pub(crate) fn launch(client: &Client, model: &Model, note: &mut dyn FnMut(String)) {
    let made = Made { client };
    for &[rows, width] in &model.linears {
        for (taps, has_bias, has_onto) in [
            (1, false, false),
            (1, true, false),
            (1, true, true),
            (7, true, false),
        ] {
            made.product([rows, width], taps, [has_bias, has_onto]);
        }
    }
    made.rounded();
    note(format!("{} bf16 products", model.name));
    for experts in &model.experts {
        let [hidden, inner] = [experts.hidden, experts.intermediate];
        for rows in MANY {
            made.experts([rows, experts.slots, experts.count], [hidden, inner]);
        }
    }
    note(format!("{} bf16 experts", model.name));
}

struct Made<'a> {
    client: &'a Client,
}

impl Made<'_> {
    fn product(&self, [out, width]: [usize; 2], count: usize, [has_bias, has_onto]: [bool; 2]) {
        let weights = self.weights([1, out, count * width]);
        let taps = Taps { count, dilation: 1 };
        let plain = count == 1 && !has_bias;
        let few_rows: &[usize] = if plain { &[1, 8] } else { &[] };
        for rows in few_rows.iter().copied().chain(MANY) {
            for split in [false, true] {
                let x = self.activations((rows + count - 1) * width, split);
                let y = self.buffer::<f32>(rows * out);
                if plain && rows * x.halves() <= SEVERAL {
                    few(self.client, &weights, (&x, rows), &y);
                    continue;
                }
                let (bias, onto) = (self.buffer::<f32>(out), self.buffer::<f32>(rows * out));
                let product = Product {
                    taps,
                    bias: has_bias.then_some(&bias),
                    onto: has_onto.then_some(&onto),
                    ..Product::new(&weights, &x, rows)
                };
                many::many(self.client, product, &y);
            }
        }
    }

    /// What stands before products, and rounds their rows.
    fn rounded(&self) {
        let width = 96;
        let rows = |rows| Matrix {
            buffer: self.buffer::<f32>(rows * width),
            rows,
            width,
            stride: width,
        };
        let (kept, x) = (rows(6), rows(100));
        let snake = [(); 2].map(|()| self.buffer::<f32>(width));
        let parameters = NormParameters {
            weight: &snake[0],
            bias: None,
            eps: 1e-6,
        };
        for split in [true, false] {
            for kept in [None, Some(&kept)] {
                let _ = snaked(self.client, (kept, &x), snake.each_ref(), split);
            }
            let _ = norm_rounded(self.client, &x, parameters, Rounding::natural(split));
            let _ = swiglu_rounded(self.client, &x, split);
        }
    }

    fn experts(&self, [rows, slots, count]: [usize; 3], [hidden, inner]: [usize; 2]) {
        let gate_up = self.weights([count, 2 * inner, hidden]);
        let down = self.weights([count, hidden, inner]);
        let choices = rows * slots;
        let x = self.activations(rows * hidden, true);
        let h = self.activations(choices * inner, true);
        let (ids, shares) = (self.buffer::<u32>(choices), self.buffer::<f32>(choices));
        let plan = Plan::new(
            self.client,
            (&ids, slots),
            count,
            (true, ColumnOrder::Natural),
        );
        many::gate_up(self.client, &gate_up, &x, &plan, (&h.buffer, inner));
        let parts = self.buffer::<f32>(choices * hidden);
        many::down(self.client, &down, &h, (&plan, &shares), &parts);
    }

    fn weights(&self, [matrices, rows, width]: [usize; 3]) -> Weights {
        Weights::Rows(Rows {
            buffer: self.buffer::<half::bf16>(matrices * rows * width),
            rows,
            width,
        })
    }

    fn activations(&self, numbers: usize, split: bool) -> Activations {
        let halves = if split { 2 } else { 1 };
        Activations::new(self.buffer::<half::bf16>(numbers * halves), split)
    }

    fn buffer<E: CubeElement + Scalar>(&self, len: usize) -> Buffer {
        Buffer::empty(self.client, E::elem_type_native(), len)
    }
}
