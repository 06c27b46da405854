//! The halves of a decoder layer over many rows, on a device that has few launches for all of one. Where it has none,
//! operations are called one by one: what they compute is the meaning of a half.

use burn::tensor::{DType, Tensor};

use crate::decode::{AttentionParts, FeedForwardParts};

#[cfg(feature = "cube")]
use crate::cube::prompt;
#[cfg(not(feature = "cube"))]
use absent as prompt;

/// Fewer rows are left to operations one by one: nothing was measured of them.
const FEWEST: usize = 9;

/// Rows that pass attention, and where they stand.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Query heads and key heads.
    pub heads: [usize; 2],
    /// Cosines and sines of every row, `[rows, head_dim / 2]`.
    pub angles: [Tensor<2>; 2],
    /// Rows in the cache before them.
    pub at: usize,
}

/// Whether it is worth it to ask for the halves of a layer of these rows: they are many rows of f32, on a device with matrix units.
#[must_use]
pub fn suits(x: &Tensor<2>) -> bool {
    x.dims()[0] >= FEWEST && x.dtype() == DType::F32 && prompt::runs_on(x)
}

/// Attention of rows, added to them; keys and values are written into the cache, whoever else holds it. Nothing, and nothing is
/// written, where the device has no kernels for these weights, or for so many rows.
///
/// # Shapes
/// - x, output: `[rows, hidden]`, on the device of the weights
///
/// # Panics
/// When the cache has no room for the rows.
#[must_use]
pub fn attend(
    x: Tensor<2>,
    parts: AttentionParts,
    eps: f64,
    standing: Standing,
) -> Option<Tensor<2>> {
    prompt::attend(x, parts, eps, standing)
}

/// The feed-forward block behind a norm, added to the rows; nothing where the device has no kernels for these weights, or for so
/// many rows.
///
/// # Shapes
/// - x, output: `[rows, hidden]`, on the device of the weights
/// - norm: `[hidden]`, with its epsilon
#[must_use]
pub fn feed_forward(
    x: Tensor<2>,
    norm: (Tensor<1>, f64),
    parts: FeedForwardParts,
) -> Option<Tensor<2>> {
    prompt::feed_forward(x, norm, parts)
}

/// Without a GPU backend operations are called one by one.
#[cfg(not(feature = "cube"))]
mod absent {
    use burn::tensor::Tensor;

    use super::{AttentionParts, FeedForwardParts, Standing};

    pub(super) fn runs_on(_: &Tensor<2>) -> bool {
        false
    }

    pub(super) fn attend(
        _: Tensor<2>,
        _: AttentionParts,
        _: f64,
        _: Standing,
    ) -> Option<Tensor<2>> {
        None
    }

    pub(super) fn feed_forward(
        _: Tensor<2>,
        _: (Tensor<1>, f64),
        _: FeedForwardParts,
    ) -> Option<Tensor<2>> {
        None
    }
}
