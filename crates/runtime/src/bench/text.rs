//! The thinker's prompt and answer.

use std::time::Duration;

use burn_omni_model::thinker::Rows;

use super::Sizes;
use super::figure::{Figure, median, timed, way};
use super::model::Bench;
use crate::decoding::{Decoding, Next, Place};
use crate::numbers::{finite, values};
use crate::sampler::{Random, Sampler};
use crate::schedule::Stage;
use crate::think::THINKER_DRAWS;
use crate::{Error, Sampling};

/// `thinker.prefill` and `thinker.decode`.
pub(super) fn figures(bench: &Bench, sizes: &Sizes, bandwidth: f64) -> Result<[Figure; 2], Error> {
    let once = || once(bench, sizes);
    let captured = once()?.captured;
    let runs: Vec<Run> = (0..sizes.repeat)
        .map(|_| once())
        .collect::<Result<_, _>>()?;
    let rates = |count: usize, time: fn(&Run) -> Duration| {
        let rates = runs
            .iter()
            .map(move |run| count as f64 / time(run).as_secs_f64());
        rates.collect::<Vec<_>>()
    };
    let prompt = sizes.prompt_tokens;
    let way = way(captured);
    let prefill = Figure::of(
        "thinker.prefill",
        "tokens/s",
        rates(prompt, |run| run.prefill),
        format!("{prompt} tokens"),
    );
    let count = sizes.decode_tokens;
    let decode = Figure::of(
        "thinker.decode",
        "tokens/s",
        rates(count, |run| run.decode),
        format!("{count} tokens behind {prompt}, {way}"),
    );
    let time = median(runs.iter().map(|run| run.decode).collect()) / count as u32;
    let bytes = bench.stages().thinker.token_bytes();
    Ok([prefill, decode.reading(bytes, time, bandwidth)])
}

struct Run {
    prefill: Duration,
    decode: Duration,
    captured: bool,
}

fn once(bench: &Bench, sizes: &Sizes) -> Result<Run, Error> {
    let stages = bench.stages();
    let thinker = &stages.thinker;
    let prompt = bench.text_ids(sizes.prompt_tokens);
    let rows = prompt.len() + sizes.decode_tokens;
    let mut decoding = Decoding::new(thinker, stages.captured.as_ref(), rows);
    let mut sampler = Sampler::new(Sampling::GREEDY, Random::new(0, THINKER_DRAWS));
    let (mut next, prefill) = timed(&stages.device, || {
        let mut logits = Vec::new();
        let embeds = Rows::text(thinker.embed_text(&prompt));
        let chunk = stages.prefill_rows(false);
        for start in (0..prompt.len()).step_by(chunk) {
            let range = start..(start + chunk).min(prompt.len());
            let positions: Vec<f32> = range.clone().map(|row| row as f32).collect();
            let rope = thinker.rope([&positions; 3]);
            let output = thinker.forward(&embeds.slice(range), &rope, decoding.state());
            logits = values(output.logits);
        }
        Ok(Next::Scores(logits))
    })?;
    let captured = matches!(decoding, Decoding::Captured(..));
    let ((), decode) = timed(&stages.device, || {
        for len in (prompt.len()..).take(sizes.decode_tokens) {
            let token = match next {
                Next::Token(token) => token,
                Next::Scores(ref mut scores) => {
                    finite(Stage::Thinker.name(), scores)?;
                    sampler.sample(std::mem::take(scores), |_| true)
                }
            };
            let place = Place {
                token,
                len,
                position: len as f32,
            };
            next = decoding.pass(thinker, place, true)?;
        }
        Ok(())
    })?;
    Ok(Run {
        prefill,
        decode,
        captured,
    })
}
