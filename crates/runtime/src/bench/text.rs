//! The thinker's prompt and answer, and where the time of a token goes.

use std::time::Duration;

use burn_omni_model::thinker::Rows;
use burn_omni_ops::decode::{NodeTime, Place};

use super::Sizes;
use super::figure::{Figure, median, timed, way};
use super::model::Bench;
use crate::decoding::{Decoding, Next};
use crate::numbers::{finite, values};
use crate::sampler::{Random, Sampler};
use crate::schedule::Stage;
use crate::think::THINKER_DRAWS;
use crate::{Error, Sampling};

/// What a request without a wish of its own may ask for.
const SAMPLED: Sampling = Sampling {
    temperature: 0.7,
    top_k: 20,
    top_p: 0.8,
    repetition_penalty: 1.05,
};

/// `thinker.prefill`, `thinker.decode` of the likeliest tokens, and `thinker.decode.sampled` of others; of a captured step
/// what each kind of its kernels takes.
pub(super) fn figures(bench: &Bench, sizes: &Sizes, bandwidth: f64) -> Result<Vec<Figure>, Error> {
    let times = |sampling| -> Result<_, Error> {
        let captured = once(bench, sizes, sampling)?.captured;
        let runs = (0..sizes.repeat).map(|_| once(bench, sizes, sampling));
        Ok((runs.collect::<Result<Vec<Run>, _>>()?, captured))
    };
    let (runs, captured) = times(Sampling::GREEDY)?;
    let (sampled, _) = times(SAMPLED)?;
    let rates = |runs: &[Run], count: usize, time: fn(&Run) -> Duration| {
        let rates = runs
            .iter()
            .map(|run| count as f64 / time(run).as_secs_f64());
        rates.collect::<Vec<_>>()
    };
    let prompt = sizes.prompt_tokens;
    let way = way(captured);
    let prefill = Figure::of(
        "thinker.prefill",
        "tokens/s",
        rates(&runs, prompt, |run| run.prefill),
        format!("{prompt} tokens"),
    );
    let count = sizes.decode_tokens;
    let decode = |what, runs: &[Run], how| {
        let detail = format!("{count} tokens behind {prompt}, {how}{way}");
        let time = median(runs.iter().map(|run| run.decode).collect()) / count as u32;
        let figure = Figure::of(
            what,
            "tokens/s",
            rates(runs, count, |run| run.decode),
            detail,
        );
        figure.reading(bench.stages().thinker.token_bytes(), time, bandwidth)
    };
    let how = format!(
        "temperature {}, top_k {}, top_p {}, penalty {}, ",
        SAMPLED.temperature, SAMPLED.top_k, SAMPLED.top_p, SAMPLED.repetition_penalty
    );
    let mut figures = vec![
        prefill,
        decode("thinker.decode", &runs, ""),
        decode("thinker.decode.sampled", &sampled, &how),
    ];
    figures.extend(kernels(bench, sizes)?);
    Ok(figures)
}

/// What each kind of a captured step's kernels takes, behind the prompt.
fn kernels(bench: &Bench, sizes: &Sizes) -> Result<Vec<Figure>, Error> {
    let Some(captured) = &bench.stages().captured else {
        return Ok(Vec::new());
    };
    let runs = (0..sizes.repeat).map(|_| captured.times(sizes.prompt_tokens));
    let runs = runs.collect::<Result<Vec<Vec<NodeTime>>, _>>()?;
    let each = |at: usize| runs.iter().map(move |run: &Vec<NodeTime>| run[at].each);
    let nodes = runs[0].iter().enumerate();
    let all = nodes.map(|(at, node)| median(each(at).collect()) * node.count as u32);
    let all: Vec<Duration> = all.collect();
    let step: Duration = all.iter().sum();
    let figure = |(at, node): (usize, &NodeTime)| {
        let share = all[at].as_secs_f64() / step.as_secs_f64() * 100.0;
        Figure::of(
            format!("thinker.kernel.{}", node.what),
            "us",
            each(at).map(|time| time.as_secs_f64() * 1e6),
            format!("{} a token, {share:.1} % of all", node.count),
        )
    };
    Ok(runs[0].iter().enumerate().map(figure).collect())
}

struct Run {
    prefill: Duration,
    decode: Duration,
    captured: bool,
}

fn once(bench: &Bench, sizes: &Sizes, sampling: Sampling) -> Result<Run, Error> {
    let stages = bench.stages();
    let thinker = &stages.thinker;
    let prompt = bench.text_ids(sizes.prompt_tokens);
    let rows = prompt.len() + sizes.decode_tokens;
    let mut decoding = Decoding::new(thinker, stages.captured.as_ref(), rows);
    let mut sampler = Sampler::new(sampling, Random::new(0, THINKER_DRAWS));
    sampler.observe(&prompt);
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
                left: rows - len,
            };
            next = decoding.pass(thinker, place, || sampler.choosing(Vec::new(), 0))?;
        }
        Ok(())
    })?;
    Ok(Run {
        prefill,
        decode,
        captured,
    })
}
