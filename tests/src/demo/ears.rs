//! The model listens to itself.

use burn_omni::{Content, Engine, Error, Request, Sampling};
use burn_omni_model::processor::media::{Pcm, resample};

/// What the model hears: the first `Pcm` is mono at any rate.
const RATE: u32 = 16_000;
/// Silence behind the speech, at least.
const TAIL: usize = 1_600;
/// Shortest clip.
const SHORTEST: usize = 16_000;

/// The model's own transcript of what it said, padded with silence as `score.py` does.
///
/// # Errors
/// As the request's.
///
/// # Panics
/// When the samples cannot be resampled.
pub fn heard(engine: &Engine, samples: Vec<f32>) -> Result<String, Error> {
    let spoken = Pcm {
        sample_rate: 24_000,
        samples,
    };
    let mut clip = resample(&spoken, RATE).expect("24 kHz is a usual rate");
    let length = (clip.samples.len() + TAIL).max(SHORTEST);
    clip.samples.resize(length, 0.0);
    let request = Request::new()
        .user([Content::audio(clip), Content::text("Transcribe the audio.")])
        .sampling(Sampling::GREEDY)
        .max_tokens(32);
    Ok(crate::reply::run(engine, request)?.answer.text)
}

/// A text as lower-case words.
#[must_use]
pub fn words(text: &str) -> Vec<String> {
    let letter = |c: char| if c.is_alphabetic() { c } else { ' ' };
    let letters: String = text.to_lowercase().chars().map(letter).collect();
    letters.split_whitespace().map(str::to_owned).collect()
}
