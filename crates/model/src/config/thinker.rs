//! The thinker: its text decoder, its towers, and the tokens that stand for media.

use serde::Serialize;

use super::section::Section;
use super::{AudioEncoderConfig, ConfigError, TextConfig, VisionEncoderConfig};

/// `thinker_config`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ThinkerConfig {
    /// Text decoder.
    pub text_config: TextConfig,
    /// Audio tower.
    pub audio_config: AudioEncoderConfig,
    /// Vision tower.
    pub vision_config: VisionEncoderConfig,
    /// Token whose embedding is replaced by one row of the audio tower.
    pub audio_token_id: u32,
    /// Token whose embedding is replaced by one row of an image.
    pub image_token_id: u32,
    /// Token whose embedding is replaced by one row of a video.
    pub video_token_id: u32,
    /// Token before audio rows.
    pub audio_start_token_id: u32,
    /// Token after audio rows.
    pub audio_end_token_id: u32,
    /// Token before image or video rows.
    pub vision_start_token_id: u32,
    /// Token after image or video rows.
    pub vision_end_token_id: u32,
    /// Time positions that pass in a second of audio or video.
    pub position_id_per_seconds: usize,
}

impl ThinkerConfig {
    pub(super) fn read(section: &Section<'_>) -> Result<Self, ConfigError> {
        let text = section.section("text_config")?;
        let config = Self {
            text_config: TextConfig::read(&text)?,
            audio_config: AudioEncoderConfig::read(&section.section("audio_config")?)?,
            vision_config: VisionEncoderConfig::read(&section.section("vision_config")?)?,
            audio_token_id: section.id("audio_token_id")?,
            image_token_id: section.id("image_token_id")?,
            video_token_id: section.id("video_token_id")?,
            audio_start_token_id: section.id("audio_start_token_id")?,
            audio_end_token_id: section.id("audio_end_token_id")?,
            vision_start_token_id: section.id("vision_start_token_id")?,
            vision_end_token_id: section.id("vision_end_token_id")?,
            position_id_per_seconds: section.size("position_id_per_seconds")?,
        };
        config.check(section, &text)?;
        Ok(config)
    }

    /// Compares the towers and the tokens with the text decoder.
    fn check(&self, section: &Section<'_>, text: &Section<'_>) -> Result<(), ConfigError> {
        let hidden = self.text_config.hidden_size;
        let outputs = [
            ("audio_config", "output_dim", self.audio_config.output_dim),
            (
                "vision_config",
                "out_hidden_size",
                self.vision_config.out_hidden_size,
            ),
        ];
        for (tower, key, width) in outputs {
            if width != hidden {
                let expected = format!("the width {}", text.reference("hidden_size", hidden));
                return Err(section.section(tower)?.contradiction(key, width, expected));
            }
        }
        let layers = self.text_config.num_hidden_layers;
        let deepstack = &self.vision_config.deepstack_visual_indexes;
        if deepstack.len() > layers {
            let layers = text.reference("num_hidden_layers", layers);
            let found = format!("{} layers", deepstack.len());
            let expected = format!("at most {layers}, since each feeds one of those");
            let vision = section.section("vision_config")?;
            return Err(vision.contradiction("deepstack_visual_indexes", found, expected));
        }
        let vocab_size = self.text_config.vocab_size;
        for (key, id) in self.ids() {
            section.id_below(key, id, (text, "vocab_size", vocab_size))?;
        }
        Ok(())
    }

    fn ids(&self) -> [(&'static str, u32); 7] {
        [
            ("audio_token_id", self.audio_token_id),
            ("image_token_id", self.image_token_id),
            ("video_token_id", self.video_token_id),
            ("audio_start_token_id", self.audio_start_token_id),
            ("audio_end_token_id", self.audio_end_token_id),
            ("vision_start_token_id", self.vision_start_token_id),
            ("vision_end_token_id", self.vision_end_token_id),
        ]
    }
}
