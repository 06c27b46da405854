//! The thinker's text decoder, and the parts that all decoders have in common.

use serde::Serialize;
use serde_json::json;

use super::ConfigError;
use super::rope::{Positions, RopeConfig};
use super::section::Section;

/// Activation function of a feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x · sigmoid(x)`.
    Silu,
    /// Exact GELU, with erf.
    Gelu,
    /// GELU in its tanh approximation.
    GeluPytorchTanh,
}

/// `text_config` of the thinker: a decoder whose every layer is a mixture of experts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TextConfig {
    /// Rows of the token embedding and of `lm_head`.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; each serves `num_attention_heads / num_key_value_heads` query heads.
    pub num_key_value_heads: usize,
    /// Width of one head; not `hidden_size / num_attention_heads`.
    pub head_dim: usize,
    /// Activation of the experts: `silu`.
    pub hidden_act: Activation,
    /// Longest context, in tokens.
    pub max_position_embeddings: usize,
    /// Epsilon of every RMS norm.
    pub rms_norm_eps: f64,
    /// Rotary embedding with time, height and width sections.
    #[serde(rename = "rope_parameters")]
    pub rope: RopeConfig,
    /// Experts a layer.
    pub num_experts: usize,
    /// Experts that a token visits.
    pub num_experts_per_tok: usize,
    /// Inner width of one expert.
    pub moe_intermediate_size: usize,
    /// Whether the weights of the visited experts are scaled to sum to 1.
    pub norm_topk_prob: bool,
}

/// What attention needs to know of any decoder, a view of its config.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Positions that a query sees, itself included; `None` for all before it.
    pub sliding_window: Option<usize>,
    /// Epsilon of the RMS norms.
    pub rms_norm_eps: f64,
    /// Rotary embedding of queries and keys.
    pub rope: RopeConfig,
}

/// What a mixture-of-experts layer needs to know, a view of a decoder's config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoeConfig {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Experts a layer.
    pub num_experts: usize,
    /// Experts that a token visits.
    pub num_experts_per_tok: usize,
    /// Inner width of one expert.
    pub moe_intermediate_size: usize,
    /// Inner width of the expert that every token visits, where there is one.
    pub shared_expert_intermediate_size: Option<usize>,
    /// Whether the weights of the visited experts are scaled to sum to 1.
    pub norm_topk_prob: bool,
}

impl TextConfig {
    pub(super) fn read(section: &Section<'_>) -> Result<Self, ConfigError> {
        let head_dim = section.size("head_dim")?;
        let attention = AttentionConfig::read(section, head_dim, Positions::Sections)?;
        no_sliding_window(section)?;
        let moe = MoeConfig::read(section, attention.hidden_size)?;
        section.only("shared_expert_intermediate_size", &json!(0))?;
        section.only("use_qk_norm", &json!(true))?;
        Ok(Self {
            vocab_size: section.size("vocab_size")?,
            hidden_size: attention.hidden_size,
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
            norm_topk_prob: moe.norm_topk_prob,
        })
    }

    /// Width of one head.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.head_dim
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
            shared_expert_intermediate_size: None,
            norm_topk_prob: self.norm_topk_prob,
        }
    }
}

impl AttentionConfig {
    pub(super) fn read(
        section: &Section<'_>,
        head_dim: usize,
        positions: Positions,
    ) -> Result<Self, ConfigError> {
        section.only("attention_bias", &json!(false))?;
        let num_attention_heads = section.size("num_attention_heads")?;
        let num_key_value_heads = section.size("num_key_value_heads")?;
        if !num_attention_heads.is_multiple_of(num_key_value_heads) {
            let heads = section.reference("num_attention_heads", num_attention_heads);
            let expected = format!("a divisor of {heads}");
            let key = "num_key_value_heads";
            return Err(section.contradiction(key, num_key_value_heads, expected));
        }
        if !head_dim.is_multiple_of(2) {
            return Err(section.contradiction("head_dim", head_dim, "an even number, for pairs"));
        }
        Ok(Self {
            hidden_size: section.size("hidden_size")?,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            sliding_window: None,
            rms_norm_eps: section.positive("rms_norm_eps")?,
            rope: RopeConfig::read(section, positions, head_dim)?,
        })
    }

    /// Width of all query heads: rows of `q_proj`, columns of `o_proj`.
    #[must_use]
    pub fn query_width(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of all key heads, and of all value heads: rows of `k_proj` and of `v_proj`.
    #[must_use]
    pub fn key_value_width(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// Query heads that share one key and value head.
    #[must_use]
    pub fn queries_per_key(&self) -> usize {
        self.num_attention_heads / self.num_key_value_heads
    }
}

impl MoeConfig {
    pub(super) fn read(section: &Section<'_>, hidden_size: usize) -> Result<Self, ConfigError> {
        section.only("decoder_sparse_step", &json!(1))?;
        section.only("mlp_only_layers", &json!([]))?;
        let num_experts = section.size_of(["num_experts", "num_local_experts"])?;
        let num_experts_per_tok = section.size("num_experts_per_tok")?;
        if num_experts_per_tok > num_experts {
            let experts = section.reference("num_experts", num_experts);
            let expected = format!("at most {experts}");
            let key = "num_experts_per_tok";
            return Err(section.contradiction(key, num_experts_per_tok, expected));
        }
        Ok(Self {
            hidden_size,
            num_experts,
            num_experts_per_tok,
            moe_intermediate_size: section.size("moe_intermediate_size")?,
            shared_expert_intermediate_size: None,
            norm_topk_prob: section.bool("norm_topk_prob")?,
        })
    }
}

impl Activation {
    /// Reads an activation of which only one is supported in its place.
    pub(super) fn read(
        section: &Section<'_>,
        key: &str,
        supported: Self,
    ) -> Result<Self, ConfigError> {
        section.text(key)?;
        section.only(key, &json!(supported))?;
        Ok(supported)
    }
}

/// Refuses a sliding window; a width without the switch, or with the switch off, has no effect.
pub(super) fn no_sliding_window(section: &Section<'_>) -> Result<(), ConfigError> {
    section.only("use_sliding_window", &json!(false))?;
    if section.has("use_sliding_window") {
        return Ok(());
    }
    section.only("sliding_window", &json!(null))
}

/// `hidden_size` divided among heads, for layers without an explicit `head_dim`.
pub(super) fn divided(
    section: &Section<'_>,
    width: (&str, usize),
    heads: (&str, usize),
) -> Result<usize, ConfigError> {
    if width.1.is_multiple_of(heads.1) {
        return Ok(width.1 / heads.1);
    }
    let expected = format!("a multiple of {}", section.reference(heads.0, heads.1));
    Err(section.contradiction(width.0, width.1, expected))
}
