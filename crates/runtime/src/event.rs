//! What a request gives back.

use std::time::Duration;

/// One piece of an answer.
#[derive(Clone, Debug)]
pub enum Event {
    /// More text.
    Text(String),
    /// More samples in `[-1, 1]`, mono at [`Speech::SAMPLE_RATE`].
    Audio(Vec<f32>),
    /// The answer is complete.
    Done(Box<Answer>),
}

/// A complete answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The text, without special tokens.
    pub text: String,
    /// The tokens, the one that ended the answer included.
    pub token_ids: Vec<u32>,
    /// Why the text ended.
    pub finish_reason: FinishReason,
    /// The speech, when it was asked for.
    pub speech: Option<Speech>,
    /// How much was read and written.
    pub usage: Usage,
    /// How long it took.
    pub timings: Timings,
}

/// Why an answer's text ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it.
    #[default]
    Stop,
    /// It reached the limit of tokens or the context.
    Length,
}

impl FinishReason {
    /// `stop` or `length`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// The spoken answer.
#[derive(Clone, Debug, Default)]
pub struct Speech {
    /// Number of samples that were given out.
    pub samples: usize,
    /// The codes of every frame, one row a frame.
    pub codes: Vec<Vec<u32>>,
    /// Why the speech ended: the model ended it, or it reached the limit of frames.
    pub finish_reason: FinishReason,
}

impl Speech {
    /// Samples a second.
    pub const SAMPLE_RATE: u32 = burn_omni_model::config::SAMPLE_RATE;
}

/// Tokens and frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt, with one for every encoder row.
    pub prompt_tokens: usize,
    /// Those of them that were kept from the turn before.
    pub cached_tokens: usize,
    /// Tokens of the answer.
    pub completion_tokens: usize,
    /// Frames of speech.
    pub audio_frames: usize,
}

/// How long the parts of a request took: times of events count from the request; of what is done at the same time as
/// something else, the time that it was at work, without what it waited.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Reading media, tokenizing, and encoders.
    pub prepare: Duration,
    /// The prompt's pass through the decoder.
    pub prefill: Duration,
    /// When the first token was known.
    pub first_token: Duration,
    /// The thinker at all tokens after the first.
    pub decode: Duration,
    /// When the first samples were given out.
    pub first_audio: Option<Duration>,
    /// Talker and code predictor.
    pub talker: Duration,
    /// Codes to samples.
    pub code2wav: Duration,
    /// The whole request.
    pub total: Duration,
}
