//! Launches what a model does with matrices in checkpoint order, whose codings tiles do not hold.

use burn_omni_kernels::Buffer;
use burn_omni_kernels::packed::rows::{self, Matrix};
use burn_omni_kernels::packed::tiles::holds;
use burn_omni_kernels::packed::{COLUMNS, Coding, Scaling, Shape};
use cubecl_core::frontend::Scalar;
use cubecl_core::prelude::*;

use crate::model::{Experts, Model};
use crate::products::shapes;

/// Rows of activations: the kernel takes 1, 2, 4 or 8 at a time.
const TOKENS: [usize; 4] = [1, 2, 4, 4096];

/// 4-bit integers with offsets, 4-bit tables.
const CODINGS: [(&str, Coding); 2] = [
    ("int4", coding(Scaling::Affine, 128)),
    ("nf4", coding(Scaling::F32, 64)),
];

const fn coding(scaling: Scaling, block: usize) -> Coding {
    Coding {
        bytes: false,
        e2m1: false,
        scaling,
        block,
    }
}

/// Every launch of a model; `note` is called after those of each of its parts with its name.
pub(crate) fn launch(client: &Client, model: &Model, note: &mut dyn FnMut(String)) {
    for (name, coding) in CODINGS {
        assert!(!holds(coding), "{name} is multiplied in tiles");
        for &[rows, width] in &model.linears {
            let shape = Shape {
                matrices: 1,
                rows,
                width,
                gated: false,
            };
            linear::<f32>(client, coding, shape);
            linear::<half::bf16>(client, coding, shape);
            note(format!("{} {name} {rows}x{width}", model.name));
        }
        for &part in &model.experts {
            experts::<f32>(client, coding, part);
            experts::<half::bf16>(client, coding, part);
            note(format!(
                "{} {name} {} experts {}",
                model.name, part.count, part.hidden
            ));
        }
    }
}

fn linear<X: Scalar>(client: &Client, coding: Coding, shape: Shape) {
    let matrix = matrix(client, coding, shape);
    for tokens in TOKENS {
        let x = buffer::<X>(client, tokens * shape.width);
        let y = buffer::<X>(client, tokens * shape.rows);
        rows::product(client, &matrix, (&x, tokens), &y);
    }
    rows::unpack(
        client,
        &matrix,
        &buffer::<f32>(client, shape.rows * shape.width),
    );
}

fn experts<X: Scalar>(client: &Client, coding: Coding, experts: Experts) {
    let [gate_up, down] = shapes(experts).map(|shape| matrix(client, coding, shape));
    let Experts { slots, hidden, .. } = experts;
    let ids = buffer::<u32>(client, slots);
    let weights = buffer::<f32>(client, slots);
    let [x, y] = [hidden; 2].map(|length| buffer::<X>(client, length));
    let h = buffer::<f32>(client, slots * experts.intermediate);
    rows::gate_up(client, &gate_up, &x, (&ids, slots), &h);
    rows::down(client, &down, &h, ([&ids, &weights], slots), &y);
}

fn matrix(client: &Client, coding: Coding, shape: Shape) -> Matrix {
    let rows = shape.matrices * shape.rows;
    let columns = shape.width.next_multiple_of(COLUMNS);
    let blocks = columns.checked_div(coding.block).unwrap_or(0);
    let scale_bits = match coding.scaling {
        Scaling::None => 0,
        Scaling::E4m3 | Scaling::E8m0 => 8,
        Scaling::F32 => 32,
        Scaling::Affine => 64,
    };
    Matrix {
        codes: buffer::<u32>(client, rows * columns / 8),
        scales: buffer::<u32>(client, (rows * blocks * scale_bits).div_ceil(32)),
        gains: buffer::<f32>(client, rows),
        table: buffer::<f32>(client, 16),
        coding,
        shape,
    }
}

fn buffer<E: Scalar>(client: &Client, length: usize) -> Buffer {
    Buffer::empty(client, E::elem_type_native(), length)
}
