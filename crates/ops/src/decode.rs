//! A decoder that makes one token at a time without the host: on a GPU with matrix units its whole step is one captured
//! graph. Where there is none, layers are called one by one: what they compute is the meaning of the step.

use std::fmt;

use burn::tensor::{Device, Tensor};

use crate::Packed;

#[cfg(feature = "cube")]
use crate::cube::decode::Captured;

/// One or several matrices of weights as they are stored.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "both are handles, and a layer has a few of them"
)]
pub enum Matrices {
    /// `[matrices, rows, width]`
    Dense(Tensor<3>),
    /// Codes; experts' gates and what they gate are gated matrices.
    Packed(Packed),
}

/// The weights of a decoder with heads of 128 numbers, and where it keeps keys and values.
#[derive(Clone, Debug)]
pub struct DecoderParts {
    /// `[vocabulary, hidden]`
    pub embedding: Tensor<2>,
    /// The layers, first to last.
    pub layers: Vec<LayerParts>,
    /// `[hidden]`, the last norm.
    pub norm: Tensor<1>,
    /// What norms add to the mean square.
    pub eps: f64,
    /// `[1, vocabulary, hidden]`
    pub head: Matrices,
    /// Query heads and key heads.
    pub heads: [usize; 2],
    /// The frequencies by which positions turn, 64 of them.
    pub inverse_frequency: Vec<f32>,
}

/// The weights of a layer.
#[derive(Clone, Debug)]
pub struct LayerParts {
    /// `[hidden]`: before attention, and before the feed-forward block.
    pub norms: [Tensor<1>; 2],
    /// Queries, keys and values, `[1, (heads + 2 * kv_heads) * 128, hidden]`
    pub qkv: Matrices,
    /// `[128]`: of queries and of keys.
    pub qk_norms: [Tensor<1>; 2],
    /// `[1, hidden, heads * 128]`
    pub o_proj: Matrices,
    /// What follows attention.
    pub feed_forward: FeedForwardParts,
    /// Keys and values in bf16, `[capacity, kv_heads, 128]`
    pub cache: [Tensor<3>; 2],
}

/// What follows attention in a layer; gates and what they gate lie in one matrix, gates first.
#[derive(Clone, Debug)]
pub enum FeedForwardParts {
    /// Gate and up `[1, 2 * intermediate, hidden]`, down `[1, hidden, intermediate]`
    Dense([Matrices; 2]),
    /// The same of each expert.
    Sparse {
        /// `[experts, hidden]`
        router: Tensor<2>,
        /// Experts of a row.
        top_k: usize,
        /// Whether the weights of the chosen add up to one.
        normalize: bool,
        /// Gate and up, down.
        experts: [Matrices; 2],
    },
}

/// Why there is no next token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Scores were NaN or infinite.
    NotFinite,
    /// What the device said.
    Device(String),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFinite => f.write_str("the scores are not finite"),
            Self::Device(cause) => f.write_str(cause),
        }
    }
}

impl std::error::Error for DecodeError {}

/// A captured step and what it works on.
#[derive(Debug)]
pub struct Decoder(Captured);

impl Decoder {
    /// Whether steps can be captured on a device.
    #[must_use]
    pub fn runs_on(device: &Device) -> bool {
        Captured::runs_on(device)
    }

    /// Captures the step. There is none on a device without matrix units, or for weights that no kernel of it reads:
    /// neither bf16 nor packed in a form that has tiles.
    ///
    /// Nothing else may use the device's queue meanwhile.
    #[must_use]
    pub fn new(parts: DecoderParts) -> Option<Self> {
        Captured::new(parts).map(Self)
    }

    /// Rows that the caches hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// Starts with a token that stands behind `len` rows of the caches, at this position.
    pub fn start(&mut self, token: u32, len: usize, position: f32) {
        self.0.start(token, len, position);
    }

    /// The token with the largest score behind the last one. The step after it is already under way.
    ///
    /// # Errors
    /// When scores are not finite, or the device failed.
    pub fn next_token(&mut self) -> Result<u32, DecodeError> {
        self.0.next_token()
    }

    /// The scores of all tokens behind this one, for a host that chooses itself.
    ///
    /// # Errors
    /// When the device failed.
    pub fn scores(
        &mut self,
        token: u32,
        len: usize,
        position: f32,
    ) -> Result<Vec<f32>, DecodeError> {
        self.0.start(token, len, position);
        self.0.scores()
    }
}

/// Without a GPU backend there is nothing to capture.
#[cfg(not(feature = "cube"))]
#[derive(Debug)]
enum Captured {}

#[cfg(not(feature = "cube"))]
#[expect(
    clippy::unused_self,
    clippy::needless_pass_by_value,
    reason = "the same methods as where there is one"
)]
impl Captured {
    fn runs_on(_: &Device) -> bool {
        false
    }

    fn new(_: DecoderParts) -> Option<Self> {
        None
    }

    fn capacity(&self) -> usize {
        match *self {}
    }

    fn start(&mut self, _: u32, _: usize, _: f32) {
        match *self {}
    }

    fn next_token(&mut self) -> Result<u32, DecodeError> {
        match *self {}
    }

    fn scores(&mut self) -> Result<Vec<f32>, DecodeError> {
        match *self {}
    }
}
