//! Products with matrices.

use burn::tensor::DType;
use burn_cubecl::kernel::cast;
use burn_omni_kernels::{self as kernels, ExpertMatrices, Product, Routes, Taps};

use super::buffers::{flat, matrices, matrix, tensor};
use super::{F, I};

pub(super) fn linear(x: F, weight: F, bias: Option<F>) -> F {
    product(x, weight, bias, Taps::ONE)
}

pub(super) fn causal_conv1d(x: F, weight: F, bias: F, dilation: usize) -> F {
    let count = weight.meta.shape()[1] / x.meta.shape()[1];
    product(x, weight, Some(bias), Taps { count, dilation })
}

fn product(x: F, weight: F, bias: Option<F>, taps: Taps) -> F {
    let (like, x, weight) = (x.clone(), matrix(x), matrix(weight));
    let bias = bias.map(|bias| flat(cast(bias, like.dtype)));
    let product = Product {
        x: &x,
        weight: &weight,
        bias: bias.as_ref(),
        taps,
    };
    let y = kernels::linear(&like.client, product);
    tensor(&like, y, [product.rows(), weight.rows], like.dtype)
}

pub(super) fn route(logits: F, top_k: usize, normalize: bool) -> (I, F) {
    let (like, logits) = (logits.clone(), matrix(logits));
    let Routes { ids, weights, .. } = kernels::route(&like.client, &logits, top_k, normalize);
    let shape = [logits.rows, top_k];
    (
        tensor(&like, ids, shape, DType::I32),
        tensor(&like, weights, shape, like.dtype),
    )
}

pub(super) fn experts(x: F, (ids, weights): (I, F), gate_up: F, down: F) -> F {
    let (like, x) = (x.clone(), matrix(x));
    let top_k = ids.meta.shape()[1];
    let routes = Routes {
        ids: flat(cast(ids, DType::I32)),
        weights: flat(cast(weights, like.dtype)),
        top_k,
    };
    let down = cast(down, gate_up.dtype);
    let (gate_up, down) = (matrices(gate_up), matrices(down));
    let both = ExpertMatrices {
        gate_up: &gate_up,
        down: &down,
    };
    let y = kernels::experts(&like.client, &x, &routes, both);
    tensor(&like, y, [x.rows, x.width], like.dtype)
}
