//! The thinker: what the model reads and hears becomes text.
//!
//! [`Thinker::embed`] runs the encoders and merges their rows into the prompt's embeddings; [`Thinker::forward`] passes
//! rows through the decoder and its cache, for a prompt (in one piece or several) and for every token after it.

mod audio;
mod merge;
mod stem;
mod text;
mod vision;

use burn::tensor::{DType, Tensor, s};
use burn_omni_ops::KvFormat;
use burn_omni_ops::decode::Decoder;
use burn_omni_quant::{Bias, Embedding, Linear, Weights};

pub use audio::AudioTower;
pub use merge::Rows;
pub use text::{TextDecoder, TextState};
pub use vision::{VisionRows, VisionTower};

use crate::config::ThinkerConfig;
use crate::layers::RopeTable;
use crate::processor::Prompt;

/// The thinker's weights.
#[derive(Debug)]
pub struct Thinker {
    audio_tower: AudioTower,
    visual: VisionTower,
    embed_tokens: Embedding,
    model: TextDecoder,
    lm_head: Linear,
    config: ThinkerConfig,
    /// How states store keys and values, where somebody said so.
    kv: Option<KvFormat>,
}

/// What a pass through the decoder gives.
#[derive(Debug)]
pub struct ThinkerOutput {
    /// Logits of the last row, `[1, vocab_size]`.
    pub logits: Tensor<2>,
    /// The residual stream that enters layer `accept_hidden_layer`, `[rows, hidden]`, where the talker wants it.
    pub accepted: Option<Tensor<2>>,
}

impl Thinker {
    /// Loads the component; `accept_hidden_layer` is the talker's, where there is one.
    #[must_use]
    pub fn load(
        weights: &Weights<'_>,
        config: &ThinkerConfig,
        accept_hidden_layer: Option<usize>,
    ) -> Self {
        let text = &config.text_config;
        let table = [text.vocab_size, text.hidden_size];
        let model = weights.at("model");
        Self {
            audio_tower: AudioTower::load(&weights.at("audio_tower"), &config.audio_config),
            visual: VisionTower::load(&weights.at("visual"), &config.vision_config),
            embed_tokens: model.embedding("embed_tokens", table),
            model: TextDecoder::load(&model, text, accept_hidden_layer),
            lm_head: weights.linear("lm_head", table, Bias::No),
            config: config.clone(),
            kv: None,
        }
    }

    /// Stores keys and values of states that are made from now on in this format; without one, those of a captured step in
    /// bf16, and others in the dtype of activations.
    ///
    /// # Panics
    /// When the format cannot store the model's heads.
    pub fn store_kv(&mut self, format: Option<KvFormat>) {
        let width = self.config.text_config.head_dim;
        let fits = format.is_none_or(|format| format.holds(width));
        assert!(fits, "{format:?} stores no heads of {width}");
        self.kv = format;
    }

    /// An empty state with room for `capacity` rows.
    #[must_use]
    pub fn state(&self, capacity: usize) -> TextState {
        let format = self.kv.unwrap_or(self.model.dtype().into());
        self.model.state(capacity, format)
    }

    /// A decoder of one token at a time with room for `capacity` rows, and the state that it shares with
    /// [`Self::forward`], where the device can capture one: see [`Decoder::new`].
    ///
    /// Rows that only one of the two passes are not counted by the other.
    #[must_use]
    pub fn decoder(&self, capacity: usize) -> Option<(TextState, Decoder)> {
        Decoder::runs_on(self.model.device()).then_some(())?;
        let format = self.kv.unwrap_or(DType::BF16.into());
        let state = self.model.state(capacity, format);
        let embedding = self.embed_tokens.weight().clone();
        let parts = self
            .model
            .parts(&state, embedding, self.lm_head.matrices()?)?;
        Some((state, Decoder::new(parts)?))
    }

    /// Bytes of the matrices that are read for a token of an answer.
    #[must_use]
    pub fn token_bytes(&self) -> usize {
        self.model.row_bytes() + self.lm_head.bytes()
    }

    /// The prompt's embeddings with the encoders' rows in their places.
    #[must_use]
    pub fn embed(&self, prompt: &Prompt) -> Rows {
        let audio = (!prompt.audio.is_empty()).then(|| self.audio_tower.forward(&prompt.audio));
        let images = (!prompt.images.is_empty()).then(|| self.visual.forward(&prompt.images));
        let videos = (!prompt.videos.is_empty()).then(|| self.visual.forward(&prompt.videos));
        merge::merge(
            prompt,
            &self.config,
            &self.embed_tokens,
            merge::Encoded {
                audio,
                images,
                videos,
            },
        )
    }

    /// The embeddings of text tokens, `[ids, hidden]`.
    #[must_use]
    pub fn embed_text(&self, ids: &[u32]) -> Tensor<2> {
        self.embed_tokens.forward(ids)
    }

    /// Cosines and sines of rows at these positions, one list an axis (time, height, width).
    #[must_use]
    pub fn rope(&self, positions: [&[f32]; 3]) -> RopeTable {
        self.model.rope(positions)
    }

    /// Passes the rows that follow those in the state.
    #[must_use]
    pub fn forward(&self, rows: &Rows, rope: &RopeTable, state: &mut TextState) -> ThinkerOutput {
        self.forward_with(rows, rope, state, &mut |_, _| {})
    }

    /// The same; `tap` sees the output of every layer by name.
    #[must_use]
    pub fn forward_with(
        &self,
        rows: &Rows,
        rope: &RopeTable,
        state: &mut TextState,
        tap: &mut dyn FnMut(&str, &Tensor<2>),
    ) -> ThinkerOutput {
        let decoded = self.model.forward(rows, rope, state, tap);
        let [count, _] = decoded.hidden.dims();
        let last = decoded.hidden.slice(s![count - 1..count, ..]);
        let last = self.model.norm(last);
        tap("norm", &last);
        ThinkerOutput {
            logits: self.lm_head.forward(last),
            accepted: decoded.accepted,
        }
    }
}
