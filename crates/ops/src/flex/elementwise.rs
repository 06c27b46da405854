//! Activations, a row at a time.

use burn_flex::FlexTensor;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::math::{erf, exp, mul_add, silu, sine_squared, vectorized};
use super::parallel;
use super::view::{View, tensor, vector, with_rows};

/// Scalar operations that one transcendental function costs, for the choice of threads.
const TRANSCENDENTAL: usize = 16;

pub(super) fn swiglu(gate_up: &FlexTensor) -> FlexTensor {
    let gate_up = with_rows(gate_up);
    let view = View::new(&gate_up);
    let width = view.width / 2;
    let mut out = vec![0.0; view.rows * width];
    let work = out.len() * TRANSCENDENTAL;
    parallel::rows(&mut out, width, work, |row, out| {
        swiglu_row(view.row(row, 0), out)
    });
    tensor(out, &[view.rows, width])
}

/// `silu(gate) * up` of one row that holds gate and up side by side.
pub(super) fn swiglu_row(gate_up: &[f32], out: &mut [f32]) {
    let (gate, up) = gate_up.split_at(out.len());
    vectorized(SwiGlu { gate, up, out });
}

pub(super) fn gelu(x: FlexTensor) -> FlexTensor {
    in_place(x, 1, |row| vectorized(Gelu { row }))
}

pub(super) fn gelu_tanh(x: FlexTensor) -> FlexTensor {
    in_place(x, 1, |row| vectorized(GeluTanh { row }))
}

pub(super) fn snake(x: FlexTensor, alpha: &FlexTensor, inverse_beta: &FlexTensor) -> FlexTensor {
    let (alpha, inverse_beta) = (vector(alpha), vector(inverse_beta));
    in_place(x, alpha.len(), |rows| {
        vectorized(Snake {
            rows,
            alpha,
            inverse_beta,
        })
    })
}

pub(super) fn add_scaled(y: FlexTensor, x: &FlexTensor, scale: &FlexTensor) -> FlexTensor {
    let x = with_rows(x);
    let view = View::new(&x);
    let scale = vector(scale);
    let mut y = owned(y);
    let sum = y.storage_mut::<f32>();
    let work = sum.len();
    parallel::rows(sum, view.width, work, |row, y| {
        for ((y, x), scale) in y.iter_mut().zip(view.row(row, 0)).zip(scale) {
            *y += x * scale;
        }
    });
    y
}

/// The tensor itself if its elements lie side by side and nothing else is in its memory, else a copy of which this is so.
pub(super) fn owned(x: FlexTensor) -> FlexTensor {
    let full = x.bytes().len() == x.layout().num_elements() * size_of::<f32>();
    if x.is_contiguous() && full {
        x
    } else {
        x.to_contiguous()
    }
}

/// Applies `f` to pieces of whole rows of `width` elements, writing over `x` when nobody else holds it.
fn in_place(x: FlexTensor, width: usize, f: impl Fn(&mut [f32]) + Send + Sync) -> FlexTensor {
    let mut x = owned(x);
    let data = x.storage_mut::<f32>();
    let pieces = parallel::pieces(data.len() * TRANSCENDENTAL);
    let rows = (data.len() / width).div_ceil(pieces).max(1);
    if pieces == 1 {
        f(data);
    } else {
        data.par_chunks_mut(rows * width).for_each(f);
    }
    x
}

struct SwiGlu<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for SwiGlu<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for ((out, gate), up) in self.out.iter_mut().zip(self.gate).zip(self.up) {
            *out = silu::<S>(*gate) * up;
        }
    }
}

struct Gelu<'a> {
    row: &'a mut [f32],
}

impl WithSimd for Gelu<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for x in self.row {
            *x = 0.5 * *x * (1.0 + erf::<S>(*x * core::f32::consts::FRAC_1_SQRT_2));
        }
    }
}

struct GeluTanh<'a> {
    row: &'a mut [f32],
}

impl WithSimd for GeluTanh<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        // (1 + tanh(u)) / 2 is the logistic function of 2 * u.
        const TWICE_SQRT_2_OVER_PI: f32 =
            core::f32::consts::FRAC_2_SQRT_PI * core::f32::consts::SQRT_2;
        for x in self.row {
            let cubic = mul_add::<S>(0.044_715 * *x * *x, *x, *x);
            *x /= 1.0 + exp::<S>(-TWICE_SQRT_2_OVER_PI * cubic);
        }
    }
}

struct Snake<'a> {
    rows: &'a mut [f32],
    alpha: &'a [f32],
    inverse_beta: &'a [f32],
}

impl WithSimd for Snake<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for row in self.rows.chunks_exact_mut(self.alpha.len()) {
            for ((x, alpha), inverse_beta) in row.iter_mut().zip(self.alpha).zip(self.inverse_beta)
            {
                *x = mul_add::<S>(sine_squared::<S>(alpha * *x), *inverse_beta, *x);
            }
        }
    }
}
