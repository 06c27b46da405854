//! Codes to samples.

use serde::Serialize;

use super::rope::{Positions, RopeConfig};
use super::section::Section;
use super::text::divided;
use super::{Activation, AttentionConfig, ConfigError};

/// Samples a second of the speech; the same for every checkpoint and in none of their configs.
pub const SAMPLE_RATE: u32 = 24_000;

/// `code2wav_config`: a dense decoder with a window, then convolutions that raise the rate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Code2WavConfig {
    /// Codes of a group; the embedding has this many rows for each group.
    pub codebook_size: usize,
    /// Codes of one frame: the talker's `num_code_groups`.
    pub num_quantizers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Inner width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Width of one head; `hidden_size / num_attention_heads` where the file has none, as in the
    /// release.
    pub head_dim: usize,
    /// Activation of the feed-forward layers: `silu`.
    pub hidden_act: Activation,
    /// Epsilon of every RMS norm.
    pub rms_norm_eps: f64,
    /// Rotary embedding of one-dimensional positions.
    #[serde(rename = "rope_parameters")]
    pub rope: RopeConfig,
    /// Longest context, in frames.
    pub max_position_embeddings: usize,
    /// Frames that a frame sees, itself included.
    pub sliding_window: usize,
    /// Factors of the transposed convolutions in the decoder.
    pub upsample_rates: Vec<usize>,
    /// Factors of the transposed convolutions before the decoder.
    pub upsampling_ratios: Vec<usize>,
    /// Channels after the decoder's first convolution; each factor of `upsample_rates` halves them.
    pub decoder_dim: usize,
}

impl Code2WavConfig {
    pub(super) fn read(section: &Section<'_>) -> Result<Self, ConfigError> {
        let width = ("hidden_size", section.size("hidden_size")?);
        let head_dim = if let Some(head_dim) = section.optional_size("head_dim")? {
            head_dim
        } else {
            let heads = section.size("num_attention_heads")?;
            divided(section, width, ("num_attention_heads", heads))?
        };
        let attention = AttentionConfig::read(section, head_dim, Positions::Plain)?;
        let config = Self {
            codebook_size: section.size("codebook_size")?,
            num_quantizers: section.size("num_quantizers")?,
            hidden_size: attention.hidden_size,
            intermediate_size: section.size("intermediate_size")?,
            num_hidden_layers: section.size("num_hidden_layers")?,
            num_attention_heads: attention.num_attention_heads,
            num_key_value_heads: attention.num_key_value_heads,
            head_dim,
            hidden_act: Activation::read(section, "hidden_act", Activation::Silu)?,
            rms_norm_eps: attention.rms_norm_eps,
            rope: attention.rope,
            max_position_embeddings: section.size("max_position_embeddings")?,
            sliding_window: section.size("sliding_window")?,
            upsample_rates: section.sizes("upsample_rates")?,
            upsampling_ratios: section.sizes("upsampling_ratios")?,
            decoder_dim: section.size("decoder_dim")?,
        };
        config.check(section)?;
        Ok(config)
    }

    fn check(&self, section: &Section<'_>) -> Result<(), ConfigError> {
        let rates = &self.upsample_rates;
        if rates.is_empty() {
            return Err(section.contradiction("upsample_rates", "[]", "at least one factor"));
        }
        let samples = self.factors().try_fold(1_usize, usize::checked_mul);
        if samples.is_none_or(|samples| samples > SAMPLE_RATE as usize) {
            let ratios = format!("{:?}", self.upsampling_ratios);
            let ratios = section.reference("upsampling_ratios", ratios);
            let expected = format!("with {ratios} at most {SAMPLE_RATE} samples a frame");
            return Err(section.contradiction("upsample_rates", format!("{rates:?}"), expected));
        }
        // At most 14 factors above 1 fit in the product, but a factor may be 1.
        let halvings = u32::try_from(rates.len())
            .ok()
            .and_then(|n| 1_usize.checked_shl(n));
        if !halvings.is_some_and(|halvings| self.decoder_dim.is_multiple_of(halvings)) {
            let rates = section.reference("upsample_rates", format!("{rates:?}"));
            let expected = format!("a number that can be halved for each of {rates}");
            return Err(section.contradiction("decoder_dim", self.decoder_dim, expected));
        }
        Ok(())
    }

    fn factors(&self) -> impl Iterator<Item = usize> {
        self.upsample_rates
            .iter()
            .chain(&self.upsampling_ratios)
            .copied()
    }

    /// The attention of every layer.
    #[must_use]
    pub fn attention(&self) -> AttentionConfig {
        AttentionConfig {
            hidden_size: self.hidden_size,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            sliding_window: Some(self.sliding_window),
            rms_norm_eps: self.rms_norm_eps,
            rope: self.rope,
        }
    }

    /// Width of one head.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Samples of one frame: the product of all factors.
    #[must_use]
    pub fn total_upsample(&self) -> usize {
        self.factors().product()
    }

    /// Frames a second.
    #[must_use]
    pub fn frame_rate(&self) -> f64 {
        let samples = u32::try_from(self.total_upsample()).unwrap_or(SAMPLE_RATE);
        f64::from(SAMPLE_RATE) / f64::from(samples)
    }

    /// Channels after decoder block `block`, counted from 0; one half of those before it.
    #[must_use]
    pub fn block_channels(&self, block: usize) -> usize {
        self.decoder_dim >> (block + 1)
    }
}
