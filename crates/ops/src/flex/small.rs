//! Products of many rows with a matrix that fits into a cache: blocks of output rows stay in registers.
//!
//! The gemm crate packs both sides, which pays for large ones; the convolutions of a wave decoder have a few dozen
//! channels and very many rows.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::gemm::Rows;
use super::math::{Lanes, vectorized};
use super::parallel;

/// Weights of the largest matrix that is worth it (1 MB).
const LARGEST: usize = 1 << 18;
/// Rows below which packing the matrix costs more than it saves.
const FEWEST_ROWS: usize = 24;
/// Output rows whose input stays in the cache while it meets all panels of the matrix.
const TILE: usize = 96;

/// `out[i] = bias + sum over taps of x[i + tap * dilation] * weight[tap]^T`.
pub(super) struct SmallProduct<'a> {
    pub(super) x: Rows<'a>,
    /// Columns of x.
    pub(super) width: usize,
    pub(super) taps: usize,
    pub(super) dilation: usize,
    /// `[out, taps * width]`
    pub(super) weight: &'a [f32],
    pub(super) bias: Option<&'a [f32]>,
}

impl SmallProduct<'_> {
    /// Whether this is the way to multiply so many rows with this matrix.
    pub(super) fn suits(rows: usize, weight: &[f32]) -> bool {
        rows >= FEWEST_ROWS && weight.len() <= LARGEST
    }

    /// Fills the rows of `out`, each of `out_width`.
    pub(super) fn forward(&self, out: &mut [f32], out_width: usize) {
        let vectors = if out_width > vectorized(Lanes) { 2 } else { 1 };
        let packed = self.pack(out_width, vectors * vectorized(Lanes));
        let work = out.len() * (self.weight.len() / out_width);
        let tile = |(tile, out)| {
            vectorized(Tile {
                product: self,
                packed: &packed,
                vectors,
                first: tile * TILE,
                out,
                out_width,
            });
        };
        let size = TILE * out_width;
        if parallel::pieces(work / 8) == 1 {
            out.chunks_mut(size).enumerate().for_each(tile);
        } else {
            out.par_chunks_mut(size).enumerate().for_each(tile);
        }
    }

    /// Panels `[1 + taps * width, columns]` of the bias and the matrix; columns that it does not have are zero.
    fn pack(&self, out_width: usize, columns: usize) -> Vec<f32> {
        let k = self.taps * self.width;
        let mut packed = vec![0.0; out_width.div_ceil(columns) * columns * (1 + k)];
        for (column, row) in self.weight.chunks_exact(k).enumerate() {
            let first = column / columns * columns * (1 + k) + column % columns;
            let bias = self.bias.map_or(0.0, |bias| bias[column]);
            let values = std::iter::once(&bias).chain(row);
            let places = packed[first..].iter_mut().step_by(columns);
            places
                .zip(values)
                .for_each(|(place, value)| *place = *value);
        }
        packed
    }
}

/// The output rows from `first` on, as many as `out` holds.
struct Tile<'a> {
    product: &'a SmallProduct<'a>,
    packed: &'a [f32],
    vectors: usize,
    first: usize,
    out: &'a mut [f32],
    out_width: usize,
}

impl WithSimd for Tile<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // The accumulators, a row of the panel and a factor fit into the registers.
        match (self.vectors, S::REGISTER_COUNT > 16) {
            (1, _) => self.panels::<S, 1, 12>(simd),
            (_, false) => self.panels::<S, 2, 6>(simd),
            (_, true) => self.panels::<S, 2, 8>(simd),
        }
    }
}

impl Tile<'_> {
    #[inline(always)]
    fn panels<S: Simd, const V: usize, const R: usize>(self, simd: S) {
        let k = self.product.taps * self.product.width;
        let (vectors, _) = S::as_simd_f32s(self.packed);
        let (rows, _) = vectors.as_chunks::<V>();
        for (i, panel) in rows.chunks_exact(1 + k).enumerate() {
            let block = Block {
                simd,
                product: self.product,
                panel,
                start: i * V * S::F32_LANES,
                out_width: self.out_width,
            };
            let mut row = self.first;
            let mut blocks = self.out.chunks_exact_mut(R * self.out_width);
            for out in &mut blocks {
                block.forward::<R>(row, out);
                row += R;
            }
            for out in blocks.into_remainder().chunks_exact_mut(self.out_width) {
                block.forward::<1>(row, out);
                row += 1;
            }
        }
    }
}

/// One panel, for any rows.
struct Block<'a, S: Simd, const V: usize> {
    simd: S,
    product: &'a SmallProduct<'a>,
    /// The bias, then the matrix.
    panel: &'a [[S::f32s; V]],
    /// The panel's first column.
    start: usize,
    out_width: usize,
}

impl<S: Simd, const V: usize> Block<'_, S, V> {
    /// The panel's columns of `R` rows from `row` on.
    #[inline(always)]
    fn forward<const R: usize>(&self, row: usize, out: &mut [f32]) {
        let (x, width) = (self.product.x, self.product.width);
        let mut sums = [self.panel[0]; R];
        for tap in 0..self.product.taps {
            let first = row + tap * self.product.dilation;
            let mut rows = [x.data; R];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = &x.data[(first + i) * x.stride..][..width];
            }
            let weights = &self.panel[1 + tap * width..][..width];
            for column in 0..width {
                let weights = weights[column];
                for (sums, row) in sums.iter_mut().zip(rows) {
                    let factor = self.simd.splat_f32s(row[column]);
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        *sum = self.simd.mul_add_e_f32s(factor, weight, *sum);
                    }
                }
            }
        }
        for (sums, out) in sums.iter().zip(out.chunks_exact_mut(self.out_width)) {
            let places = out[self.start..].chunks_mut(S::F32_LANES);
            for (sum, place) in sums.iter().zip(places) {
                self.simd.partial_store_f32s(place, *sum);
            }
        }
    }
}
