//! Launches everything that a model does with packed matrices.

use burn_omni_kernels::Buffer;
use burn_omni_kernels::packed::tiles::gemv::{self, Activations, Matrix};
use burn_omni_kernels::packed::tiles::many;
use burn_omni_kernels::packed::tiles::plan::{Plan, sum_slots};
use burn_omni_kernels::packed::tiles::several::{SEVERAL, several};
use burn_omni_kernels::packed::tiles::{Tiling, activations, pack, unpack};
use burn_omni_kernels::packed::{COLUMNS, Coding, Scaling, Shape};
use cubecl_core::prelude::*;

use crate::model::{Experts, Model};

/// Rows of a prompt.
const MANY: usize = 4096;

/// The codings that tiles hold.
pub(crate) const CODINGS: [(&str, Coding); 2] = [
    ("nvfp4", coding(Scaling::E4m3, 16)),
    ("mxfp4", coding(Scaling::E8m0, 32)),
];

const fn coding(scaling: Scaling, block: usize) -> Coding {
    Coding {
        bytes: false,
        e2m1: true,
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
        for (name, coding) in CODINGS {
            for &[rows, width] in &model.linears {
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

    /// Into tiles and back.
    fn order(&self, coding: Coding, shape: Shape) {
        let matrix = self.matrix(coding, shape);
        let stored = shape.matrices * shape.rows * shape.width.next_multiple_of(COLUMNS);
        let codes = self.buffer::<u32>(stored / 8);
        let scales = self.buffer::<u32>((stored / coding.block).div_ceil(4));
        let tiles = [&matrix.codes, &matrix.scales];
        pack(self.client, [&codes, &scales], tiles, matrix.tiling, shape);
        let values = self.buffer::<f32>(shape.matrices * shape.rows * shape.width);
        let parts = [&matrix.codes, &matrix.scales, &matrix.gains];
        unpack(self.client, parts, &values, matrix.tiling, shape);
    }

    /// One, several and many rows.
    fn linear<Y: Float + CubeElement>(&self, coding: Coding, shape: Shape, split: bool) {
        let matrix = self.matrix(coding, shape);
        for rows in (1..=SEVERAL).chain([MANY]) {
            let x = self.activations::<Y>(rows, shape.width, &matrix, split);
            let y = self.buffer::<Y>(rows * shape.rows);
            match rows {
                1 => gemv::single::<Y>(self.client, &matrix, &x, &y),
                2..=SEVERAL => several::<Y>(self.client, &matrix, &x, rows, &y),
                _ => many::many::<Y>(self.client, &matrix, &x, rows, &y),
            }
        }
    }

    /// The chosen experts of one row and of a prompt.
    fn experts<Y: Float + CubeElement>(&self, coding: Coding, experts: Experts, split: bool) {
        let [gate_up, down] = shapes(experts).map(|shape| self.matrix(coding, shape));
        let Experts { slots, hidden, .. } = experts;
        for rows in [1, MANY] {
            let x = self.activations::<Y>(rows, hidden, &gate_up, split);
            let ids = self.buffer::<u32>(rows * slots);
            let weights = self.buffer::<f32>(rows * slots);
            let h = self.rows(rows * slots, &down, split);
            let stride = down.tiling.columns();
            let y = self.buffer::<Y>(rows * hidden);
            if rows == 1 {
                gemv::gate_up(
                    self.client,
                    &gate_up,
                    &x,
                    (&ids, slots),
                    (&h.buffer, stride),
                );
                gemv::down::<Y>(self.client, &down, &h, ([&ids, &weights], slots), &y);
            } else {
                let plan = self.plan(&ids, experts, split);
                many::gate_up(self.client, &gate_up, &x, &plan, (&h.buffer, stride));
                let parts = self.buffer::<Y>(rows * slots * hidden);
                many::down::<Y>(self.client, &down, &h, (&plan, &weights), &parts);
                sum_slots::<Y>(self.client, (&parts, slots), (&y, hidden));
            }
        }
    }

    fn plan(&self, ids: &Buffer, experts: Experts, split: bool) -> Plan {
        let capacity = Plan::capacity(ids.len(), experts.count, split);
        let plan = Plan {
            order: self.buffer::<u32>(ids.len()),
            blocks: self.buffer::<u32>(capacity * 3),
            capacity,
            slots: experts.slots,
        };
        plan.sort(self.client, ids, experts.count, split);
        plan
    }

    /// Rows of `Y` rounded for a matrix.
    fn activations<Y: Float + CubeElement>(
        &self,
        rows: usize,
        width: usize,
        matrix: &Matrix,
        split: bool,
    ) -> Activations {
        let x = self.buffer::<Y>(rows * width);
        let rounded = self.rows(rows, matrix, split);
        let columns = matrix.tiling.columns();
        activations::round::<Y>(self.client, (&x, width), (&rounded.buffer, columns), split);
        rounded
    }

    fn rows(&self, rows: usize, matrix: &Matrix, split: bool) -> Activations {
        let halves = if split { 2 } else { 1 };
        Activations {
            buffer: self.buffer::<half::bf16>(rows * halves * matrix.tiling.columns()),
            split,
        }
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

    fn buffer<E>(&self, length: usize) -> Buffer {
        Buffer::new(self.client.empty(length * size_of::<E>()), length)
    }
}

/// The matrices of experts: gate and up, down.
fn shapes(experts: Experts) -> [Shape; 2] {
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
