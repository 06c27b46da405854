//! A question of random words, some of them spoken.

use burn_omni_model::config::Config;
use burn_omni_model::processor::media::{LogMel, audio_token_count};
use burn_omni_model::processor::{MediaSpan, Medium, Prompt, positions, special_tokens};

use super::model::Bench;
use crate::{Error, Request, Sampling, SpeechRequest};

/// Frames of log-mel of the clip: five seconds.
const CLIP: usize = 500;
/// Rows around what is asked: the marks of two turns.
const AROUND: usize = 8;

/// A prompt of about so many tokens as the chat template lays it out: half a turn of the user is a clip, if it fits.
pub(super) fn prompt(bench: &Bench, tokens: usize) -> Result<Prompt, Error> {
    let stages = bench.stages();
    let (config, ids) = (&stages.config, &stages.ids);
    let speech = ids.speech.expect("a model that speaks has all ids");
    let marks = special_tokens(&config.thinker);
    let words = bench.words();
    let newline = *words.first().expect("a vocabulary has words");
    let mut prompt = Prompt::default();
    prompt.ids.extend([ids.im_start, speech.user, newline]);
    let clip = audio_token_count(CLIP);
    if tokens >= 2 * (clip + AROUND) {
        prompt.ids.push(marks.audio_start);
        let range = prompt.ids.len()..prompt.ids.len() + clip;
        prompt.ids.extend(std::iter::repeat_n(marks.audio, clip));
        prompt.ids.push(marks.audio_end);
        prompt.spans.push(MediaSpan { medium: 0, range });
        prompt.media.push(Medium::Audio { tokens: clip });
        prompt.audio.push(noise(config));
    }
    let rest = tokens.saturating_sub(prompt.ids.len() + AROUND - 3).max(1);
    prompt.ids.extend(words.iter().cycle().take(rest));
    let end = [ids.im_end, newline, ids.im_start, speech.assistant, newline];
    prompt.ids.extend(end);
    prompt.positions = positions(&prompt.ids, &prompt.media, &marks)
        .map_err(|error| Error::Processor(error.into()))?;
    Ok(prompt)
}

fn noise(config: &Config) -> LogMel {
    let mels = config.thinker.audio_config.num_mel_bins;
    let value = |i: usize| (i * 7919 % 1000) as f32 / 500.0 - 1.0;
    LogMel {
        mels,
        frames: CLIP,
        data: (0..mels * CLIP).map(value).collect(),
    }
}

/// The likeliest answer of so many tokens and, where it is spoken, frames.
pub(super) fn request(tokens: usize, frames: Option<usize>) -> Request {
    let mut request = Request::new().sampling(Sampling::GREEDY).max_tokens(tokens);
    request.endless = true;
    let speech = |frames| SpeechRequest {
        temperature: Some(0.0),
        max_frames: Some(frames),
        ..SpeechRequest::default()
    };
    match frames {
        Some(frames) => request.speech(speech(frames)),
        None => request,
    }
}
