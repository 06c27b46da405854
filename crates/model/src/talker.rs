//! The talker: from what the thinker heard and says, the first code of every frame of speech.
//!
//! A frame takes one row: the sum of the embeddings of its codes ([`CodecFrame::feedback`]) and one row of text
//! ([`Talker::text_rows`], then once the end mark, then the padding mark). Its logits choose the next frame's first
//! code; the code predictor adds the others.

mod projection;
mod prompt;
mod state;
mod turns;

use burn::tensor::{DType, Device, Tensor, s};
use burn_omni_ops::decode::{Decoder, FrameParts, Frames, PassParts};
use burn_omni_quant::{Bias, Embedding, Linear, Weights};

use crate::code_predictor::{CodePredictor, CodecFrame, FirstCode, PredictorState, Sample};
use crate::config::TalkerConfig;
use crate::layers::{AttentionSize, DecoderLayer, FeedForward, RmsNorm, Rope, SparseMoe};
use projection::Projection;

pub use prompt::{ReplyStart, SpeechMarks, TalkerPrompt, ThinkerRows};
pub use state::{TalkerPlace, TalkerState};
pub use turns::{Heard, NoReply, TurnIds, Turns};

/// The talker with its code predictor.
#[derive(Clone, Debug)]
pub struct Talker {
    codec_embedding: Embedding,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    codec_head: Linear,
    text_projection: Projection,
    hidden_projection: Projection,
    code_predictor: CodePredictor,
    rope: Rope,
    config: TalkerConfig,
    device: Device,
    dtype: DType,
}

/// What a pass says about the next frame.
#[derive(Clone, Debug)]
pub struct TalkerStep {
    /// Scores of the next frame's first code, `[1, vocab]`.
    pub logits: Tensor<2>,
    /// The normed hidden state that the code predictor starts from, `[1, hidden]`.
    pub hidden: Tensor<2>,
}

impl Talker {
    /// Loads the talker at the root of its component.
    #[must_use]
    pub fn load(weights: &Weights<'_>, config: &TalkerConfig) -> Self {
        let text = &config.text_config;
        let (hidden, eps) = (text.hidden_size, text.rms_norm_eps);
        let size = AttentionSize {
            qk_norm_eps: Some(eps),
            ..text.attention().into()
        };
        let moe = text.moe().into();
        let model = weights.at("model");
        let vocab = [text.vocab_size, hidden];
        Self {
            codec_embedding: model.embedding("codec_embedding", vocab),
            layers: model.at("layers").list(text.num_hidden_layers, |layer| {
                DecoderLayer::load(layer, size, eps, |mlp| {
                    FeedForward::Sparse(Box::new(SparseMoe::load(mlp, moe)))
                })
            }),
            norm: RmsNorm::load(&model.at("norm"), hidden, eps),
            codec_head: weights.linear("codec_head", vocab, Bias::No),
            text_projection: Projection::load(&weights.at("text_projection"), config),
            hidden_projection: Projection::load(&weights.at("hidden_projection"), config),
            code_predictor: CodePredictor::load(
                &weights.at("code_predictor"),
                &config.code_predictor_config,
            ),
            rope: Rope::new(text.head_dim, text.rope.rope_theta, text.rope.mrope_section),
            config: config.clone(),
            device: weights.device().clone(),
            dtype: weights.dtype(),
        }
    }

    /// Bytes of the matrices that are read for a frame, those of the code predictor once a code.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        let layers: usize = self.layers.iter().map(DecoderLayer::row_bytes).sum();
        layers + self.codec_head.bytes() + self.code_predictor.frame_bytes()
    }

    /// The state of a new stream with room for `capacity` rows: those of the prompt and one a frame.
    #[must_use]
    pub fn state(&self, capacity: usize) -> TalkerState {
        TalkerState::new(
            &self.config.text_config,
            capacity,
            (&self.device, self.dtype),
        )
    }

    /// The same with whole frames captured, those of the code predictor too, where the device can do that; for one stream at
    /// a time: see [`TalkerState::start_frames`].
    #[must_use]
    pub fn captured_state(&self, capacity: usize) -> Option<TalkerState> {
        Decoder::runs_on(&self.device).then_some(())?;
        let size = (&self.device, DType::BF16);
        let mut state = TalkerState::new(&self.config.text_config, capacity, size);
        let others = self.code_predictor.parts(&self.device)?;
        state.frames = Some(Frames::new(FrameParts {
            first: PassParts {
                stack: DecoderLayer::stack(&self.layers, &state.caches, &self.norm, &self.rope)?,
                head: self.codec_head.matrices()?,
            },
            first_table: self.codec_embedding.weight().clone(),
            others: others.stack,
            tables: others.tables,
            heads: others.heads,
        })?);
        Some(state)
    }

    /// The state in which the code predictor makes frames.
    #[must_use]
    pub fn predictor_state(&self) -> PredictorState {
        self.code_predictor.state((&self.device, self.dtype))
    }

    /// Passes rows of the prompt, all at once or in parts; the answer is that of the last row.
    ///
    /// # Shapes
    /// - rows: `[rows, hidden]`
    /// - positions: `[rows]` for time, height and width
    #[must_use]
    pub fn prefill(
        &self,
        state: &mut TalkerState,
        rows: Tensor<2>,
        positions: [&[f32]; 3],
    ) -> TalkerStep {
        self.forward_with(state, rows, positions, &mut |_, _| {})
    }

    /// Passes the row of one frame, at the position behind all others.
    ///
    /// # Shapes
    /// - row: `[1, hidden]`
    #[must_use]
    pub fn step(&self, state: &mut TalkerState, row: Tensor<2>) -> TalkerStep {
        let position = [state.next_position];
        self.forward_with(state, row, [&position; 3], &mut |_, _| {})
    }

    /// The pass of [`Talker::prefill`] with the rows that leave each `layer` and the last `norm` shown to `tap`.
    ///
    /// # Shapes
    /// - rows: `[rows, hidden]`
    /// - positions: `[rows]` for time, height and width
    #[must_use]
    pub fn forward_with(
        &self,
        state: &mut TalkerState,
        rows: Tensor<2>,
        positions: [&[f32]; 3],
        tap: &mut dyn FnMut(&str, &Tensor<2>),
    ) -> TalkerStep {
        let rope = self.rope.table(positions, &rows.device());
        let [count, _] = rows.dims();
        let mut x = rows;
        for (i, (layer, cache)) in self.layers.iter().zip(&mut state.caches).enumerate() {
            x = layer.forward(x, &rope, cache);
            tap(&format!("layers.{i}"), &x);
        }
        let last = positions.into_iter().flatten().copied();
        state.next_position = last.fold(state.next_position - 1.0, f32::max) + 1.0;
        let x = self.norm.forward(x);
        tap("norm", &x);
        let hidden = x.slice(s![count - 1.., ..]); // [1, hidden]
        TalkerStep {
            logits: self.codec_head.forward(hidden.clone()),
            hidden,
        }
    }

    /// Completes a frame whose first code was chosen from the logits of `step`.
    #[must_use]
    pub fn frame(
        &self,
        state: &mut PredictorState,
        hidden: Tensor<2>,
        first_code: u32,
        sample: &mut Sample<'_>,
    ) -> CodecFrame {
        let first = FirstCode {
            code: first_code,
            row: self.codec_embedding.forward(&[first_code]),
        };
        self.code_predictor.frame(state, hidden, first, sample)
    }
}
