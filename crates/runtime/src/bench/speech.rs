//! Talker, code predictor and code2wav.

use std::time::Duration;

use burn_omni_model::code2wav::Code2Wav;
use burn_omni_model::config::SAMPLE_RATE;

use super::Sizes;
use super::figure::{Figure, median, timed, way};
use super::model::Bench;
use crate::frames::Frames;
use crate::numbers::finite;
use crate::schedule::Stage;
use crate::speech::SpeechModel;
use crate::{Error, Sampling};

/// Frames of a packet of sound.
const CHUNK: usize = 25;
/// Rows of the talker's prompt.
const PROMPT: usize = 32;

/// How first codes are drawn where neither request nor checkpoint say so.
const SAMPLED: Sampling = Sampling {
    temperature: 0.9,
    top_k: 50,
    top_p: 1.0,
    repetition_penalty: 1.05,
};

/// `talker.frame`: a pass of the talker and the codes of the code predictor, drawn as they are for users.
pub(super) fn talker(
    bench: &Bench,
    speech: &SpeechModel,
    sizes: &Sizes,
    bandwidth: f64,
) -> Result<Figure, Error> {
    let frames = sizes.frames.min(CHUNK);
    let once = || once(bench, speech, frames);
    let (_, way) = once()?;
    let times: Result<Vec<_>, Error> = (0..sizes.repeat).map(|_| Ok(once()?.0)).collect();
    let times = times?;
    let each = times.iter().map(|time| time.as_secs_f64() * 1e3);
    let detail = format!("{frames} frames behind {PROMPT} rows, {way}");
    let figure = Figure::of("talker.frame", "ms", each, detail);
    Ok(figure.reading(speech.talker.frame_bytes(), median(times), bandwidth))
}

/// The time of a frame, and how it was made.
fn once(
    bench: &Bench,
    speech: &SpeechModel,
    frames: usize,
) -> Result<(Duration, &'static str), Error> {
    let model = &speech.talker;
    let text = |count| model.text_rows(bench.stages().thinker.embed_text(&bench.text_ids(count)));
    let mut held = speech.talker_state(PROMPT + frames);
    let state = held.state();
    let way = way(state.makes_frames());
    let positions: Vec<f32> = (0..PROMPT).map(|row| row as f32).collect();
    let step = model.prefill(state, text(PROMPT), [&positions; 3]);
    let pad = text(1);
    let mut talking = Frames::new(model, state, bench.codes(), (SAMPLED, 0));
    let ((), time) = timed(&bench.stages().device, || {
        talking.behind(step)?;
        for _ in 1..frames {
            talking.next(pad.clone())?;
        }
        Ok(())
    })?;
    Ok((time / frames as u32, way))
}

/// `code2wav.rtf` of packets, as in a stream, and `code2wav.rtf_at_once`: seconds of work for a second of sound.
pub(super) fn code2wav(
    bench: &Bench,
    code2wav: &Code2Wav,
    sizes: &Sizes,
) -> Result<[Figure; 2], Error> {
    let frames = bench.frames(sizes.frames);
    let samples = frames.len() * code2wav.samples_per_frame();
    let length = samples as f64 / f64::from(SAMPLE_RATE);
    let figure = |what, chunk: usize| {
        let once = || rtf(bench, code2wav, &frames, chunk);
        once()?;
        let times: Result<Vec<_>, Error> = (0..sizes.repeat).map(|_| once()).collect();
        let detail = match chunk.min(frames.len()) {
            chunk if chunk == frames.len() => format!("{} frames at once", frames.len()),
            chunk => format!("{} frames, {chunk} at a time", frames.len()),
        };
        let shares = times?.into_iter().map(|time| time.as_secs_f64() / length);
        Ok::<_, Error>(Figure::of(what, "s/s", shares, detail))
    };
    Ok([
        figure("code2wav.rtf", CHUNK)?,
        figure("code2wav.rtf_at_once", frames.len())?,
    ])
}

fn rtf(
    bench: &Bench,
    code2wav: &Code2Wav,
    frames: &[Vec<u32>],
    chunk: usize,
) -> Result<Duration, Error> {
    let mut state = code2wav.state();
    let ((), time) = timed(&bench.stages().device, || {
        for frames in frames.chunks(chunk) {
            let samples = code2wav.push(&mut state, frames);
            let samples = samples.map_err(|error| Error::Stage {
                stage: Stage::Code2Wav.name(),
                cause: error.to_string(),
            })?;
            finite(Stage::Code2Wav.name(), &samples)?;
        }
        Ok(())
    })?;
    Ok(time)
}
