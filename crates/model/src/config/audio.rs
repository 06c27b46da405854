//! The audio tower.

use serde::Serialize;
use serde_json::json;

use super::section::Section;
use super::text::divided;
use super::{Activation, ConfigError};

/// `audio_config` of the thinker: three convolutions, then attention within windows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AudioEncoderConfig {
    /// Mel bands of the spectrogram.
    pub num_mel_bins: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Encoder layers.
    pub encoder_layers: usize,
    /// Attention heads.
    pub encoder_attention_heads: usize,
    /// Inner width of the feed-forward layers.
    pub encoder_ffn_dim: usize,
    /// Activation everywhere: exact GELU.
    pub activation_function: Activation,
    /// Rows of the sinusoidal position table.
    pub max_source_positions: usize,
    /// Half of the mel frames in one convolution chunk.
    pub n_window: usize,
    /// Mel frames in one attention window.
    pub n_window_infer: usize,
    /// Chunks a convolution call; bounds memory and changes no value.
    pub conv_chunksize: usize,
    /// Channels of the three convolutions.
    pub downsample_hidden_size: usize,
    /// Width of an output row: the text decoder's `hidden_size`.
    pub output_dim: usize,
}

impl AudioEncoderConfig {
    pub(super) fn read(section: &Section<'_>) -> Result<Self, ConfigError> {
        section.only("scale_embedding", &json!(false))?;
        let key = "activation_function";
        let config = Self {
            num_mel_bins: section.size("num_mel_bins")?,
            d_model: section.size("d_model")?,
            encoder_layers: section.size("encoder_layers")?,
            encoder_attention_heads: section.size("encoder_attention_heads")?,
            encoder_ffn_dim: section.size("encoder_ffn_dim")?,
            activation_function: Activation::read(section, key, Activation::Gelu)?,
            max_source_positions: section.size("max_source_positions")?,
            n_window: section.size("n_window")?,
            n_window_infer: section.size("n_window_infer")?,
            conv_chunksize: section.size("conv_chunksize")?,
            downsample_hidden_size: section.size("downsample_hidden_size")?,
            output_dim: section.size("output_dim")?,
        };
        config.check(section)?;
        Ok(config)
    }

    fn check(&self, section: &Section<'_>) -> Result<(), ConfigError> {
        let heads = ("encoder_attention_heads", self.encoder_attention_heads);
        divided(section, ("d_model", self.d_model), heads)?;
        if !self.d_model.is_multiple_of(2) || self.d_model < 4 {
            let expected = "an even number of at least 4, for sine and cosine";
            return Err(section.contradiction("d_model", self.d_model, expected));
        }
        if self.n_window_infer < self.chunk_frames() {
            let n_window = section.reference("n_window", self.n_window);
            let expected = format!("at least twice {n_window}");
            return Err(section.contradiction("n_window_infer", self.n_window_infer, expected));
        }
        let rows = conv_len(self.chunk_frames());
        if rows > self.max_source_positions {
            let n_window = section.reference("n_window", self.n_window);
            let expected = format!("at least {rows}, the rows of one chunk of {n_window}");
            let key = "max_source_positions";
            return Err(section.contradiction(key, self.max_source_positions, expected));
        }
        Ok(())
    }

    /// Width of one attention head.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.d_model / self.encoder_attention_heads
    }

    /// Mel frames in one convolution chunk.
    #[must_use]
    pub fn chunk_frames(&self) -> usize {
        self.n_window * 2
    }

    /// Convolution chunks in one attention window.
    #[must_use]
    pub fn chunks_per_window(&self) -> usize {
        self.n_window_infer / self.chunk_frames()
    }

    /// Columns of `conv_out`: the channels times the bands that three halvings leave.
    #[must_use]
    pub fn conv_out_width(&self) -> usize {
        self.downsample_hidden_size * conv_len(self.num_mel_bins)
    }
}

/// Length after three convolutions of stride 2 with a kernel of 3 and a padding of 1.
fn conv_len(length: usize) -> usize {
    (0..3).fold(length, |length, _| length.div_ceil(2))
}
