//! A whole spoken answer: when it is heard, how fast it is made, and what it leaves of the thinker's speed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Sizes;
use super::figure::{Figure, median};
use super::model::Bench;
use super::question;
use super::timeline::{Packet, Timeline};
use crate::budget::Captures;
use crate::kept::Kept;
use crate::pipeline::{Job, Question};
use crate::progress::Progress;
use crate::schedule::{FRAME, Stage};
use crate::stream::{Sink, Stopped};
use crate::turns::Span;
use crate::{Answer, Error, Event, Request, Speech};

/// Tokens that are needed to tell the thinker's speed.
const TOKENS: usize = 8;

/// An answer that was made, in times since it was asked for.
struct Run {
    asked: Instant,
    packets: Vec<Packet>,
    spans: Vec<Span>,
    answer: Answer,
}

/// `first_audio`, `answer.rtf`, `answer.margin` and, where the thinker was still at work then, `thinker.speaking`; nothing
/// of an answer that is too short to be heard.
pub(super) fn figures(bench: &Bench, sizes: &Sizes) -> Result<Vec<Figure>, Error> {
    let alone = question::request(sizes.decode_tokens, None);
    let spoken = question::request(sizes.decode_tokens, Some(sizes.frames));
    let times = |request: &Request| -> Result<Vec<Run>, Error> {
        once(bench, sizes, request)?;
        let runs = (0..sizes.repeat).map(|_| once(bench, sizes, request));
        runs.collect()
    };
    let steps = times(&alone)?;
    let steps = steps.iter().map(|run| run.answer.timings.decode);
    let step = median(steps.collect()) / (sizes.decode_tokens.max(2) as u32 - 1);
    let mut runs = times(&spoken)?;
    // Too short an answer is not heard at all.
    runs.retain(|run| !run.packets.is_empty());
    if runs.is_empty() {
        return Ok(Vec::new());
    }
    let first = runs.iter().filter_map(|run| run.packets.first());
    let Answer { usage, .. } = &runs[0].answer;
    let what = format!(
        "{} tokens before it, {} tokens and {} frames in it",
        usage.prompt_tokens, usage.completion_tokens, usage.audio_frames
    );
    let first = first.map(|packet| packet.at.as_secs_f64() * 1e3);
    let margins = runs.iter().map(Run::margin);
    let mut figures = vec![
        Figure::of("first_audio", "ms", first, what.clone()),
        Figure::of("answer.rtf", "s/s", runs.iter().map(Run::rtf), what),
        Figure::of(
            "answer.margin",
            "frames",
            margins,
            "that a player has left when it has fewest",
        ),
    ];
    let shares: Vec<f64> = runs.iter().filter_map(|run| run.share(step)).collect();
    if !shares.is_empty() {
        let detail = "speed while it speaks, as a share of that of the thinker alone";
        figures.push(Figure::of("thinker.speaking", "", shares, detail));
    }
    Ok(figures)
}

/// What was done when.
pub(super) fn timeline(bench: &Bench, sizes: &Sizes) -> Result<Option<Timeline>, Error> {
    if bench.stages().speech.is_none() {
        return Ok(None);
    }
    let request = question::request(sizes.decode_tokens, Some(sizes.frames));
    once(bench, sizes, &request)?;
    let run = once(bench, sizes, &request)?;
    Ok(Some(Timeline::new(run.asked, run.spans, run.packets)))
}

fn once(bench: &Bench, sizes: &Sizes, request: &Request) -> Result<Run, Error> {
    let stages = bench.stages();
    let turns = stages.turns().recorded();
    let question = Question {
        prompt: Arc::new(question::prompt(bench, sizes.prompt_tokens)?),
        text: None,
    };
    let (sink, events) = Sink::channel();
    let progress = Progress::default();
    let started = Instant::now();
    let mut packets = Vec::new();
    let outcome = std::thread::scope(|scope| {
        let (turns, progress, sink) = (&turns, &progress, sink);
        let worker = scope.spawn(move || {
            let job = Job {
                stages,
                turns,
                request,
                sink: &sink,
                progress,
                started,
                captured: Captures {
                    thinker: true,
                    speech: true,
                },
            };
            job.run(question, &mut Kept::default())
        });
        for event in events {
            if let Ok(Event::Audio(samples)) = event {
                packets.push(Packet {
                    at: started.elapsed(),
                    samples: samples.len(),
                });
            }
        }
        worker.join().expect("panics of a loop are caught in it")
    });
    match outcome {
        Ok(answer) => Ok(Run {
            asked: started,
            packets,
            spans: turns.take_record(),
            answer,
        }),
        Err(Stopped::Failed(error)) => Err(error),
        Err(Stopped::Cancelled) => Err(Error::Stage {
            stage: "the answer",
            cause: "it ended early".into(),
        }),
    }
}

impl Run {
    /// Seconds of work for a second of sound.
    fn rtf(&self) -> f64 {
        let samples: usize = self.packets.iter().map(|packet| packet.samples).sum();
        let sound = samples as f64 / f64::from(Speech::SAMPLE_RATE);
        self.answer.timings.total.as_secs_f64() / sound
    }

    /// Frames that a player which begins with the first packet has left when it has fewest.
    fn margin(&self) -> f64 {
        let frame = f64::from(Speech::SAMPLE_RATE) * FRAME.as_secs_f64();
        let first = self
            .packets
            .first()
            .map_or(Duration::ZERO, |packet| packet.at);
        let (mut given, mut least) = (0.0, f64::INFINITY);
        for packet in &self.packets {
            if given > 0.0 {
                let played = (packet.at - first).as_secs_f64() / FRAME.as_secs_f64();
                least = f64::min(least, given - played);
            }
            given += packet.samples as f64 / frame;
        }
        // All of it was in one packet.
        if least.is_finite() { least } else { given }
    }

    /// Tokens from the first packet on, as a share of what the thinker makes in that time when each takes it `step`.
    fn share(&self, step: Duration) -> Option<f64> {
        let first = self.asked + self.packets.first()?.at;
        let thinks = |span: &&Span| span.stage == Stage::Thinker && span.start >= first;
        let tokens: Vec<&Span> = self.spans.iter().filter(thinks).collect();
        let last = tokens.last()?.end;
        let time = last.checked_duration_since(first)?;
        let alone = step.as_secs_f64() * tokens.len() as f64;
        (tokens.len() >= TOKENS).then(|| alone / time.as_secs_f64())
    }
}
