//! A decoder that makes one token at a time without the host: on a GPU with matrix units its whole step is one captured
//! graph. Where there is none, layers are called one by one: what they compute is the meaning of the step.

use std::fmt;
use std::time::Duration;

use burn::tensor::{Device, Tensor};

use crate::{KvStore, Packed};

#[cfg(feature = "cube")]
use crate::cube::decode::Captured;
#[cfg(feature = "cube")]
use crate::cube::frames::CapturedFrames;
#[cfg(not(feature = "cube"))]
use absent::{Captured, CapturedFrames};

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

/// The weights of layers with heads of 128 numbers, and where they keep keys and values.
#[derive(Clone, Debug)]
pub struct StackParts {
    /// The layers, first to last.
    pub layers: Vec<LayerParts>,
    /// `[hidden]`, the last norm.
    pub norm: Tensor<1>,
    /// What norms add to the mean square.
    pub eps: f64,
    /// Query heads and key heads.
    pub heads: [usize; 2],
    /// The frequencies by which positions turn, 64 of them.
    pub inverse_frequency: Vec<f32>,
}

/// What makes tokens of tokens.
#[derive(Clone, Debug)]
pub struct DecoderParts {
    /// The layers.
    pub stack: StackParts,
    /// `[vocabulary, hidden]`
    pub embedding: Tensor<2>,
    /// `[1, vocabulary, hidden]`
    pub head: Matrices,
}

/// What makes scores of rows.
#[derive(Clone, Debug)]
pub struct PassParts {
    /// The layers.
    pub stack: StackParts,
    /// `[1, vocabulary, hidden]`
    pub head: Matrices,
}

/// What makes frames of codes: one model chooses the first code of a frame, another the others, each from those before it.
#[derive(Clone, Debug)]
pub struct FrameParts {
    /// The layers of the first code.
    pub first: PassParts,
    /// Rows of the first code, `[vocabulary, hidden]`.
    pub first_table: Tensor<2>,
    /// The layers of the other codes.
    pub others: StackParts,
    /// Rows of each of the other codes, `[vocabulary, hidden]`.
    pub tables: Vec<Tensor<2>>,
    /// The heads that score them, `[1, vocabulary, hidden]` each.
    pub heads: Vec<Matrices>,
}

/// How tokens are chosen: repetition penalty, bans, temperature, top-k, top-p and one draw, in this order.
#[derive(Clone, Debug, PartialEq)]
pub struct Choosing {
    /// Divisor of the scores; 0 chooses the first of the largest, and nothing is drawn.
    pub temperature: f32,
    /// Only so many of the largest are candidates, and those that equal the last of them; 0 is all.
    pub top_k: usize,
    /// Only the smallest set of candidates whose probabilities reach this stays; 1 is all.
    pub top_p: f32,
    /// Positive scores of `seen` tokens are divided by this, negative ones multiplied.
    pub penalty: f32,
    /// Key of the random numbers.
    pub seed: u64,
    /// Which of many streams of them.
    pub stage: u32,
    /// Numbers that were drawn before.
    pub draws: u64,
    /// Tokens that occurred; the chosen ones are added.
    pub seen: Vec<u32>,
    /// Tokens that are not chosen.
    pub banned: Vec<u32>,
    /// Choices for which that holds, `usize::MAX` for all.
    pub bans: usize,
}

impl Choosing {
    /// The first of the largest scores, always.
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        penalty: 1.0,
        seed: 0,
        stage: 0,
        draws: 0,
        seen: Vec::new(),
        banned: Vec::new(),
        bans: usize::MAX,
    };
}

/// The weights of a layer.
#[derive(Clone, Debug)]
pub struct LayerParts {
    /// The first half.
    pub attention: AttentionParts,
    /// `[hidden]`, before the second half.
    pub norm: Tensor<1>,
    /// What follows attention.
    pub feed_forward: FeedForwardParts,
}

/// The weights of a layer's first half, and its keys and values; heads of a captured step have 128 numbers.
#[derive(Clone, Debug)]
pub struct AttentionParts {
    /// `[hidden]`
    pub norm: Tensor<1>,
    /// Queries, keys and values, `[1, (heads + 2 * kv_heads) * head_dim, hidden]`
    pub qkv: Matrices,
    /// `[head_dim]`: of queries and of keys.
    pub qk_norms: [Tensor<1>; 2],
    /// `[1, hidden, heads * head_dim]`
    pub o_proj: Matrices,
    /// Keys and values, `[capacity, kv_heads, head_dim]`; in other types than bf16 and E4M3 no kernel of a step or of a prompt
    /// takes them.
    pub cache: [KvStore; 2],
}

/// What follows attention in a layer; gates and what they gate lie in one matrix, gates first.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "both are handles, and a layer has one of them"
)]
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
        /// An expert of every row.
        shared: Option<SharedParts>,
    },
}

/// An expert of every row, times the logistic function of its gate's score.
#[derive(Clone, Debug)]
pub struct SharedParts {
    /// `[1, hidden]`
    pub gate: Tensor<2>,
    /// Gate and up `[1, 2 * intermediate, hidden]`, down `[1, hidden, intermediate]`
    pub matrices: [Matrices; 2],
}

/// Tokens among which a captured step can choose at most.
pub const MOST_SCORES: usize = (1 << 18) - 1;

/// Whether a device multiplies matrices of bf16 faster than others: it has matrix units that our kernels use.
#[must_use]
pub fn multiplies_bf16(device: &Device) -> bool {
    Captured::runs_on(device)
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

/// Some tokens, one behind the other, chosen from the same scores `[vocabulary]` as a captured step chooses them; nothing on
/// a device that captures none.
#[must_use]
pub fn chosen(scores: Tensor<1>, choosing: &Choosing, count: usize) -> Option<Vec<u32>> {
    Captured::runs_on(&scores.device()).then_some(())?;
    Captured::chosen(scores, choosing, count)
}

/// The same tokens by the rules in f64, on the host; nothing where no device can choose.
#[must_use]
pub(crate) fn by_rules(scores: &[f32], choosing: Choosing, count: usize) -> Option<Vec<u32>> {
    Captured::by_rules(scores, choosing, count)
}

/// Where an answer begins, or goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// The token that stands here.
    pub token: u32,
    /// Rows of the caches before it.
    pub len: usize,
    /// Its position.
    pub position: f32,
    /// Tokens that may be asked for behind it; no step is taken ahead of them.
    pub left: usize,
}

/// A captured step and what it works on.
#[derive(Debug)]
pub struct Decoder(Captured);

impl Decoder {
    /// Whether steps can be captured on a device.
    #[must_use]
    pub fn runs_on(device: &Device) -> bool {
        Captured::runs_on(device)
    }

    /// Captures the step, for which it runs once and writes the last row of the caches. There is none on a device without
    /// matrix units, or for weights that no kernel of it reads: neither bf16 nor packed in a form that has tiles.
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

    /// Starts with the token of a place; those behind it are chosen in this way.
    pub fn start(&mut self, place: Place, choosing: &Choosing) {
        self.0.start(place, choosing);
    }

    /// The token behind the last one. The steps after it are already under way.
    ///
    /// # Errors
    /// When scores are not finite, or the device failed.
    pub fn next_token(&mut self) -> Result<u32, DecodeError> {
        self.0.next_token()
    }

    /// Where the time of a step goes that stands behind `len` rows of the caches. The caches hold nothing of use afterwards.
    ///
    /// # Errors
    /// When the device failed.
    pub fn times(&mut self, len: usize) -> Result<Vec<NodeTime>, DecodeError> {
        self.0.times(len)
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
        let place = Place {
            token,
            len,
            position,
            left: 1,
        };
        self.0.start(place, &Choosing::GREEDY);
        self.0.scores()
    }
}

/// What one kind of a step's kernels takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeTime {
    /// What they do: `qkv`, `attention`, `o_proj`, `router`, `gate_up`, `down` of all layers, `entry`, `head`, `choice`.
    pub what: &'static str,
    /// Launches in a step.
    pub count: usize,
    /// The time of one, in a graph of nothing else that rotates over all layers.
    pub each: Duration,
}

/// Captured frames, whose codes and rows stay on the device.
#[derive(Clone, Debug)]
pub struct Frames(CapturedFrames);

impl Frames {
    /// Captures the passes of a frame; see [`Decoder::new`].
    #[must_use]
    pub fn new(parts: FrameParts) -> Option<Self> {
        CapturedFrames::new(parts).map(Self)
    }

    /// Starts with a frame whose first code is known; later ones stand behind `len` rows of the caches, from this position
    /// on. First codes and the others are chosen in these ways.
    ///
    /// # Shapes
    /// - hidden: `[1, hidden]`, the normed row whose scores chose the first code
    pub fn start(
        &self,
        (first, hidden): (u32, Tensor<2>),
        (len, position): (usize, f32),
        choosing: [&Choosing; 2],
    ) {
        self.0.start((first, hidden), (len, position), choosing);
    }

    /// Chooses the first code of the next frame: the row that passes is the sum of the rows of all codes of the last frame
    /// and this one.
    ///
    /// # Shapes
    /// - row: `[1, hidden]`
    ///
    /// # Errors
    /// When the device failed.
    pub fn next(&self, row: Tensor<2>) -> Result<(), DecodeError> {
        self.0.next(row)
    }

    /// Chooses the other codes, and gives all of the frame; `u32::MAX` for one whose scores were not finite.
    ///
    /// # Errors
    /// When the device failed.
    pub fn codes(&self) -> Result<Vec<u32>, DecodeError> {
        self.0.codes()
    }
}

/// Without a GPU backend there is nothing to capture.
#[cfg(not(feature = "cube"))]
mod absent {
    use burn::tensor::{Device, Tensor};

    use super::{Choosing, DecodeError, DecoderParts, FrameParts, NodeTime, Place};

    #[derive(Debug)]
    pub(super) enum Captured {}

    #[allow(clippy::unused_self, reason = "the same methods as where there is one")]
    impl Captured {
        pub(super) fn runs_on(_: &Device) -> bool {
            false
        }

        pub(super) fn new(_: DecoderParts) -> Option<Self> {
            None
        }

        pub(super) fn chosen(_: Tensor<1>, _: &Choosing, _: usize) -> Option<Vec<u32>> {
            None
        }

        pub(super) fn by_rules(_: &[f32], _: Choosing, _: usize) -> Option<Vec<u32>> {
            None
        }

        pub(super) fn capacity(&self) -> usize {
            match *self {}
        }

        pub(super) fn start(&mut self, _: Place, _: &Choosing) {
            match *self {}
        }

        pub(super) fn next_token(&mut self) -> Result<u32, DecodeError> {
            match *self {}
        }

        pub(super) fn times(&mut self, _: usize) -> Result<Vec<NodeTime>, DecodeError> {
            match *self {}
        }

        pub(super) fn scores(&mut self) -> Result<Vec<f32>, DecodeError> {
            match *self {}
        }
    }

    #[derive(Clone, Debug)]
    pub(super) enum CapturedFrames {}

    #[allow(clippy::unused_self, reason = "the same methods as where there is one")]
    impl CapturedFrames {
        pub(super) fn new(_: FrameParts) -> Option<Self> {
            None
        }

        pub(super) fn start(&self, _: (u32, Tensor<2>), _: (usize, f32), _: [&Choosing; 2]) {
            match *self {}
        }

        pub(super) fn next(&self, _: Tensor<2>) -> Result<(), DecodeError> {
            match *self {}
        }

        pub(super) fn codes(&self) -> Result<Vec<u32>, DecodeError> {
            match *self {}
        }
    }
}
