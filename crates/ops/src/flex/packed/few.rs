//! Few rows: every word is decoded once and meets all of them.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::decode::{Bytes, Decode, GROUP, Nibbles};
use super::layout::Matrix;
use super::scales::Scales;
use crate::flex::gemm::Rows;
use crate::packed::Scale;

/// `out = x * weight^T` of the output columns `columns`, which begin with a panel.
pub(super) struct FewRows<'a> {
    pub(super) matrix: Matrix<'a>,
    /// As wide as the matrix is stored, zero behind its width.
    pub(super) x: Rows<'a>,
    pub(super) columns: Range<usize>,
    /// `[x.rows, columns]`
    pub(super) out: &'a mut [f32],
}

impl WithSimd for FewRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.matrix.spec.format.code.table() {
            Some(table) => self.panels(simd, Nibbles { table }),
            None => self.panels(simd, Bytes),
        }
    }
}

impl FewRows<'_> {
    #[inline(always)]
    fn panels<S: Simd, D: Decode>(self, simd: S, decode: D) {
        let (lanes, spec) = (S::F32_LANES, &self.matrix.spec);
        let (mut scales, mut scratch) = (Scales::default(), Vec::new());
        let width = self.columns.len();
        for start in (0..width).step_by(lanes) {
            let panel = self
                .matrix
                .panel((self.columns.start + start) / lanes, lanes);
            scales.read(&panel, spec, lanes);
            let tile = Tile {
                simd,
                decode,
                words: S::as_simd_u32s(panel.words(lanes, &mut scratch)).0,
                scales: S::as_simd_f32s(&scales.values).0,
                block: scales.block / D::PER_WORD,
                affine: spec.format.scale == Scale::Affine,
                rows: panel.rows(),
                gains: simd.partial_load_f32s(panel.gains),
                x: self.x,
            };
            let mut row = 0;
            while row < self.x.rows {
                let out = &mut self.out[row * width + start..];
                row += match self.x.rows - row {
                    1 => tile.forward::<1, 4>(row, out, width),
                    2 => tile.forward::<2, 2>(row, out, width),
                    3 => tile.forward::<3, 1>(row, out, width),
                    _ => tile.forward::<4, 1>(row, out, width),
                };
            }
        }
    }
}

/// One panel, for any rows of the input.
struct Tile<'a, S: Simd, D> {
    simd: S,
    decode: D,
    words: &'a [S::u32s],
    scales: &'a [S::f32s],
    /// Words that share a scale.
    block: usize,
    affine: bool,
    /// Rows of the panel.
    rows: usize,
    gains: S::f32s,
    x: Rows<'a>,
}

impl<S: Simd, D: Decode> Tile<'_, S, D> {
    /// The sums of `R` rows from `row` on, one below the other in `out`; returns `R`. Sums have `P` parts, so that no
    /// addition waits for the last.
    #[inline(always)]
    fn forward<const R: usize, const P: usize>(
        &self,
        row: usize,
        out: &mut [f32],
        width: usize,
    ) -> usize {
        let mut x: [&[f32]; R] = [&[]; R];
        for (i, x) in x.iter_mut().enumerate() {
            *x = &self.x.data[(row + i) * self.x.stride..];
        }
        let sums = if self.affine {
            self.with_offsets::<R, P>(x)
        } else {
            self.by_block::<R, P>(x)
        };
        for (i, sum) in sums.into_iter().enumerate() {
            let out = &mut out[i * width..];
            let sum = self.simd.mul_f32s(sum, self.gains);
            self.simd.partial_store_f32s(&mut out[..self.rows], sum);
        }
        R
    }

    /// Sums of codes, each block times its scale.
    #[inline(always)]
    fn by_block<const R: usize, const P: usize>(&self, mut x: [&[f32]; R]) -> [S::f32s; R] {
        let simd = self.simd;
        let zero = simd.splat_f32s(0.0);
        let mut sums = [zero; R];
        for (words, scale) in self.words.chunks(self.block).zip(self.scales) {
            let mut parts = [[zero; R]; P];
            for word in words {
                for group in 0..D::PER_WORD / GROUP {
                    let x = take(&mut x);
                    for i in 0..GROUP {
                        let value = self.decode.value(simd, *word, GROUP * group + i);
                        meet(simd, &mut parts[i % P], value, &x, i);
                    }
                }
            }
            for (sum, block) in sums.iter_mut().zip(total(simd, parts)) {
                *sum = simd.mul_add_e_f32s(block, *scale, *sum);
            }
        }
        sums
    }

    /// Sums of numbers: a code and its offset may cancel, so they meet before the sum.
    #[inline(always)]
    fn with_offsets<const R: usize, const P: usize>(&self, mut x: [&[f32]; R]) -> [S::f32s; R] {
        let simd = self.simd;
        let mut parts = [[simd.splat_f32s(0.0); R]; P];
        let (scales, _) = self.scales.as_chunks::<2>();
        for (words, [factor, offset]) in self.words.chunks(self.block).zip(scales) {
            for word in words {
                for group in 0..D::PER_WORD / GROUP {
                    let x = take(&mut x);
                    for i in 0..GROUP {
                        let value = self.decode.value(simd, *word, GROUP * group + i);
                        let value = simd.mul_add_f32s(value, *factor, *offset);
                        meet(simd, &mut parts[i % P], value, &x, i);
                    }
                }
            }
        }
        total(simd, parts)
    }
}

/// The sums of the parts.
#[inline(always)]
fn total<S: Simd, const R: usize, const P: usize>(
    simd: S,
    parts: [[S::f32s; R]; P],
) -> [S::f32s; R] {
    let mut total = parts[0];
    for part in &parts[1..] {
        for (total, part) in total.iter_mut().zip(part) {
            *total = simd.add_f32s(*total, *part);
        }
    }
    total
}

/// The next numbers of every row.
#[inline(always)]
fn take<'a, const R: usize>(x: &mut [&'a [f32]; R]) -> [&'a [f32; GROUP]; R] {
    let mut next = [&[0.0; GROUP]; R];
    for i in 0..R {
        if let Some((first, rest)) = x[i].split_first_chunk() {
            (next[i], x[i]) = (first, rest);
        }
    }
    next
}

/// Adds number `i` of every row times `value`.
#[inline(always)]
fn meet<S: Simd, const R: usize>(
    simd: S,
    sums: &mut [S::f32s; R],
    value: S::f32s,
    x: &[&[f32; GROUP]; R],
    i: usize,
) {
    for (sum, x) in sums.iter_mut().zip(x) {
        *sum = simd.mul_add_e_f32s(simd.splat_f32s(x[i]), value, *sum);
    }
}
