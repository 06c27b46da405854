//! Several vectors with the rows of a matrix: a block of both is multiplied in registers, and no weight is moved.

use half::bf16;
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
    if let Stored::BF16(weight) = weight
        && k.is_multiple_of(2)
        && let Ok(pairs) = bytemuck::try_cast_slice::<bf16, u32>(weight)
    {
        // The halves of a word meet the even and the odd numbers of x.
        let mut split = vec![0.0; x.rows * k];
        for (row, split) in split.chunks_exact_mut(k).enumerate() {
            let (even, odd) = split.split_at_mut(k / 2);
            let (numbers, _) = x.data[row * x.stride..][..k].as_chunks::<2>();
            for (numbers, (even, odd)) in numbers.iter().zip(even.iter_mut().zip(odd)) {
                [*even, *odd] = *numbers;
            }
        }
        let x = Rows {
            data: &split,
            stride: k,
            ..x
        };
        return vectorized(PairBlocks { x, pairs, k, out });
    }
    vectorized(Blocks { x, weight, k, out });
}

/// Rows of any dtype, brought to f32 some at a time.
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
            place.all(simd, &Wide(rows), count, out);
        }
    }
}

/// Rows of bf16, two to a word: the first of a pair is the low half.
struct PairBlocks<'a> {
    /// Each with its even numbers before the odd ones.
    x: Rows<'a>,
    pairs: &'a [u32],
    k: usize,
    out: &'a mut [f32],
}

impl WithSimd for PairBlocks<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, pairs, k, out } = self;
        let width = out.len() / x.rows;
        for first in (0..width).step_by(ROWS) {
            let count = ROWS.min(width - first);
            let pairs = &pairs[first * k / 2..(first + count) * k / 2];
            let place = Place { x, k, first, width };
            place.all(simd, &Pairs(pairs), count, out);
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
    /// All vectors with `count` rows.
    #[inline(always)]
    fn all<S: Simd>(self, simd: S, rows: &impl Products, count: usize, out: &mut [f32]) {
        if count == ROWS {
            return self.vectors::<S, ROWS>(simd, rows, 0, out);
        }
        for row in 0..count {
            self.vectors::<S, 1>(simd, rows, row, out);
        }
    }

    /// All vectors with the `R` rows from `row` on.
    #[inline(always)]
    fn vectors<S: Simd, const R: usize>(
        self,
        simd: S,
        rows: &impl Products,
        row: usize,
        out: &mut [f32],
    ) {
        // The sums, numbers of the vectors and one of a row are held at once.
        let most = if S::F32_LANES < 16 { 2 } else { VECTORS };
        let mut vector = 0;
        while vector < self.x.rows {
            let count = most.min(self.x.rows - vector);
            match count {
                4 => self.block::<S, 4, R>(simd, rows, [vector, row], out),
                3 => self.block::<S, 3, R>(simd, rows, [vector, row], out),
                2 => self.block::<S, 2, R>(simd, rows, [vector, row], out),
                _ => self.block::<S, 1, R>(simd, rows, [vector, row], out),
            }
            vector += count;
        }
    }

    #[inline(always)]
    fn block<S: Simd, const V: usize, const R: usize>(
        self,
        simd: S,
        rows: &impl Products,
        [vector, row]: [usize; 2],
        out: &mut [f32],
    ) {
        let mut vectors: [&[f32]; V] = [&[]; V];
        for (i, x) in vectors.iter_mut().enumerate() {
            *x = &self.x.data[(vector + i) * self.x.stride..][..self.k];
        }
        let sums = rows.products::<S, V, R>(simd, vectors, row);
        for (i, sums) in sums.iter().enumerate() {
            let start = (vector + i) * self.width + self.first + row;
            out[start..start + R].copy_from_slice(sums);
        }
    }
}

/// Rows that vectors can be multiplied with.
trait Products {
    /// The products of `V` vectors with the `R` rows from `row` on. Loops only: a closure may end up as a function without
    /// vectors.
    fn products<S: Simd, const V: usize, const R: usize>(
        &self,
        simd: S,
        vectors: [&[f32]; V],
        row: usize,
    ) -> [[f32; R]; V];
}

/// Rows of f32.
struct Wide<'a>(&'a [f32]);

impl Products for Wide<'_> {
    #[inline(always)]
    fn products<S: Simd, const V: usize, const R: usize>(
        &self,
        simd: S,
        vectors: [&[f32]; V],
        row: usize,
    ) -> [[f32; R]; V] {
        let k = vectors[0].len();
        let steps = S::as_simd_f32s(vectors[0]).0.len();
        let mut bodies: [&[S::f32s]; R] = [&[]; R];
        let mut x: [&[S::f32s]; V] = [&[]; V];
        let mut tails = [[0.0; R]; V];
        for j in 0..R {
            let (body, tail) = S::as_simd_f32s(&self.0[(row + j) * k..][..k]);
            bodies[j] = &body[..steps];
            for i in 0..V {
                let (body, rest) = S::as_simd_f32s(vectors[i]);
                x[i] = &body[..steps];
                for (x, weight) in rest.iter().zip(tail) {
                    tails[i][j] += x * weight;
                }
            }
        }
        let mut sums = [[simd.splat_f32s(0.0); R]; V];
        for step in 0..steps {
            for i in 0..V {
                for j in 0..R {
                    sums[i][j] = simd.mul_add_e_f32s(x[i][step], bodies[j][step], sums[i][j]);
                }
            }
        }
        added(simd, sums, tails)
    }
}

/// Rows of bf16 in pairs.
struct Pairs<'a>(&'a [u32]);

impl Products for Pairs<'_> {
    #[inline(always)]
    fn products<S: Simd, const V: usize, const R: usize>(
        &self,
        simd: S,
        vectors: [&[f32]; V],
        row: usize,
    ) -> [[f32; R]; V] {
        const HIGH: u32 = 0xffff_0000;
        let k = vectors[0].len() / 2;
        let steps = S::as_simd_f32s(&vectors[0][..k]).0.len();
        let mut bodies: [&[S::u32s]; R] = [&[]; R];
        let mut x: [[&[S::f32s]; 2]; V] = [[&[]; 2]; V];
        let mut tails = [[0.0; R]; V];
        for j in 0..R {
            let (body, tail) = S::as_simd_u32s(&self.0[(row + j) * k..][..k]);
            bodies[j] = &body[..steps];
            for i in 0..V {
                let (even, odd) = vectors[i].split_at(k);
                let (even, even_rest) = S::as_simd_f32s(even);
                let (odd, odd_rest) = S::as_simd_f32s(odd);
                x[i] = [&even[..steps], &odd[..steps]];
                for (pair, (even, odd)) in tail.iter().zip(even_rest.iter().zip(odd_rest)) {
                    let [low, high] = [pair << 16, pair & HIGH].map(f32::from_bits);
                    tails[i][j] += even * low + odd * high;
                }
            }
        }
        let (high, shift) = (simd.splat_u32s(HIGH), simd.splat_u32s(16));
        let mut sums = [[simd.splat_f32s(0.0); R]; V];
        for step in 0..steps {
            for j in 0..R {
                let pair = bodies[j][step];
                let first = simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(pair, shift));
                let second = simd.transmute_f32s_u32s(simd.and_u32s(pair, high));
                for i in 0..V {
                    let [even, odd] = [x[i][0][step], x[i][1][step]];
                    sums[i][j] = simd.mul_add_e_f32s(even, first, sums[i][j]);
                    sums[i][j] = simd.mul_add_e_f32s(odd, second, sums[i][j]);
                }
            }
        }
        added(simd, sums, tails)
    }
}

/// The sums of the lanes and what was left over.
#[inline(always)]
fn added<S: Simd, const V: usize, const R: usize>(
    simd: S,
    sums: [[S::f32s; R]; V],
    mut tails: [[f32; R]; V],
) -> [[f32; R]; V] {
    for i in 0..V {
        for j in 0..R {
            tails[i][j] += simd.reduce_sum_f32s(sums[i][j]);
        }
    }
    tails
}
