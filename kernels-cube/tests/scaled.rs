//! Products of 4-bit operands on an NVIDIA GPU against those of their values: with the instruction where the GPU has it,
//! else with others in its place. `cargo test --release -p burn-omni-kernels --features cuda --test scaled`

use std::panic::catch_unwind;

use burn_omni_kernels::Buffer;
use burn_omni_kernels::many::{Blocking, Plan};
use burn_omni_kernels::packed::tiles::scaled::{self, dequantize, quantize};
use burn_omni_kernels::packed::tiles::{self, ColumnOrder, Matrix, Tiling};
use burn_omni_kernels::packed::{COLUMNS, Coding, Scaling, Shape};
use cubecl::frontend::Scalar;
use cubecl::prelude::*;

const CODINGS: [Coding; 2] = [coding(Scaling::E4m3, 16), coding(Scaling::E8m0, 32)];

const fn coding(scaling: Scaling, block: usize) -> Coding {
    Coding {
        bytes: false,
        e2m1: true,
        scaling,
        block,
    }
}

struct Gpu {
    client: Client,
    state: u64,
}

impl Gpu {
    /// The first GPU; nothing, with a word, where there is none that has tiles.
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    fn open() -> Option<Self> {
        let open = || cubecl::Device::Cuda(Default::default()).client();
        let client = catch_unwind(open).ok().filter(tiles::runs_on);
        if client.is_none() {
            eprintln!("skipped: no NVIDIA GPU with matrix units starts");
        }
        Some(Self {
            client: client?,
            state: 1,
        })
    }

    fn bits(&mut self) -> u32 {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 32) as u32
    }

    fn numbers(&mut self, count: usize) -> Vec<f32> {
        let mut number = || self.bits() as f32 / (1_u32 << 31) as f32 - 1.0;
        (0..count).map(|_| number()).collect()
    }

    fn room<E: Scalar>(&self, count: usize) -> Buffer {
        Buffer::empty(&self.client, E::elem_type_native(), count)
    }

    fn poisoned(&self, count: usize) -> Buffer {
        Buffer::of(&self.client, &vec![f32::NAN; count])
    }

    fn read(&self, buffer: &Buffer) -> Vec<f32> {
        let bytes = self.client.read_one(buffer.handle.clone());
        f32::from_bytes(&bytes.expect("the launches worked")).to_vec()
    }

    /// Random matrices in tiles, and their values row by row.
    fn matrix(&mut self, coding: Coding, shape: Shape) -> (Matrix, Vec<f32>) {
        let rows = shape.matrices * shape.rows;
        let columns = shape.width.next_multiple_of(COLUMNS);
        let codes: Vec<u32> = (0..rows * columns / 8).map(|_| self.bits()).collect();
        let byte = |bits: u32| match coding.scaling {
            Scaling::E8m0 => 120 + bits % 14,
            _ => (bits >> 8) % 9 % 8 * 16 + bits % 14,
        };
        let blocks = rows * columns.div_ceil(coding.block);
        let scales: Vec<u32> = (0..blocks.div_ceil(4))
            .map(|_| u32::from_le_bytes([0; 4].map(|_| byte(self.bits()) as u8)))
            .collect();
        let tiling = Tiling::new(coding, shape);
        let gains = self.numbers(rows);
        let matrix = Matrix {
            codes: self.room::<u32>(tiling.code_words(shape.matrices)),
            scales: self.room::<u32>(tiling.scale_words(shape.matrices)),
            gains: Buffer::of(&self.client, &gains),
            tiling,
            rows: shape.rows,
        };
        let stored = [codes, scales].map(|words| Buffer::numbers(&self.client, &words));
        let tiled = [&matrix.codes, &matrix.scales];
        tiles::pack(&self.client, [&stored[0], &stored[1]], tiled, tiling, shape);
        let values = self.room::<f32>(rows * shape.width);
        let parts = [&matrix.codes, &matrix.scales, &matrix.gains];
        tiles::unpack(&self.client, parts, &values, tiling, shape);
        let values = self.read(&values);
        (matrix, values)
    }
}

/// `[rows, width] x [out, width]` in f64; rows of `x` may be followed by padding.
fn product(x: &[f32], columns: usize, weight: &[f32], width: usize) -> Vec<f64> {
    let dot = |x: &[f32], row: &[f32]| -> f64 {
        let products = x
            .iter()
            .zip(row)
            .map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum()
    };
    let rows = x.chunks(columns);
    rows.flat_map(|x| weight.chunks(width).map(move |row| dot(x, row)))
        .collect()
}

/// `silu(gate) * up` of the gates before what they gate.
fn gated(both: &[f64]) -> Vec<f64> {
    let (gates, ups) = both.split_at(both.len() / 2);
    let silu = |gate: f64| gate / (1.0 + (-gate).exp());
    let pairs = gates.iter().zip(ups);
    pairs.map(|(gate, up)| silu(*gate) * up).collect()
}

#[track_caller]
fn agree(found: &[f32], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1e-3, |m: f64, x| m.max(x.abs()));
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (f64::from(*found) - expected).abs() <= 1e-5 * largest,
            "{what}: {found} for {expected} at {at}"
        );
    }
}

#[test]
fn products_are_those_of_the_values() {
    let Some(mut gpu) = Gpu::open() else { return };
    let blocking = |down, across, tiles, groups| Blocking {
        down,
        across,
        tiles,
        groups,
    };
    for coding in CODINGS {
        for (rows, out, width) in [(17, 1, 16), (40, 100, 144), (130, 96, 320), (300, 520, 768)] {
            let shape = Shape {
                matrices: 1,
                rows: out,
                width,
                gated: false,
            };
            let (matrix, values) = gpu.matrix(coding, shape);
            let x = gpu.numbers(rows * width);
            let x = Buffer::of(&gpu.client, &x);
            let x = quantize(&gpu.client, (&x, width), matrix.tiling);
            let rounded = gpu.read(&dequantize(&gpu.client, &x, matrix.tiling));
            let expected = product(&rounded, matrix.tiling.columns(), &values, width);
            for blocking in [
                Blocking::of(rows, matrix.tiling.tiles),
                blocking(8, 1, 1, 2),
                blocking(8, 1, 1, 4),
                blocking(4, 1, 2, 16),
                blocking(2, 2, 2, 8),
            ] {
                let y = gpu.poisoned(rows * out);
                scaled::many(&gpu.client, &matrix, (&x, rows), &y, blocking);
                let what = format!("{coding:?} {rows}x{width}x{out} {blocking:?}");
                agree(&gpu.read(&y), &expected, &what);
            }
        }
    }
}

#[test]
#[allow(
    clippy::too_many_lines,
    reason = "both products, each behind the one before"
)]
fn experts_are_those_of_the_values() {
    let Some(mut gpu) = Gpu::open() else { return };
    for coding in CODINGS {
        for (rows, experts, slots, hidden, width) in [
            (70, 4, 2, 96, 64),
            (300, 8, 3, 144, 40),
            (900, 5, 2, 256, 96),
        ] {
            let shape = |rows, width, gated| Shape {
                matrices: experts,
                rows,
                width,
                gated,
            };
            let (up, up_values) = gpu.matrix(coding, shape(2 * width, hidden, true));
            let (down, down_values) = gpu.matrix(coding, shape(hidden, width, false));
            // The last expert is chosen by nobody.
            let ids: Vec<u32> = (0..rows * slots)
                .map(|choice| (choice % slots) as u32 + gpu.bits() % (experts - slots) as u32)
                .collect();
            let weights = gpu.numbers(rows * slots);
            let x = gpu.numbers(rows * hidden);
            let x = Buffer::of(&gpu.client, &x);
            let x = quantize(&gpu.client, (&x, hidden), up.tiling);
            let id_buffer = Buffer::numbers(&gpu.client, &ids);
            let plan = Plan::new(
                &gpu.client,
                (&id_buffer, slots),
                experts,
                (false, ColumnOrder::Natural),
            );
            let h = gpu.poisoned(rows * slots * width);
            scaled::gate_up(&gpu.client, &up, &x, &plan, &h);
            let order = gpu.read(&plan.order);
            let order: Vec<usize> = order.iter().map(|at| at.to_bits() as usize).collect();

            let rounded = gpu.read(&dequantize(&gpu.client, &x, up.tiling));
            let part = 2 * width * hidden;
            let expected: Vec<f64> = order
                .iter()
                .flat_map(|choice| {
                    let columns = up.tiling.columns();
                    let row = &rounded[choice / slots * columns..][..columns];
                    let expert = &up_values[ids[*choice] as usize * part..][..part];
                    gated(&product(row, columns, expert, hidden))
                })
                .collect();
            let what = format!("{coding:?} {rows} rows, {experts} experts {hidden}x{width}");
            agree(&gpu.read(&h), &expected, &what);

            let h = quantize(&gpu.client, (&h, width), down.tiling);
            let parts = gpu.poisoned(rows * slots * hidden);
            let weight_buffer = Buffer::of(&gpu.client, &weights);
            scaled::down(&gpu.client, &down, &h, (&plan, &weight_buffer), &parts);
            let rounded = gpu.read(&dequantize(&gpu.client, &h, down.tiling));
            let columns = down.tiling.columns();
            let part = width * hidden;
            let mut expected = vec![0.0; rows * slots * hidden];
            for (place, choice) in order.iter().enumerate() {
                let row = &rounded[place * columns..][..columns];
                let expert = ids[*choice] as usize;
                let y = product(row, columns, &down_values[expert * part..][..part], width);
                let to = &mut expected[choice * hidden..][..hidden];
                let weighted = to.iter_mut().zip(y);
                weighted.for_each(|(to, y)| *to = y * f64::from(weights[*choice]));
            }
            agree(&gpu.read(&parts), &expected, &what);
        }
    }
}
