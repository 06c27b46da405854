//! What the reference said aloud.

use std::path::Path;

use burn_omni_model::processor::media::read_audio;
use serde::Deserialize;
use serde_json::Value;

use crate::tensors::Tensors;
use crate::{read, repository};

/// The reference's outputs of one case.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the README of the cases says it")]
pub struct Golden {
    pub id: String,
    pub messages: Value,
    pub text: String,
    pub prompt_ids: Vec<u32>,
    pub output_ids: Vec<u32>,
    pub speaker: Option<String>,
    /// Codes, one row a codebook.
    pub codes: Option<Vec<Vec<u32>>>,
    pub samples: Option<usize>,
    wav: Option<String>,
    mel: Option<String>,
    taps: Option<String>,
}

impl Golden {
    /// The codes, one row a frame.
    #[must_use]
    pub fn frames(&self) -> Option<Vec<Vec<u32>>> {
        let codes = self.codes.as_ref()?;
        let frame = |i: usize| codes.iter().map(|codebook| codebook[i]).collect();
        Some((0..codes[0].len()).map(frame).collect())
    }

    /// The wave as 16-bit numbers.
    #[must_use]
    pub fn wave(&self) -> Option<Vec<i16>> {
        Some(read_wave(&folder().join(self.wav.as_ref()?)))
    }

    /// The log-mel of the float wave, `[frame, 80]`.
    #[must_use]
    pub fn log_mel(&self) -> Option<Vec<f32>> {
        Some(super::read_npy(&folder().join(self.mel.as_ref()?)))
    }

    /// Intermediate tensors, as `id/tensor`.
    #[must_use]
    pub fn taps(&self) -> Option<Tensors> {
        let tensors = Tensors::load(&folder().join(self.taps.as_ref()?));
        Some(tensors.below_case(&self.id))
    }
}

/// The goldens of `golden.jsonl`.
///
/// # Panics
/// When the file is damaged.
#[must_use]
pub fn goldens() -> Vec<Golden> {
    read(&folder().join("golden.jsonl"))
        .lines()
        .map(|line| serde_json::from_str(line).expect("a golden a line"))
        .collect()
}

/// The samples of a 16-bit WAV or FLAC file.
///
/// # Panics
/// When it is not one.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "they were 16-bit numbers")]
pub fn read_wave(path: &Path) -> Vec<i16> {
    let pcm = read_audio(path).unwrap_or_else(|error| panic!("{error}"));
    pcm.samples.iter().map(|x| (x * 32_768.0) as i16).collect()
}

fn folder() -> std::path::PathBuf {
    repository("tests/eval/golden")
}
