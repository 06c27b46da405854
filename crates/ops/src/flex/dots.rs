//! A vector with the rows of a matrix: every weight is read once, so the speed is that of the memory it is in.

use half::bf16;
use pulp::{Simd, WithSimd};

use super::linear::widen;
use super::math::vectorized;
use super::view::Stored;

/// Rows at a time: enough sums that none waits for its last addition.
const ROWS: usize = 8;

/// `out[j] = x . weight[j]`.
pub(super) fn dots(x: &[f32], weight: Stored<'_>, out: &mut [f32]) {
    if let Stored::F32(weight) = weight {
        return vectorized(Dots { x, weight, out });
    }
    if let Stored::BF16(weight) = weight
        && x.len().is_multiple_of(2)
        && let Ok(pairs) = bytemuck::try_cast_slice::<bf16, u32>(weight)
    {
        return vectorized(PairDots { x, pairs, out });
    }
    let k = x.len();
    let mut wide = Vec::with_capacity(ROWS * k);
    for (i, out) in out.chunks_mut(ROWS).enumerate() {
        let first = i * ROWS * k;
        wide.clear();
        widen(weight.part(first, first + out.len() * k), &mut wide);
        vectorized(Dots {
            x,
            weight: &wide,
            out,
        });
    }
}

/// Rows of f32.
struct Dots<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let k = self.x.len();
        let mut outputs = self.out.chunks_exact_mut(ROWS);
        let mut weights = self.weight.chunks_exact(ROWS * k);
        for (out, weight) in (&mut outputs).zip(&mut weights) {
            out.copy_from_slice(&rows::<S, ROWS>(simd, self.x, weight));
        }
        let weights = weights.remainder().chunks_exact(k);
        for (out, weight) in outputs.into_remainder().iter_mut().zip(weights) {
            [*out] = rows::<S, 1>(simd, self.x, weight);
        }
    }
}

/// The products of `x` with `N` rows. Loops only: a closure may end up as a function without vectors.
#[inline(always)]
fn rows<S: Simd, const N: usize>(simd: S, x: &[f32], weight: &[f32]) -> [f32; N] {
    let (vectors, rest) = S::as_simd_f32s(x);
    let mut bodies = [vectors; N];
    let mut tails = [0.0; N];
    for i in 0..N {
        let (body, tail) = S::as_simd_f32s(&weight[i * x.len()..][..x.len()]);
        bodies[i] = &body[..vectors.len()];
        for (x, weight) in rest.iter().zip(tail) {
            tails[i] += x * weight;
        }
    }
    let mut sums = [simd.splat_f32s(0.0); N];
    for (j, x) in vectors.iter().enumerate() {
        for i in 0..N {
            sums[i] = simd.mul_add_e_f32s(*x, bodies[i][j], sums[i]);
        }
    }
    for i in 0..N {
        tails[i] += simd.reduce_sum_f32s(sums[i]);
    }
    tails
}

/// Rows of bf16, two to a word: the first of a pair is the low half.
struct PairDots<'a> {
    x: &'a [f32],
    pairs: &'a [u32],
    out: &'a mut [f32],
}

impl WithSimd for PairDots<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let k = self.x.len() / 2;
        // The halves of a word meet the even and the odd numbers of x.
        let even: Vec<f32> = self.x.iter().step_by(2).copied().collect();
        let odd: Vec<f32> = self.x.iter().skip(1).step_by(2).copied().collect();
        let x = [&even[..], &odd[..]];
        let mut outputs = self.out.chunks_exact_mut(ROWS);
        let mut weights = self.pairs.chunks_exact(ROWS * k);
        for (out, pairs) in (&mut outputs).zip(&mut weights) {
            out.copy_from_slice(&pair_rows::<S, ROWS>(simd, x, pairs));
        }
        let weights = weights.remainder().chunks_exact(k);
        for (out, pairs) in outputs.into_remainder().iter_mut().zip(weights) {
            [*out] = pair_rows::<S, 1>(simd, x, pairs);
        }
    }
}

/// The products of `x`, as even and odd numbers, with `N` rows.
#[inline(always)]
fn pair_rows<S: Simd, const N: usize>(
    simd: S,
    [even, odd]: [&[f32]; 2],
    pairs: &[u32],
) -> [f32; N] {
    const HIGH: u32 = 0xffff_0000;
    let k = even.len();
    let ((evens, even_rest), (odds, odd_rest)) = (S::as_simd_f32s(even), S::as_simd_f32s(odd));
    let mut bodies: [&[S::u32s]; N] = [&[]; N];
    let mut tails = [0.0; N];
    for i in 0..N {
        let (body, tail) = S::as_simd_u32s(&pairs[i * k..][..k]);
        bodies[i] = &body[..evens.len()];
        for (pair, (even, odd)) in tail.iter().zip(even_rest.iter().zip(odd_rest)) {
            tails[i] += even * f32::from_bits(pair << 16) + odd * f32::from_bits(pair & HIGH);
        }
    }
    let (high, shift) = (simd.splat_u32s(HIGH), simd.splat_u32s(16));
    let mut sums = [simd.splat_f32s(0.0); N];
    for (j, (even, odd)) in evens.iter().zip(odds).enumerate() {
        for i in 0..N {
            let pair = bodies[i][j];
            let first = simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(pair, shift));
            let second = simd.transmute_f32s_u32s(simd.and_u32s(pair, high));
            sums[i] = simd.mul_add_e_f32s(*even, first, sums[i]);
            sums[i] = simd.mul_add_e_f32s(*odd, second, sums[i]);
        }
    }
    for i in 0..N {
        tails[i] += simd.reduce_sum_f32s(sums[i]);
    }
    tails
}
