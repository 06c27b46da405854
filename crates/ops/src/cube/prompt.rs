//! The halves of a decoder layer over many rows.

use burn::tensor::{DType, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use burn_omni_kernels::decode::Cache;
use burn_omni_kernels::packed::tiles;
use burn_omni_kernels::prompt::{self, Attending, Entering};
use burn_omni_kernels::{Angles, Buffer, Matrix};
use cubecl::prelude::*;

use super::buffers::{flat, primitive, tensor};
use super::decode::{feed_forward as weights_of, stored, weights};
use super::packed::in_four_bits;
use crate::decode::{AttentionParts, FeedForwardParts, Matrices, SharedParts};
use crate::prompt::Standing;

pub(crate) fn runs_on(x: &Tensor<2>) -> bool {
    primitive(x.clone()).is_some_and(|x| tiles::runs_on(&x.client))
}

pub(crate) fn attend(
    x: Tensor<2>,
    parts: AttentionParts,
    eps: f64,
    standing: Standing,
) -> Option<Tensor<2>> {
    let Standing { heads, angles, at } = standing;
    let (like, x) = rows(x)?;
    let products = [&parts.qkv, &parts.o_proj];
    let all = products
        .iter()
        .all(|all| meets_bf16(&like.client, x.rows, all));
    all.then_some(())?;
    let [keys, values] = parts.cache;
    let cache = Cache {
        keys: stored(keys)?,
        values: stored(values)?,
    };
    let (qkv, o_proj) = (weights(parts.qkv)?, weights(parts.o_proj)?);
    let [q_norm, k_norm] = parts.qk_norms;
    let (q_norm, k_norm) = (floats(q_norm)?, floats(k_norm)?);
    let [cos, sin] = angles;
    let (cos, sin) = (floats(cos)?, floats(sin)?);
    let norm = floats(parts.norm)?;
    let entering = Entering {
        x: &x,
        norm: &norm,
        eps: small(eps),
    };
    let attending = Attending {
        qkv: &qkv,
        qk_norms: [&q_norm, &k_norm],
        o_proj: &o_proj,
        heads,
        angles: Angles {
            cos: &cos,
            sin: &sin,
        },
    };
    let y = prompt::attend(&like.client, entering, attending, (&cache, at))?;
    Some(output(&like, y, &x))
}

pub(crate) fn feed_forward(
    x: Tensor<2>,
    (norm, eps): (Tensor<1>, f64),
    parts: FeedForwardParts,
) -> Option<Tensor<2>> {
    let FeedForwardParts::Sparse {
        experts, shared, ..
    } = &parts
    else {
        return None;
    };
    let shared = shared
        .iter()
        .flat_map(|SharedParts { matrices, .. }| matrices);
    let mut products = experts.iter().chain(shared);
    let (like, x) = rows(x)?;
    let all = products.all(|all| meets_bf16(&like.client, x.rows, all));
    all.then_some(())?;
    let parts = weights_of(parts)?;
    let norm = floats(norm)?;
    let entering = Entering {
        x: &x,
        norm: &norm,
        eps: small(eps),
    };
    let y = prompt::feed_forward(&like.client, entering, &parts)?;
    Some(output(&like, y, &x))
}

/// Whether so many rows are rounded to bf16 for this matrix, not to 4 bits.
fn meets_bf16(client: &Client, rows: usize, matrices: &Matrices) -> bool {
    match matrices {
        Matrices::Dense(_) => true,
        Matrices::Packed(packed) => !in_four_bits(client, &packed.spec(), rows),
    }
}

/// Rows of f32, side by side.
fn rows(x: Tensor<2>) -> Option<(CubeTensor, Matrix)> {
    let x = primitive(x)?;
    (x.dtype == DType::F32).then_some(())?;
    let [rows, width] = [x.meta.shape()[0], x.meta.shape()[1]];
    let matrix = Matrix {
        buffer: flat(x.clone()),
        rows,
        width,
        stride: width,
    };
    Some((x, matrix))
}

fn floats<const D: usize>(x: Tensor<D>) -> Option<Buffer> {
    primitive(x.cast(DType::F32)).map(flat)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "an epsilon is an f32 everywhere"
)]
const fn small(eps: f64) -> f32 {
    eps as f32
}

fn output(like: &CubeTensor, y: Buffer, x: &Matrix) -> Tensor<2> {
    let y = tensor(like, y, [x.rows, x.width], DType::F32);
    Tensor::from_primitive::<CubeBackend>(y)
}
