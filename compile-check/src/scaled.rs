//! Launches the products whose both operands have 4 bits, on the architectures that have them.

use burn_omni_kernels::Buffer;
use burn_omni_kernels::many::{Added, Blocking, Plan, sum_slots};
use burn_omni_kernels::packed::tiles::scaled::{self, quantize};
use burn_omni_kernels::packed::tiles::{ColumnOrder, Matrix, Tiling};
use burn_omni_kernels::packed::{Coding, Shape};
use cubecl_core::frontend::Scalar;
use cubecl_core::prelude::*;

use crate::model::{Experts, Model};
use crate::products::{CODINGS, MANY, shapes};

/// Every launch of a model with prompts; `note` is called after those of each part.
pub(crate) fn launch(client: &Client, model: &Model, note: &mut dyn FnMut(String)) {
    for (name, coding) in CODINGS {
        if !scaled::runs_on(client, coding) {
            continue;
        }
        let launches = Launches { client, coding };
        // A coding changes the operands' scales alone, which every shape of the first one has met.
        let shapes_of = if name == CODINGS[0].0 {
            model.linears.len()
        } else {
            2
        };
        for (number, &[rows, width]) in model.linears.iter().take(shapes_of).enumerate() {
            let shape = Shape {
                matrices: 1,
                rows,
                width,
                gated: false,
            };
            launches.linear::<f32>(shape);
            // The activations' type changes what is read to be rounded and what is written, not the products.
            if number == 0 {
                launches.linear::<half::bf16>(shape);
            }
            note(format!("{} {name} x 4 bits {rows}x{width}", model.name));
        }
        for &experts in &model.experts {
            launches.experts::<f32>(experts);
            let Experts { count, hidden, .. } = experts;
            note(format!(
                "{} {name} x 4 bits {count} experts {hidden}",
                model.name
            ));
        }
    }
}

struct Launches<'a> {
    client: &'a Client,
    coding: Coding,
}

impl Launches<'_> {
    fn linear<Y: CubeElement + Scalar>(&self, shape: Shape) {
        let matrix = self.matrix(shape);
        for rows in MANY {
            let x = self.buffer::<Y>(rows * shape.width);
            let x = quantize(self.client, (&x, shape.width), matrix.tiling);
            let y = self.buffer::<Y>(rows * shape.rows);
            let blocking = Blocking::of(rows, matrix.tiling.tiles);
            scaled::many(self.client, &matrix, (&x, rows), &y, blocking);
        }
    }

    fn experts<Y: CubeElement + Scalar>(&self, experts: Experts) {
        let [gate_up, down] = shapes(experts).map(|shape| self.matrix(shape));
        let Experts {
            slots,
            hidden,
            intermediate,
            count,
        } = experts;
        for rows in MANY {
            let x = self.buffer::<Y>(rows * hidden);
            let x = quantize(self.client, (&x, hidden), gate_up.tiling);
            let ids = self.buffer::<u32>(rows * slots);
            let weights = self.buffer::<f32>(rows * slots);
            let h = self.buffer::<Y>(rows * slots * intermediate);
            let plan = Plan::new(
                self.client,
                (&ids, slots),
                count,
                (false, ColumnOrder::Natural),
            );
            scaled::gate_up(self.client, &gate_up, &x, &plan, &h);
            let h = quantize(self.client, (&h, intermediate), down.tiling);
            let parts = self.buffer::<Y>(rows * slots * hidden);
            scaled::down(self.client, &down, &h, (&plan, &weights), &parts);
            let y = self.buffer::<Y>(rows * hidden);
            sum_slots(self.client, (&parts, slots), Added::default(), (&y, hidden));
        }
    }

    fn matrix(&self, shape: Shape) -> Matrix {
        let tiling = Tiling::new(self.coding, shape);
        Matrix {
            codes: self.buffer::<u32>(tiling.code_words(shape.matrices)),
            scales: self.buffer::<u32>(tiling.scale_words(shape.matrices)),
            gains: self.buffer::<f32>(shape.matrices * shape.rows),
            tiling,
            rows: shape.rows,
        }
    }

    fn buffer<E: Scalar>(&self, length: usize) -> Buffer {
        Buffer::empty(self.client, E::elem_type_native(), length)
    }
}
