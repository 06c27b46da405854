//! Every coding that tiles hold, and random matrices of them with their values.

#![allow(dead_code, reason = "no test needs all of it")]

use burn_omni_kernels::Buffer;
use burn_omni_kernels::packed::tiles::{self, Matrix, Tiling};
use burn_omni_kernels::packed::{COLUMNS, Coding, Scaling, Shape};
use cubecl::prelude::*;

/// The codings by name.
pub(crate) const CODINGS: [(&str, Coding); 5] = [
    ("nvfp4", coding(false, Scaling::E4m3, 16)),
    ("mxfp4", coding(false, Scaling::E8m0, 32)),
    ("fp8", coding(true, Scaling::None, 0)),
    ("fp8-block", coding(true, Scaling::F32, 128)),
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

/// Matrices in checkpoint order.
pub(crate) struct Source {
    pub(crate) coding: Coding,
    pub(crate) shape: Shape,
    codes: Vec<u8>,
    scales: Vec<u8>,
    gains: Vec<f32>,
}

impl Source {
    /// Every code that is a number, every E4M3 scale, factors of both signs among those of f32 and, of one matrix, 0: sums of
    /// the few hidden numbers of experts that would be left are of any size.
    pub(crate) fn random(bits: &mut impl FnMut() -> u32, coding: Coding, shape: Shape) -> Self {
        let rows = shape.matrices * shape.rows;
        let columns = shape.width.next_multiple_of(COLUMNS);
        let mut codes = Vec::new();
        for _ in 0..rows {
            for column in 0..columns / if coding.bytes { 1 } else { 2 } {
                let byte = bits() as u8;
                let is_inside = column < shape.width / if coding.bytes { 1 } else { 2 };
                let is_nan = coding.bytes && byte & 0x7F == 0x7F;
                codes.push(match (is_inside, is_nan) {
                    (false, _) => 0,
                    (true, true) => byte - 1,
                    (true, false) => byte,
                });
            }
        }
        let blocks = match coding.scaling {
            Scaling::None => 0,
            _ => rows * columns.div_ceil(coding.block),
        };
        let scales = (0..blocks).flat_map(|_| match coding.scaling {
            Scaling::E4m3 => vec![(bits() % 0x7F) as u8],
            Scaling::E8m0 => vec![(bits() % 16 + 118) as u8],
            _ => {
                let size = (bits() % 1024) as f32 / 512.0;
                let factor = match bits() % 16 {
                    0 if shape.matrices == 1 => 0.0,
                    1..6 => -size,
                    _ => size,
                };
                factor.to_le_bytes().to_vec()
            }
        });
        let scales = scales.collect();
        let gains = (0..rows)
            .map(|_| (bits() as f32 / (1_u32 << 31) as f32 - 1.0) * 0.01)
            .collect();
        Self {
            coding,
            shape,
            codes,
            scales,
            gains,
        }
    }

    /// The value at a column of a row of all matrices.
    pub(crate) fn value(&self, row: usize, column: usize) -> f64 {
        const E2M1: [f64; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
        let columns = self.shape.width.next_multiple_of(COLUMNS);
        let at = row * columns + column;
        let value = if self.coding.bytes {
            e4m3(self.codes[at])
        } else {
            let code = self.codes[at / 2] >> (column % 2 * 4) & 15;
            E2M1[usize::from(code & 7)] * if code > 7 { -1.0 } else { 1.0 }
        };
        value * self.scale(row, column) * f64::from(self.gains[row])
    }

    fn scale(&self, row: usize, column: usize) -> f64 {
        let columns = self.shape.width.next_multiple_of(COLUMNS);
        if self.coding.scaling == Scaling::None {
            return 1.0;
        }
        let block = row * columns.div_ceil(self.coding.block) + column / self.coding.block;
        match self.coding.scaling {
            Scaling::E4m3 => e4m3(self.scales[block]),
            Scaling::E8m0 => 2_f64.powi(i32::from(self.scales[block]) - 127),
            _ => {
                let bytes = [0, 1, 2, 3].map(|byte| self.scales[block * 4 + byte]);
                f64::from(f32::from_le_bytes(bytes))
            }
        }
    }

    /// In tiles on a device, over memory that held something else.
    pub(crate) fn matrix(&self, client: &Client) -> Matrix {
        let tiling = Tiling::new(self.coding, self.shape);
        let counts = [
            tiling.code_words(self.shape.matrices),
            tiling.scale_words(self.shape.matrices),
        ];
        let [codes, scales] =
            counts.map(|count| Buffer::numbers(client, &vec![0xDEAD_BEEF_u32; count]));
        let stored =
            [&self.codes, &self.scales].map(|bytes| Buffer::numbers(client, &words(bytes)));
        let tiled = [&codes, &scales];
        tiles::pack(client, [&stored[0], &stored[1]], tiled, tiling, self.shape);
        Matrix {
            codes,
            scales,
            gains: Buffer::of(client, &self.gains),
            tiling,
            rows: self.shape.rows,
        }
    }

    /// How many values of a matrix that was made of this are others when they are unpacked.
    pub(crate) fn wrong(&self, client: &Client, matrix: &Matrix) -> usize {
        let Shape {
            matrices,
            rows,
            width,
            ..
        } = self.shape;
        let values = Buffer::of(client, &vec![f32::NAN; matrices * rows * width]);
        let parts = [&matrix.codes, &matrix.scales, &matrix.gains];
        tiles::unpack(client, parts, &values, matrix.tiling, self.shape);
        let bytes = client.read_one(values.handle).expect("the launches worked");
        let found = f32::from_bytes(&bytes)[..matrices * rows * width].iter();
        let is_wrong = |(at, found): (usize, &f32)| {
            let expected = self.value(at / width, at % width);
            let apart = (f64::from(*found) - expected).abs();
            found.is_nan() || apart > expected.abs() * 2e-7
        };
        found.enumerate().filter(|at| is_wrong(*at)).count()
    }
}

/// The value of an E4M3 byte, by its definition.
fn e4m3(byte: u8) -> f64 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f64::from(byte & 7));
    let magnitude = match exponent {
        0 => mantissa / 512.0,
        _ => (8.0 + mantissa) * 2_f64.powi(exponent - 10),
    };
    if byte & 0x80 == 0 {
        magnitude
    } else {
        -magnitude
    }
}

/// Bytes as words, at least one.
fn words(bytes: &[u8]) -> Vec<u32> {
    let mut words: Vec<u32> = bytes
        .chunks(4)
        .map(|chunk| {
            let mut four = [0; 4];
            four[..chunk.len()].copy_from_slice(chunk);
            u32::from_le_bytes(four)
        })
        .collect();
    words.resize(words.len().max(1), 0);
    words
}
