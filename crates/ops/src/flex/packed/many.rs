//! Many rows: a panel of weights becomes f32 in a cache and goes to the gemm.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::decode::{Bytes, Decode, Nibbles};
use super::layout::Matrix;
use super::scales::Scales;
use crate::flex::gemm::{Output, Product, Rows, combine};
use crate::flex::math::vectorized;
use crate::packed::Scale;

/// Output columns whose weights are f32 at a time, a multiple of every vector's lanes.
pub(super) const PANEL: usize = 64;

/// `out = x * weight^T` of the output columns `columns`, which begin with a multiple of [`PANEL`].
pub(super) fn many_rows(matrix: Matrix<'_>, x: Rows<'_>, columns: Range<usize>, out: &mut [f32]) {
    let (width, k) = (columns.len(), matrix.spec.width);
    let mut values = vec![0.0; matrix.spec.columns() * PANEL];
    for start in (0..width).step_by(PANEL) {
        let end = (start + PANEL).min(width);
        let rows = columns.start + start..columns.start + end;
        vectorized(Values {
            matrix,
            rows,
            out: &mut values,
            stride: PANEL,
        });
        let product = Product {
            lhs: x,
            rhs: Rows {
                data: &values,
                rows: k,
                stride: PANEL,
            },
            k,
            scale: 1.0,
            output: Output::Overwrite,
        };
        combine(&mut out[start..], width, product, end - start);
    }
}

/// The values of one panel, row by row.
pub(super) struct Unpack<'a> {
    pub(super) matrix: Matrix<'a>,
    pub(super) panel: usize,
    /// `[rows of the panel, width]`
    pub(super) out: &'a mut [f32],
}

impl WithSimd for Unpack<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (lanes, spec) = (S::F32_LANES, self.matrix.spec);
        let first = self.panel * lanes;
        let mut values = vec![0.0; spec.columns() * lanes];
        let values_of_rows = Values {
            matrix: self.matrix,
            rows: first..(first + lanes).min(spec.rows),
            out: &mut values,
            stride: lanes,
        };
        values_of_rows.with_simd(simd);
        for (row, out) in self.out.chunks_exact_mut(spec.width).enumerate() {
            let values = values[row..].iter().step_by(lanes);
            out.iter_mut()
                .zip(values)
                .for_each(|(out, value)| *out = *value);
        }
    }
}

/// The values of `rows`, which begin with a panel, transposed: `out[column * stride + row]`.
struct Values<'a> {
    matrix: Matrix<'a>,
    rows: Range<usize>,
    out: &'a mut [f32],
    stride: usize,
}

impl WithSimd for Values<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.matrix.spec.format.code.table() {
            Some(table) => self.panels(simd, Nibbles { table }),
            None => self.panels(simd, Bytes),
        }
    }
}

impl Values<'_> {
    #[inline(always)]
    fn panels<S: Simd, D: Decode>(self, simd: S, decode: D) {
        let (lanes, spec) = (S::F32_LANES, &self.matrix.spec);
        let (mut scales, mut scratch) = (Scales::default(), Vec::new());
        let affine = spec.format.scale == Scale::Affine;
        for start in (0..self.rows.len()).step_by(lanes) {
            let panel = self.matrix.panel((self.rows.start + start) / lanes, lanes);
            scales.read(&panel, spec, lanes);
            let gains = simd.partial_load_f32s(panel.gains);
            let words = S::as_simd_u32s(panel.words(lanes, &mut scratch)).0;
            let factors = S::as_simd_f32s(&scales.values).0;
            let mut place = start;
            for (words, scale) in words
                .chunks(scales.block / D::PER_WORD)
                .zip(factors.chunks_exact(if affine { 2 } else { 1 }))
            {
                let offset = if affine {
                    scale[1]
                } else {
                    simd.splat_f32s(0.0)
                };
                for word in words {
                    for i in 0..D::PER_WORD {
                        let value = decode.value(simd, *word, i);
                        let value = simd.mul_add_f32s(value, scale[0], offset);
                        let value = simd.mul_f32s(value, gains);
                        simd.partial_store_f32s(&mut self.out[place..place + lanes], value);
                        place += self.stride;
                    }
                }
            }
        }
    }
}
