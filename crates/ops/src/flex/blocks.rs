//! Several vectors with the rows of a matrix: a block of both is multiplied in registers, and neither is reordered.

use pulp::{Simd, WithSimd};

use super::gemm::Rows;
use super::linear::widen;
use super::math::vectorized;
use super::view::Stored;

/// Rows of the matrix at a time.
const ROWS: usize = 4;
/// Vectors at a time, where the processor has registers for so many sums.
const VECTORS: usize = 4;

/// `out = x * weight^T`, `[x.rows, width]`.
pub(super) fn blocks(x: Rows<'_>, weight: Stored<'_>, k: usize, out: &mut [f32]) {
    vectorized(Blocks { x, weight, k, out });
}

struct Blocks<'a> {
    x: Rows<'a>,
    weight: Stored<'a>,
    k: usize,
    out: &'a mut [f32],
}

impl WithSimd for Blocks<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, weight, k, out } = self;
        let width = out.len() / x.rows;
        let mut wide = Vec::with_capacity(ROWS * k);
        for first in (0..width).step_by(ROWS) {
            let count = ROWS.min(width - first);
            let rows = weight.part(first * k, (first + count) * k);
            let rows = match rows {
                Stored::F32(rows) => rows,
                rows => {
                    wide.clear();
                    widen(rows, &mut wide);
                    &wide[..]
                }
            };
            let place = Place { x, k, first, width };
            if count == ROWS {
                place.vectors::<S, ROWS>(simd, rows, out);
            } else {
                for (i, row) in rows.chunks_exact(k).enumerate() {
                    let place = Place {
                        first: first + i,
                        ..place
                    };
                    place.vectors::<S, 1>(simd, row, out);
                }
            }
        }
    }
}

/// Where the products of some rows go.
#[derive(Clone, Copy)]
struct Place<'a> {
    x: Rows<'a>,
    k: usize,
    /// Column of the output that belongs to the first of the rows.
    first: usize,
    /// Columns of the output.
    width: usize,
}

impl Place<'_> {
    /// All vectors with `R` rows.
    #[inline(always)]
    fn vectors<S: Simd, const R: usize>(self, simd: S, rows: &[f32], out: &mut [f32]) {
        // Sums, the numbers of a vector and one of a row are held at once.
        let most = if S::F32_LANES < 16 { 2 } else { VECTORS };
        let mut vector = 0;
        while vector < self.x.rows {
            let count = most.min(self.x.rows - vector);
            match count {
                4 => self.block::<S, 4, R>(simd, vector, rows, out),
                3 => self.block::<S, 3, R>(simd, vector, rows, out),
                2 => self.block::<S, 2, R>(simd, vector, rows, out),
                _ => self.block::<S, 1, R>(simd, vector, rows, out),
            }
            vector += count;
        }
    }

    /// `V` vectors with `R` rows. Loops only: a closure may end up as a function without vectors.
    #[inline(always)]
    fn block<S: Simd, const V: usize, const R: usize>(
        self,
        simd: S,
        vector: usize,
        rows: &[f32],
        out: &mut [f32],
    ) {
        let k = self.k;
        let (head, _) = S::as_simd_f32s(&rows[..k]);
        let steps = head.len();
        let mut bodies: [&[S::f32s]; R] = [&[]; R];
        let mut vectors: [&[S::f32s]; V] = [&[]; V];
        let mut row_tails: [&[f32]; R] = [&[]; R];
        let mut vector_tails: [&[f32]; V] = [&[]; V];
        for i in 0..R {
            let (body, tail) = S::as_simd_f32s(&rows[i * k..][..k]);
            bodies[i] = &body[..steps];
            row_tails[i] = tail;
        }
        for i in 0..V {
            let (body, tail) = S::as_simd_f32s(&self.x.data[(vector + i) * self.x.stride..][..k]);
            vectors[i] = &body[..steps];
            vector_tails[i] = tail;
        }
        let mut sums = [[simd.splat_f32s(0.0); R]; V];
        for step in 0..steps {
            for i in 0..V {
                for j in 0..R {
                    sums[i][j] = simd.mul_add_e_f32s(vectors[i][step], bodies[j][step], sums[i][j]);
                }
            }
        }
        for i in 0..V {
            for j in 0..R {
                let mut sum = simd.reduce_sum_f32s(sums[i][j]);
                for (x, y) in vector_tails[i].iter().zip(row_tails[j]) {
                    sum += x * y;
                }
                out[(vector + i) * self.width + self.first + j] = sum;
            }
        }
    }
}
