//! Norms and rotary embedding, a row at a time.

use burn_flex::FlexTensor;
use pulp::{Simd, WithSimd};

use super::math::{mul_add, vectorized};
use super::parallel;
use super::view::{View, tensor, vector, with_rows};

/// Applies `f(row, head, input, output)` to every innermost row.
fn map_rows(x: &FlexTensor, f: impl Fn(usize, &[f32], &mut [f32]) + Sync) -> FlexTensor {
    let x = with_rows(x);
    let view = View::new(&x);
    let mut out = vec![0.0; view.rows * view.heads * view.width];
    let work = out.len() * 4;
    parallel::rows(&mut out, view.width, work, |i, out| {
        f(
            i / view.heads,
            view.row(i / view.heads, i % view.heads),
            out,
        );
    });
    tensor(out, &x.layout().shape().iter().copied().collect::<Vec<_>>())
}

pub(super) fn rms_norm(x: &FlexTensor, weight: &FlexTensor, eps: f64) -> FlexTensor {
    let weight = vector(weight);
    map_rows(x, |_, x, out| {
        vectorized(RmsNorm {
            x,
            weight,
            eps: eps as f32,
            out,
        })
    })
}

pub(super) fn layer_norm(
    x: &FlexTensor,
    weight: &FlexTensor,
    bias: &FlexTensor,
    eps: f64,
) -> FlexTensor {
    let (weight, bias) = (vector(weight), vector(bias));
    map_rows(x, |_, x, out| {
        vectorized(LayerNorm {
            x,
            weight,
            bias,
            eps: eps as f32,
            out,
        })
    })
}

pub(super) fn rope(x: &FlexTensor, cos: &FlexTensor, sin: &FlexTensor) -> FlexTensor {
    let (cos, sin) = (with_rows(cos), with_rows(sin));
    let (cos, sin) = (View::new(&cos), View::new(&sin));
    map_rows(x, |row, x, out| {
        vectorized(Rotate {
            x,
            cos: cos.row(row, 0),
            sin: sin.row(row, 0),
            out,
        })
    })
}

/// A sum in 16 lanes that are folded at the end: the order depends on the length alone.
#[inline(always)]
pub(super) fn sum_of(x: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; 16];
    let (blocks, rest) = x.as_chunks::<16>();
    for block in blocks {
        for (lane, x) in lanes.iter_mut().zip(block) {
            *lane = f(*lane, *x);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = f(*lane, *x);
    }
    fold(lanes)
}

/// The pairwise sum of 16 lanes.
#[inline(always)]
pub(super) fn fold(lanes: [f32; 16]) -> f32 {
    let (mut eight, mut four) = ([0.0; 8], [0.0; 4]);
    for i in 0..8 {
        eight[i] = lanes[i] + lanes[i + 8];
    }
    for i in 0..4 {
        four[i] = eight[i] + eight[i + 4];
    }
    (four[0] + four[2]) + (four[1] + four[3])
}

struct RmsNorm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl WithSimd for RmsNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let mean = sum_of(self.x, |sum, x| mul_add::<S>(x, x, sum)) / self.x.len() as f32;
        let factor = 1.0 / (mean + self.eps).sqrt();
        for ((out, x), weight) in self.out.iter_mut().zip(self.x).zip(self.weight) {
            *out = x * factor * weight;
        }
    }
}

struct LayerNorm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl WithSimd for LayerNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let width = self.x.len() as f32;
        let mean = sum_of(self.x, |sum, x| sum + x) / width;
        let variance = sum_of(self.x, |sum, x| mul_add::<S>(x - mean, x - mean, sum)) / width;
        let factor = 1.0 / (variance + self.eps).sqrt();
        for (((out, x), weight), bias) in self
            .out
            .iter_mut()
            .zip(self.x)
            .zip(self.weight)
            .zip(self.bias)
        {
            *out = mul_add::<S>((x - mean) * factor, *weight, *bias);
        }
    }
}

struct Rotate<'a> {
    x: &'a [f32],
    cos: &'a [f32],
    sin: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let half = self.x.len() / 2;
        let (a, b) = self.x.split_at(half);
        let (first, second) = self.out.split_at_mut(half);
        for i in 0..half {
            let (cos, sin) = (self.cos[i], self.sin[i]);
            first[i] = a[i] * cos - b[i] * sin;
            second[i] = b[i] * cos + a[i] * sin;
        }
    }
}
