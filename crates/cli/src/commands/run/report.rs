//! The result of `run --json`.

use std::time::Duration;

use burn_omni::{Answer, Speech};
use serde::Serialize;

use super::Loaded;
use crate::answer::{Finished, real_time_factor};
use crate::output::peak_bytes;

/// The one JSON object.
#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
    text: &'a str,
    token_ids: &'a [u32],
    finish_reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    audio: Option<Audio<'a>>,
    usage: Usage,
    timings: Timings,
    memory: Memory<'a>,
}

#[derive(Debug, Serialize)]
struct Audio<'a> {
    path: Option<String>,
    sample_rate: u32,
    samples: usize,
    frames: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    codes: Option<&'a [Vec<u32>]>,
}

#[derive(Debug, Serialize)]
struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    audio_frames: usize,
}

/// Seconds but where the name says otherwise; times of firsts count from the request.
#[derive(Debug, Serialize)]
struct Timings {
    load_s: f64,
    prefill_s: f64,
    first_token_s: f64,
    first_audio_s: Option<f64>,
    decode_tokens_per_s: Option<f64>,
    talker_ms_per_frame: Option<f64>,
    /// Seconds of the whole request for a second of speech.
    rtf: Option<f64>,
    total_s: f64,
}

#[derive(Debug, Serialize)]
struct Memory<'a> {
    device: &'a str,
    weights_bytes: u64,
    /// Keys and values of this request.
    kv_bytes: u64,
    /// The most that the process ever held, where the system tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_bytes: Option<u64>,
}

impl<'a> Report<'a> {
    pub(super) fn new(finished: &'a Finished, loaded: &'a Loaded, codes: bool) -> Self {
        let answer = &finished.answer;
        let audio = |speech: &'a Speech| Audio {
            path: finished
                .path
                .as_ref()
                .map(|path| path.display().to_string()),
            sample_rate: Speech::SAMPLE_RATE,
            samples: speech.samples,
            frames: speech.codes.len(),
            codes: codes.then_some(&speech.codes),
        };
        Self {
            text: &answer.text,
            token_ids: &answer.token_ids,
            finish_reason: answer.finish_reason.name(),
            audio: answer.speech.as_ref().map(audio),
            usage: Usage {
                prompt_tokens: answer.usage.prompt_tokens,
                completion_tokens: answer.usage.completion_tokens,
                audio_frames: answer.usage.audio_frames,
            },
            timings: Timings::new(answer, loaded.took),
            memory: Memory::new(answer, loaded),
        }
    }
}

impl Timings {
    fn new(answer: &Answer, load: Duration) -> Self {
        let times = &answer.timings;
        let further_tokens = answer.usage.completion_tokens.saturating_sub(1);
        let frames = answer.usage.audio_frames;
        let share = |amount: f64, of: f64| (amount > 0.0 && of > 0.0).then(|| rounded(amount / of));
        Self {
            load_s: seconds(load),
            prefill_s: seconds(times.prefill),
            first_token_s: seconds(times.first_token),
            first_audio_s: times.first_audio.map(seconds),
            decode_tokens_per_s: share(further_tokens as f64, times.decode.as_secs_f64()),
            talker_ms_per_frame: share(times.talker.as_secs_f64() * 1e3, frames as f64),
            rtf: real_time_factor(answer).map(rounded),
            total_s: seconds(times.total),
        }
    }
}

impl<'a> Memory<'a> {
    fn new(answer: &Answer, loaded: &'a Loaded) -> Self {
        let plan = loaded.engine.memory();
        let tokens = answer.usage.prompt_tokens + answer.usage.completion_tokens;
        Self {
            device: &loaded.device,
            weights_bytes: plan.weights_bytes,
            kv_bytes: plan.kv_bytes_per_token * tokens as u64,
            peak_bytes: peak_bytes(),
        }
    }
}

fn seconds(time: Duration) -> f64 {
    rounded(time.as_secs_f64())
}

/// To microseconds: more digits are noise.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
