//! Operations on each row or each number.

use burn_cubecl::kernel::cast;
use burn_omni_kernels::{self as kernels, Angles, Buffer, Function, NormParameters};

use super::buffers::{e4m3, flat, heads, matrix, tensor};
use super::{F, I};
use crate::draw::Words;

pub(super) fn norm(x: F, weight: F, bias: Option<F>, eps: f64) -> F {
    let (like, x) = (x.clone(), heads(x));
    let bias = bias.map(|bias| flat(cast(bias, weight.dtype)));
    let weight = flat(weight);
    let y = kernels::norm(&like.client, &x, parameters(&weight, bias.as_ref(), eps));
    tensor(&like, y, [x.rows, x.heads, x.width], like.dtype)
}

/// [`norm`] of rows of one head, `[rows, width]`.
pub(super) fn rms_norm(x: F, weight: F, eps: f64) -> F {
    let (like, x) = (x.clone(), matrix(x));
    let weight = flat(weight);
    let heads = x.clone().into();
    let y = kernels::norm(&like.client, &heads, parameters(&weight, None, eps));
    tensor(&like, y, [x.rows, x.width], like.dtype)
}

pub(super) fn parameters<'a>(
    weight: &'a Buffer,
    bias: Option<&'a Buffer>,
    eps: f64,
) -> NormParameters<'a> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an epsilon is an f32 everywhere"
    )]
    let eps = eps as f32;
    NormParameters { weight, bias, eps }
}

pub(super) fn rope(x: F, cos: F, sin: F) -> F {
    let (like, x) = (x.clone(), heads(x));
    let sin = cast(sin, cos.dtype);
    let (cos, sin) = (flat(cos), flat(sin));
    let angles = Angles {
        cos: &cos,
        sin: &sin,
    };
    let y = kernels::rope(&like.client, &x, angles);
    tensor(&like, y, [x.rows, x.heads, x.width], like.dtype)
}

pub(super) fn normed_rope(x: F, (weight, eps): (F, f64), cos: F, sin: F) -> F {
    let (like, x) = (x.clone(), heads(x));
    let sin = cast(sin, cos.dtype);
    let (cos, sin, weight) = (flat(cos), flat(sin), flat(weight));
    let angles = Angles {
        cos: &cos,
        sin: &sin,
    };
    let y = kernels::normed_rope(&like.client, &x, parameters(&weight, None, eps), angles);
    tensor(&like, y, [x.rows, x.heads, x.width], like.dtype)
}

pub(super) fn swiglu(gate_up: F) -> F {
    let (like, gate_up) = (gate_up.clone(), matrix(gate_up));
    let y = kernels::swiglu(&like.client, &gate_up);
    tensor(&like, y, [gate_up.rows, gate_up.width / 2], like.dtype)
}

pub(super) fn snake(x: F, alpha: F, inverse_beta: F) -> F {
    let (like, x) = (x.clone(), matrix(x));
    let inverse_beta = flat(cast(inverse_beta, alpha.dtype));
    let y = kernels::snake(&like.client, &x, &flat(alpha), &inverse_beta);
    tensor(&like, y, [x.rows, x.width], like.dtype)
}

pub(super) fn add_scaled(y: F, x: F, scale: F) -> F {
    let (like, y, x) = (y.clone(), matrix(y), matrix(x));
    let scale = flat(cast(scale, like.dtype));
    let sum = kernels::add_scaled(&like.client, &y, &x, &scale);
    tensor(&like, sum, [y.rows, y.width], like.dtype)
}

pub(super) fn depthwise_conv1d(x: F, weight: F, bias: F) -> F {
    let (like, x) = (x.clone(), matrix(x));
    let taps = weight.meta.shape()[0];
    let rows = x.rows + 1 - taps;
    let [weight, bias] = [weight, bias].map(|numbers| flat(cast(numbers, like.dtype)));
    let y = kernels::depthwise_conv1d(&like.client, &x, (&weight, taps), &bias);
    tensor(&like, y, [rows, x.width], like.dtype)
}

pub(super) fn extend(kept: F, x: F) -> (F, F) {
    let like = x.clone();
    let (kept, x) = (matrix(cast(kept, like.dtype)), matrix(x));
    let [all, last] = kernels::extend(&like.client, &kept, &x);
    (
        tensor(&like, all, [kept.rows + x.rows, x.width], like.dtype),
        tensor(&like, last, [kept.rows, x.width], like.dtype),
    )
}

/// Written in place even when somebody else holds the store.
pub(super) fn write(store: F, rows: F, at: usize) -> F {
    let rows = heads(rows);
    kernels::write_rows(&store.client, &rows, &flat(store.clone()), at);
    store
}

/// The same into words of E4M3.
pub(super) fn write_e4m3(store: I, rows: F, at: usize) -> I {
    let rows = heads(rows);
    kernels::write_rows(&store.client, &rows, &e4m3(store.clone()).buffer, at);
    store
}

/// `function` of every number of a tensor of any shape.
pub(super) fn map(x: F, function: Function) -> F {
    let like = x.clone();
    let len = like.meta.shape().num_elements();
    let y = kernels::map(&like.client, &flat(x), len, function);
    tensor(&like, y, like.meta.shape().clone(), like.dtype)
}

/// Filled in place.
pub(super) fn draw_words(words: I, drawn: Words) -> I {
    let len = words.meta.shape().num_elements();
    let Words {
        seed,
        row,
        width,
        random,
        base,
    } = drawn;
    let drawn = kernels::Drawn {
        seed,
        row,
        width,
        random,
        base,
    };
    kernels::draw_words(&words.client, &flat(words.clone()), len, drawn);
    words
}

/// Filled in place.
pub(super) fn draw_floats(floats: F, seed: u32) -> F {
    let len = floats.meta.shape().num_elements();
    kernels::draw_floats(&floats.client, &flat(floats.clone()), len, seed);
    floats
}

/// Written in place.
pub(super) fn copy(from: I, to: I) -> I {
    kernels::copy(&to.client, &flat(from), &flat(to.clone()));
    to
}

const _: () = assert!(crate::COPY_WORDS == kernels::COPY_WORDS);
