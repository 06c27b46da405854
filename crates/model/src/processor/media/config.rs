//! The media part of `preprocessor_config.json` (spec A.7), with the field names of the file.

use serde::Deserialize;

use super::error::MediaError;

/// Log-mel settings.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct AudioConfig {
    /// Mel filters.
    pub feature_size: usize,
    /// Samples from one frame to the next.
    pub hop_length: usize,
    /// Samples of a frame, and length of its Fourier transform.
    pub n_fft: usize,
    /// Samples a second of the waveform, in Hz.
    pub sampling_rate: usize,
    /// Noise added to the waveform; only 0 is supported, for it would make results random.
    #[serde(default)]
    pub dither: f64,
}

/// Image settings; video frames share all but the pixel limits.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ImageConfig {
    /// Fewest pixels after the resize.
    #[serde(default = "ImageConfig::default_min_pixels")]
    pub min_pixels: usize,
    /// Most pixels after the resize.
    #[serde(default = "ImageConfig::default_max_pixels")]
    pub max_pixels: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Frames of a patch.
    pub temporal_patch_size: usize,
    /// Patches along each side of the block that becomes one token.
    pub merge_size: usize,
    /// Mean of each colour, for values in 0..1.
    pub image_mean: [f32; 3],
    /// Standard deviation of each colour, for values in 0..1.
    pub image_std: [f32; 3],
}

/// `preprocessor_config.json`, as far as media need it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct MediaConfig {
    /// Log-mel settings.
    #[serde(flatten)]
    pub audio: AudioConfig,
    /// Image settings.
    #[serde(flatten)]
    pub image: ImageConfig,
}

impl MediaConfig {
    /// Reads and checks the text of `preprocessor_config.json`.
    ///
    /// # Errors
    /// When it is not JSON, lacks a field, or a field has a value that cannot work.
    pub fn from_json(text: &str) -> Result<Self, MediaError> {
        let damaged = |error| MediaError::damaged(FILE, "configuration", error);
        let mut config: Self = serde_json::from_str(text).map_err(damaged)?;
        let newer: NewerNames = serde_json::from_str(text).map_err(damaged)?;
        if let Some(size) = newer.size {
            config.image.min_pixels = newer.min_pixels.unwrap_or(size.shortest_edge);
            config.image.max_pixels = newer.max_pixels.unwrap_or(size.longest_edge);
        }
        config.audio.validate()?;
        config.image.validate()?;
        Ok(config)
    }
}

/// Files that transformers 5 wrote hold the pixel limits as `size`; the older names win where both
/// are given.
#[derive(Deserialize)]
struct NewerNames {
    size: Option<Size>,
    min_pixels: Option<usize>,
    max_pixels: Option<usize>,
}

/// Pixel limits; the names are the file's and do not say what they mean.
#[derive(Deserialize)]
struct Size {
    shortest_edge: usize,
    longest_edge: usize,
}

/// What errors call the configuration.
const FILE: &str = "preprocessor_config.json";

impl AudioConfig {
    /// Checks each field.
    ///
    /// # Errors
    /// When a field has a value that cannot work, naming it.
    pub fn validate(&self) -> Result<(), MediaError> {
        check("feature_size", self.feature_size, 1, 1024)?;
        check("n_fft", self.n_fft, 2, 1 << 16)?;
        check("hop_length", self.hop_length, 1, self.n_fft)?;
        check("sampling_rate", self.sampling_rate, 1_000, 768_000)?;
        if self.dither != 0.0 {
            return Err(MediaError::unexpected(
                FILE,
                "dither 0",
                self.dither.to_string(),
            ));
        }
        Ok(())
    }
}

impl ImageConfig {
    /// Pixels along each side that become one token.
    pub fn factor(&self) -> usize {
        self.patch_size * self.merge_size
    }

    /// Checks each field.
    ///
    /// # Errors
    /// When a field has a value that cannot work, naming it.
    pub fn validate(&self) -> Result<(), MediaError> {
        check("patch_size", self.patch_size, 1, 256)?;
        check("temporal_patch_size", self.temporal_patch_size, 1, 16)?;
        check("merge_size", self.merge_size, 1, 16)?;
        check(
            "max_pixels",
            self.max_pixels,
            self.factor() * self.factor(),
            1 << 30,
        )?;
        check("min_pixels", self.min_pixels, 1, self.max_pixels)?;
        for std in self.image_std {
            if !(std > 0.0 && std.is_finite()) {
                return Err(MediaError::unexpected(
                    FILE,
                    "image_std above 0",
                    std.to_string(),
                ));
            }
        }
        Ok(())
    }

    /// The reference class's own default, 56².
    fn default_min_pixels() -> usize {
        56 * 56
    }

    /// The reference class's own default, 28² × 1280.
    fn default_max_pixels() -> usize {
        28 * 28 * 1280
    }
}

fn check(field: &str, value: usize, low: usize, high: usize) -> Result<(), MediaError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(MediaError::unexpected(
        FILE,
        format!("{field} from {low} to {high}"),
        value.to_string(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISHED: &str = r#"{
        "dither": 0.0, "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 128,
        "hop_length": 160, "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "Qwen2VLImageProcessor", "image_std": [0.5, 0.5, 0.5],
        "max_pixels": 12845056, "merge_size": 2, "min_pixels": 3136, "n_fft": 400,
        "n_samples": 4800000, "nb_max_frames": 30000, "padding_side": "right",
        "padding_value": 0.0, "patch_size": 16, "processor_class": "Qwen3OmniMoeProcessor",
        "return_attention_mask": true, "sampling_rate": 16000, "temporal_patch_size": 2}"#;

    #[test]
    fn the_published_file_is_read() {
        let config = MediaConfig::from_json(PUBLISHED).unwrap();
        assert_eq!(
            (config.audio.feature_size, config.audio.sampling_rate),
            (128, 16_000)
        );
        assert_eq!(
            (config.image.factor(), config.image.max_pixels),
            (32, 12_845_056)
        );
    }

    #[test]
    fn pixel_limits_may_be_called_size() {
        let size = r#""size": {"shortest_edge": 4096, "longest_edge": 65536}"#;
        let newer = PUBLISHED
            .replace(r#""min_pixels": 3136"#, size)
            .replace(r#""max_pixels": 12845056, "#, "");
        let config = MediaConfig::from_json(&newer).unwrap();
        assert_eq!(
            (config.image.min_pixels, config.image.max_pixels),
            (4096, 65_536)
        );
    }

    #[test]
    fn a_value_that_cannot_work_is_refused_by_name() {
        for (from, to, expected) in [
            (
                r#""hop_length": 160"#,
                r#""hop_length": 0"#,
                "expected hop_length from 1 to 400, found 0",
            ),
            (
                r#""patch_size": 16"#,
                r#""patch_size": 0"#,
                "expected patch_size from 1 to 256, found 0",
            ),
            (
                r#""dither": 0.0"#,
                r#""dither": 0.1"#,
                "expected dither 0, found 0.1",
            ),
            (
                r#""n_fft": 400"#,
                r#""m_fft": 400"#,
                "missing field `n_fft`",
            ),
            ("0.5]", "0.0]", "expected image_std above 0"),
        ] {
            let text = MediaConfig::from_json(&PUBLISHED.replace(from, to))
                .unwrap_err()
                .to_string();
            assert!(text.contains(expected), "{text}");
        }
    }
}
