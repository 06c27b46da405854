//! Products whose rows come from the launch before them rounded already, as matrix units take them; elsewhere one operation
//! after the other.

use burn::backend::ops::FloatTensorOps;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::cast;
use burn_omni_kernels::few::Weights;
use burn_omni_kernels::packed::tiles::{Activations, Rounding};
use burn_omni_kernels::{self as kernels, Buffer, Taps};

use super::buffers::{elem, flat, matrix, tensor};
use super::products::{
    are_few, are_many, causal_conv1d, halves, linear, many_rows, on_matrix_units, rounded_product,
};
use super::{F, rows};

/// The matrix, where a product takes these rows rounded and as wide as they are.
fn takes_rounded(like: &F, [rows, width]: [usize; 2], weight: &F) -> Option<Weights> {
    let weight = matrix(weight.clone());
    let weights = on_matrix_units(&like.client, &weight, Taps::ONE)?;
    let takes = if are_few(rows, elem(like.dtype)) {
        weights.columns() == width
    } else {
        are_many(rows, &weight)
    };
    takes.then_some(weights)
}

pub(super) fn rms_norm_linear(x: F, (norm, eps): (F, f64), weight: F) -> F {
    let shape = [x.meta.shape()[0], x.meta.shape()[1]];
    let Some(weights) = takes_rounded(&x, shape, &weight) else {
        return linear(rows::rms_norm(x, norm, eps), weight, None);
    };
    let like = x.clone();
    let rounding = Rounding::natural(halves(elem(x.dtype)) == 2);
    let norm = flat(norm);
    let parameters = rows::parameters(&norm, None, eps);
    let x = kernels::norm_rounded(&like.client, &matrix(x), parameters, rounding);
    rounded_product(&like, &weights, (&x, shape[0]))
}

pub(super) fn swiglu_linear(gate_up: F, weight: F) -> F {
    let shape = [gate_up.meta.shape()[0], gate_up.meta.shape()[1] / 2];
    let Some(weights) = takes_rounded(&gate_up, shape, &weight) else {
        return linear(rows::swiglu(gate_up), weight, None);
    };
    let (like, split) = (gate_up.clone(), halves(elem(gate_up.dtype)) == 2);
    let x = kernels::swiglu_rounded(&like.client, &matrix(gate_up), split);
    rounded_product(&like, &weights, (&x, shape[0]))
}

pub(super) fn snake_conv1d(
    [kept, x]: [F; 2],
    snake: [F; 2],
    [weight, bias]: [F; 2],
    dilation: usize,
) -> (F, F) {
    let rows = x.meta.shape()[0];
    let count = weight.meta.shape()[1] / x.meta.shape()[1];
    let taps = Taps { count, dilation };
    let stored = matrix(weight.clone());
    if let Some(weights) = on_matrix_units(&x.client, &stored, taps)
        && are_many(rows, &stored)
    {
        let reach = kept.meta.shape()[0];
        let kept = cast(kept, x.dtype);
        let (all, last) = snaked((Some(kept), x.clone()), snake);
        let last = last.expect("rows were kept");
        let last = tensor(&x, last, [reach, x.meta.shape()[1]], x.dtype);
        return (
            many_rows(&x, &weights, (&all, rows, taps), [Some(bias), None]),
            last,
        );
    }
    let [alpha, inverse_beta] = snake;
    let (all, last) = rows::extend(kept, x);
    let all = rows::snake(all, alpha, inverse_beta);
    (causal_conv1d(all, weight, bias, dilation), last)
}

pub(super) fn add_snake_linear(y: F, x: F, snake: [F; 2], [weight, bias]: [F; 2]) -> F {
    let rows = x.meta.shape()[0];
    let stored = matrix(weight.clone());
    if let Some(weights) = on_matrix_units(&x.client, &stored, Taps::ONE)
        && are_many(rows, &stored)
    {
        let (all, _) = snaked((None, x.clone()), snake);
        let added = [Some(bias), Some(y)];
        return many_rows(&x, &weights, (&all, rows, Taps::ONE), added);
    }
    let [alpha, inverse_beta] = snake;
    let product = linear(rows::snake(x, alpha, inverse_beta), weight, Some(bias));
    CubeBackend::float_add(product, y)
}

/// Rows behind the activation as they are multiplied, and those of a stream that are kept.
fn snaked(
    (kept, x): (Option<F>, F),
    [alpha, inverse_beta]: [F; 2],
) -> (Activations, Option<Buffer>) {
    let client = x.client.clone();
    let inverse_beta = flat(cast(inverse_beta, alpha.dtype));
    let (kept, x) = (kept.map(matrix), matrix(x));
    let split = halves(x.buffer.elem) == 2;
    kernels::snaked(
        &client,
        (kept.as_ref(), &x),
        [&flat(alpha), &inverse_beta],
        split,
    )
}
