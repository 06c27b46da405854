//! Launches everything that a model does with packed matrices.

use burn_omni_kernels::Buffer;
use burn_omni_kernels::few::{self, FEW, SEVERAL, Weights, few};
use burn_omni_kernels::many::{self, Added, Plan, sum_slots};
use burn_omni_kernels::packed::tiles::{
    Activations, ColumnOrder, Matrix, Tiling, activations, pack, unpack,
};
use burn_omni_kernels::packed::{COLUMNS, Coding, Scaling, Shape};
use burn_omni_kernels::{COPY_WORDS, Drawn, copy, draw_floats, draw_words};
use cubecl_core::frontend::Scalar;
use cubecl_core::prelude::*;

use crate::model::{Experts, Model};

/// Rows of prompts: one for every blocking.
pub(crate) const MANY: [usize; 3] = [17, 300, 4096];

/// The codings that tiles hold.
pub(crate) const CODINGS: [(&str, Coding); 5] = [
    ("nvfp4", coding(false, Scaling::E4m3, 16)),
    ("mxfp4", coding(false, Scaling::E8m0, 32)),
    ("fp8", coding(true, Scaling::None, 0)),
    ("fp8 blocks", coding(true, Scaling::F32, 128)),
    ("mxfp8", coding(true, Scaling::E8m0, 32)),
];

const fn coding(bytes: bool, scaling: Scaling, block: usize) -> Coding {
    Coding {
        bytes,
        e2m1: !bytes,
        scaling,
        block,
    }
}

/// Launches on a device, with what they are for.
pub(crate) struct Launches<'a> {
    client: &'a Client,
    /// Called after the launches for each thing.
    note: &'a mut dyn FnMut(String),
}

impl<'a> Launches<'a> {
    /// Launches on a client; `note` is called after those of each part of a model with its name.
    pub(crate) fn new(client: &'a Client, note: &'a mut dyn FnMut(String)) -> Self {
        Self { client, note }
    }

    /// Every launch of a model.
    pub(crate) fn model(&mut self, model: &Model) {
        self.drawn();
        (self.note)(format!("{} drawn", model.name));
        for (name, coding) in CODINGS {
            // A coding changes the decoding alone, which every shape of the first one has met.
            let shapes_of = if name == CODINGS[0].0 {
                model.linears.len()
            } else {
                2
            };
            for &[rows, width] in model.linears.iter().take(shapes_of) {
                let shape = Shape {
                    matrices: 1,
                    rows,
                    width,
                    gated: false,
                };
                self.order(coding, shape);
                self.linear::<f32>(coding, shape, true);
                self.linear::<half::bf16>(coding, shape, false);
                (self.note)(format!("{} {name} {rows}x{width}", model.name));
            }
            for &experts in &model.experts {
                let [gate_up, down] = shapes(experts);
                self.order(coding, gate_up);
                self.order(coding, down);
                self.experts::<f32>(coding, experts, true);
                self.experts::<half::bf16>(coding, experts, false);
                let Experts { count, hidden, .. } = experts;
                (self.note)(format!("{} {name} {count} experts {hidden}", model.name));
            }
        }
    }

    /// Random weights, and the copy that shows what the memory can do.
    fn drawn(&self) {
        let buffer = |elem| Buffer::empty(self.client, elem, COPY_WORDS);
        let words = || buffer(u32::elem_type_native());
        let drawn = Drawn {
            seed: 0,
            row: 128,
            width: 1024,
            random: u32::MAX,
            base: 0,
        };
        draw_words(self.client, &words(), COPY_WORDS, drawn);
        for elem in [f32::elem_type_native(), half::bf16::elem_type_native()] {
            draw_floats(self.client, &buffer(elem), COPY_WORDS, 0);
        }
        copy(self.client, &words(), &words());
    }

    /// Into tiles and back.
    fn order(&self, coding: Coding, shape: Shape) {
        let matrix = self.matrix(coding, shape);
        let stored = shape.matrices * shape.rows * shape.width.next_multiple_of(COLUMNS);
        let codes = self.buffer::<u32>(stored / if coding.bytes { 4 } else { 8 });
        let blocks = stored.checked_div(coding.block).unwrap_or(0);
        let bytes = if coding.scaling == Scaling::F32 { 4 } else { 1 };
        let scales = self.buffer::<u32>((blocks * bytes).div_ceil(4).max(1));
        let tiles = [&matrix.codes, &matrix.scales];
        pack(self.client, [&codes, &scales], tiles, matrix.tiling, shape);
        let values = self.buffer::<f32>(shape.matrices * shape.rows * shape.width);
        let parts = [&matrix.codes, &matrix.scales, &matrix.gains];
        unpack(self.client, parts, &values, matrix.tiling, shape);
    }

    /// Few and many rows.
    fn linear<Y: CubeElement + Scalar>(&self, coding: Coding, shape: Shape, split: bool) {
        let matrix = self.matrix(coding, shape);
        let weights = Weights::Tiles(matrix.clone());
        for rows in [1, 8, FEW].into_iter().chain(MANY) {
            let few_columns = rows * if split { 2 } else { 1 } <= SEVERAL;
            let order = if few_columns {
                ColumnOrder::Natural
            } else {
                many::order(self.client, &[&weights])
            };
            let x = self.activations::<Y>(rows, shape.width, &matrix, (split, order));
            let y = self.buffer::<Y>(rows * shape.rows);
            if few_columns {
                few(self.client, &weights, (&x, rows), &y);
            } else {
                many::many(self.client, many::Product::new(&weights, &x, rows), &y);
            }
        }
    }

    /// The chosen experts of one row and of prompts.
    fn experts<Y: CubeElement + Scalar>(&self, coding: Coding, experts: Experts, split: bool) {
        let [gate_up, down] = shapes(experts).map(|shape| self.matrix(coding, shape));
        let Experts { slots, hidden, .. } = experts;
        for rows in [1].into_iter().chain(MANY) {
            let both = [&gate_up, &down].map(|matrix| Weights::Tiles(matrix.clone()));
            let order = if rows == 1 {
                ColumnOrder::Natural
            } else {
                many::order(self.client, &[&both[0], &both[1]])
            };
            let x = self.activations::<Y>(rows, hidden, &gate_up, (split, order));
            let ids = self.buffer::<u32>(rows * slots);
            let weights = self.buffer::<f32>(rows * slots);
            let halves = if split { 2 } else { 1 };
            let stride = down.tiling.columns();
            let h = Activations {
                buffer: self.buffer::<half::bf16>(rows * slots * halves * stride),
                order,
                split,
            };
            let y = self.buffer::<Y>(rows * hidden);
            if rows == 1 {
                let [gate_up, down] = &both;
                few::gate_up(self.client, gate_up, &x, (&ids, slots), (&h.buffer, stride));
                few::down(self.client, down, &h, ([&ids, &weights], slots), &y);
            } else {
                let plan = Plan::new(self.client, (&ids, slots), experts.count, (split, order));
                let [gate_up, down] = &both;
                many::gate_up(self.client, gate_up, &x, &plan, (&h.buffer, stride));
                let parts = self.buffer::<Y>(rows * slots * hidden);
                many::down(self.client, down, &h, (&plan, &weights), &parts);
                sum_slots(self.client, (&parts, slots), Added::default(), (&y, hidden));
            }
        }
    }

    /// Rows of `Y` rounded for a matrix.
    fn activations<Y: CubeElement + Scalar>(
        &self,
        rows: usize,
        width: usize,
        matrix: &Matrix,
        (split, order): (bool, ColumnOrder),
    ) -> Activations {
        let x = burn_omni_kernels::Matrix {
            buffer: self.buffer::<Y>(rows * width),
            rows,
            width,
            stride: width,
        };
        activations::round(self.client, &x, (matrix.tiling.columns(), order), split)
    }

    fn matrix(&self, coding: Coding, shape: Shape) -> Matrix {
        let tiling = Tiling::new(coding, shape);
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

/// The matrices of experts: gate and up, down.
pub(crate) fn shapes(experts: Experts) -> [Shape; 2] {
    let Experts {
        count: matrices,
        hidden,
        intermediate,
        ..
    } = experts;
    let shape = |rows, width, gated| Shape {
        matrices,
        rows,
        width,
        gated,
    };
    [
        shape(2 * intermediate, hidden, true),
        shape(hidden, intermediate, false),
    ]
}
