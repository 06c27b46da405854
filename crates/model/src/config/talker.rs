//! The talker and its code predictor.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;

use super::rope::{Positions, RopeConfig};
use super::section::Section;
use super::text::no_sliding_window;
use super::{Activation, AttentionConfig, ConfigError, MoeConfig};

/// `talker_config`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TalkerConfig {
    /// Speech decoder.
    pub text_config: TalkerTextConfig,
    /// Decoder of the code groups after the first.
    pub code_predictor_config: CodePredictorConfig,
    /// Thinker hidden state that the talker reads: 0 is the embedding, `n` the output of layer `n`.
    pub accept_hidden_layer: usize,
    /// Width of that hidden state: the thinker's `hidden_size`.
    pub thinker_hidden_size: usize,
    /// Codes of one frame: one of the talker and the rest of the code predictor.
    pub num_code_groups: usize,
    /// Codec token that starts the codes.
    pub codec_bos_id: u32,
    /// Codec token that ends the codes.
    pub codec_eos_token_id: u32,
    /// Codec token under text that has no code.
    pub codec_pad_id: u32,
    /// Codec token of an answer without thinking.
    pub codec_nothink_id: u32,
    /// Codec token before the thinking mark.
    pub codec_think_bos_id: u32,
    /// Codec token after the thinking mark.
    pub codec_think_eos_id: u32,
    /// Codec token of each voice, by lower-case name.
    pub speaker_id: BTreeMap<String, u32>,
    /// Thinker token of audio rows.
    pub audio_token_id: u32,
    /// Thinker token of image rows.
    pub image_token_id: u32,
    /// Thinker token of video rows.
    pub video_token_id: u32,
    /// Thinker token before audio rows.
    pub audio_start_token_id: u32,
    /// Thinker token before image or video rows.
    pub vision_start_token_id: u32,
    /// Time positions that pass in a second of audio or video.
    pub position_id_per_seconds: usize,
    /// Side of the square of patches that is one position.
    pub spatial_merge_size: usize,
}

/// `text_config` of the talker: a mixture of experts with a shared one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TalkerTextConfig {
    /// Rows of `codec_embedding` and of `codec_head`.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Inner width of `text_projection` and `hidden_projection`.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Width of one head; not `hidden_size / num_attention_heads`.
    pub head_dim: usize,
    /// Activation of the experts: `silu`.
    pub hidden_act: Activation,
    /// Longest context, in rows.
    pub max_position_embeddings: usize,
    /// Epsilon of every RMS norm.
    pub rms_norm_eps: f64,
    /// Rotary embedding with time, height and width sections.
    #[serde(rename = "rope_parameters")]
    pub rope: RopeConfig,
    /// Experts a layer.
    pub num_experts: usize,
    /// Experts that a row visits.
    pub num_experts_per_tok: usize,
    /// Inner width of one expert.
    pub moe_intermediate_size: usize,
    /// Inner width of the expert that every row visits.
    pub shared_expert_intermediate_size: usize,
    /// Whether the weights of the visited experts are scaled to sum to 1.
    pub norm_topk_prob: bool,
}

/// `code_predictor_config` of the talker: a small dense decoder with one table and head a group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CodePredictorConfig {
    /// Codes of a group: rows of each table and of each head.
    pub vocab_size: usize,
    /// Width of the residual stream: that of the talker.
    pub hidden_size: usize,
    /// Inner width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Activation of the feed-forward layers: `silu`.
    pub hidden_act: Activation,
    /// Longest context, in rows; a frame needs `num_code_groups` of them.
    pub max_position_embeddings: usize,
    /// Epsilon of every RMS norm.
    pub rms_norm_eps: f64,
    /// Rotary embedding of one-dimensional positions.
    #[serde(rename = "rope_parameters")]
    pub rope: RopeConfig,
    /// Codes of one frame, the talker's own included.
    pub num_code_groups: usize,
}

impl TalkerConfig {
    pub(super) fn read(section: &Section<'_>) -> Result<Self, ConfigError> {
        let predictor = section.section("code_predictor_config")?;
        let config = Self {
            text_config: TalkerTextConfig::read(&section.section("text_config")?)?,
            code_predictor_config: CodePredictorConfig::read(&predictor)?,
            accept_hidden_layer: section.required(
                "accept_hidden_layer",
                section.optional_count("accept_hidden_layer")?,
            )?,
            thinker_hidden_size: section.size("thinker_hidden_size")?,
            num_code_groups: section.size("num_code_groups")?,
            codec_bos_id: section.id("codec_bos_id")?,
            codec_eos_token_id: section.id("codec_eos_token_id")?,
            codec_pad_id: section.id("codec_pad_id")?,
            codec_nothink_id: section.id("codec_nothink_id")?,
            codec_think_bos_id: section.id("codec_think_bos_id")?,
            codec_think_eos_id: section.id("codec_think_eos_id")?,
            speaker_id: speakers(section)?,
            audio_token_id: section.id("audio_token_id")?,
            image_token_id: section.id("image_token_id")?,
            video_token_id: section.id("video_token_id")?,
            audio_start_token_id: section.id("audio_start_token_id")?,
            vision_start_token_id: section.id("vision_start_token_id")?,
            position_id_per_seconds: section.size("position_id_per_seconds")?,
            spatial_merge_size: section.size("spatial_merge_size")?,
        };
        config.check(section)?;
        Ok(config)
    }

    /// Codec token of a voice; the case of the name does not matter.
    #[must_use]
    pub fn speaker(&self, name: &str) -> Option<u32> {
        self.speaker_id.get(&name.to_lowercase()).copied()
    }

    /// Codec token of the reference's default voice, else of the first voice.
    #[must_use]
    pub fn default_speaker(&self) -> Option<(&str, u32)> {
        let reference = self.speaker_id.get_key_value("ethan");
        reference
            .or_else(|| self.speaker_id.first_key_value())
            .map(|(name, &id)| (&name[..], id))
    }

    /// Compares the code predictor and the codec tokens with the talker's decoder.
    fn check(&self, section: &Section<'_>) -> Result<(), ConfigError> {
        let text = section.section("text_config")?;
        let predictor = section.section("code_predictor_config")?;
        let CodePredictorConfig {
            hidden_size,
            num_code_groups,
            vocab_size,
            ..
        } = self.code_predictor_config;
        if self.num_code_groups < 2 {
            let found = self.num_code_groups;
            return Err(section.contradiction("num_code_groups", found, "at least 2"));
        }
        if num_code_groups != self.num_code_groups {
            let expected = section.reference("num_code_groups", self.num_code_groups);
            return Err(predictor.contradiction("num_code_groups", num_code_groups, expected));
        }
        if hidden_size != self.text_config.hidden_size {
            let expected = text.reference("hidden_size", self.text_config.hidden_size);
            return Err(predictor.contradiction("hidden_size", hidden_size, expected));
        }
        if vocab_size > self.text_config.vocab_size {
            let codec = text.reference("vocab_size", self.text_config.vocab_size);
            let expected = format!("at most {codec}");
            return Err(predictor.contradiction("vocab_size", vocab_size, expected));
        }
        let limit = (&text, "vocab_size", self.text_config.vocab_size);
        for (key, id) in self.codec_ids() {
            section.id_below(key, id, limit)?;
        }
        let voices = section.section("speaker_id")?;
        self.speaker_id
            .iter()
            .try_for_each(|(name, &id)| voices.id_below(name, id, limit))
    }

    fn codec_ids(&self) -> [(&'static str, u32); 6] {
        [
            ("codec_bos_id", self.codec_bos_id),
            ("codec_eos_token_id", self.codec_eos_token_id),
            ("codec_pad_id", self.codec_pad_id),
            ("codec_nothink_id", self.codec_nothink_id),
            ("codec_think_bos_id", self.codec_think_bos_id),
            ("codec_think_eos_id", self.codec_think_eos_id),
        ]
    }
}

impl TalkerTextConfig {
    fn read(section: &Section<'_>) -> Result<Self, ConfigError> {
        let head_dim = section.size("head_dim")?;
        let attention = AttentionConfig::read(section, head_dim, Positions::Sections)?;
        no_sliding_window(section)?;
        let moe = MoeConfig::read(section, attention.hidden_size)?;
        let shared = section.size("shared_expert_intermediate_size")?;
        Ok(Self {
            vocab_size: section.size("vocab_size")?,
            hidden_size: attention.hidden_size,
            intermediate_size: section.size("intermediate_size")?,
            num_hidden_layers: section.size("num_hidden_layers")?,
            num_attention_heads: attention.num_attention_heads,
            num_key_value_heads: attention.num_key_value_heads,
            head_dim,
            hidden_act: Activation::read(section, "hidden_act", Activation::Silu)?,
            max_position_embeddings: section.size("max_position_embeddings")?,
            rms_norm_eps: attention.rms_norm_eps,
            rope: attention.rope,
            num_experts: moe.num_experts,
            num_experts_per_tok: moe.num_experts_per_tok,
            moe_intermediate_size: moe.moe_intermediate_size,
            shared_expert_intermediate_size: shared,
            norm_topk_prob: moe.norm_topk_prob,
        })
    }

    /// The attention of every layer.
    #[must_use]
    pub fn attention(&self) -> AttentionConfig {
        AttentionConfig {
            hidden_size: self.hidden_size,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            sliding_window: None,
            rms_norm_eps: self.rms_norm_eps,
            rope: self.rope,
        }
    }

    /// The experts of every layer.
    #[must_use]
    pub fn moe(&self) -> MoeConfig {
        MoeConfig {
            hidden_size: self.hidden_size,
            num_experts: self.num_experts,
            num_experts_per_tok: self.num_experts_per_tok,
            moe_intermediate_size: self.moe_intermediate_size,
            shared_expert_intermediate_size: Some(self.shared_expert_intermediate_size),
            norm_topk_prob: self.norm_topk_prob,
        }
    }
}

impl CodePredictorConfig {
    fn read(section: &Section<'_>) -> Result<Self, ConfigError> {
        let head_dim = section.size("head_dim")?;
        let attention = AttentionConfig::read(section, head_dim, Positions::Plain)?;
        no_sliding_window(section)?;
        let num_hidden_layers = section.size("num_hidden_layers")?;
        section.only_repeated("layer_types", &json!("full_attention"))?;
        let config = Self {
            vocab_size: section.size("vocab_size")?,
            hidden_size: attention.hidden_size,
            intermediate_size: section.size("intermediate_size")?,
            num_hidden_layers,
            num_attention_heads: attention.num_attention_heads,
            num_key_value_heads: attention.num_key_value_heads,
            head_dim,
            hidden_act: Activation::read(section, "hidden_act", Activation::Silu)?,
            max_position_embeddings: section.size("max_position_embeddings")?,
            rms_norm_eps: attention.rms_norm_eps,
            rope: attention.rope,
            num_code_groups: section.size("num_code_groups")?,
        };
        if config.max_position_embeddings < config.num_code_groups {
            let groups = section.reference("num_code_groups", config.num_code_groups);
            let expected = format!("at least {groups}");
            let found = config.max_position_embeddings;
            return Err(section.contradiction("max_position_embeddings", found, expected));
        }
        Ok(config)
    }

    /// The attention of every layer.
    #[must_use]
    pub fn attention(&self) -> AttentionConfig {
        AttentionConfig {
            hidden_size: self.hidden_size,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            sliding_window: None,
            rms_norm_eps: self.rms_norm_eps,
            rope: self.rope,
        }
    }

    /// Codes of a frame that this decoder makes: all but the talker's own.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.num_code_groups - 1
    }
}

/// The voices by lower-case name; at least one, and no two that differ in case alone.
fn speakers(section: &Section<'_>) -> Result<BTreeMap<String, u32>, ConfigError> {
    let voices = section.section("speaker_id")?;
    let mut speakers = BTreeMap::new();
    for name in voices.keys() {
        let id = voices.id(name)?;
        if speakers
            .insert(name.to_lowercase(), id)
            .is_some_and(|other| other != id)
        {
            let expected = "the id of the voice whose name differs in case alone";
            return Err(voices.contradiction(name, id, expected));
        }
    }
    if speakers.is_empty() {
        return Err(section.contradiction("speaker_id", "{}", "at least one voice"));
    }
    Ok(speakers)
}
