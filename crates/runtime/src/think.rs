//! The thinker's loop: the prompt, then a token at a time.

use std::sync::mpsc::SyncSender;

use burn::tensor::Tensor;
use burn_omni_model::processor::{Prompt, TextStream};

use crate::decoding::{Decoding, Next, Place};
use crate::numbers::{finite, values};
use crate::pipeline::{Heard, Job, Question, Said};
use crate::sampler::{Random, Sampler};
use crate::schedule::Stage;
use crate::stream::Stopped;
use crate::turns::Seat;
use crate::{Answer, Event, FinishReason};

/// Prompt rows that pass the decoder at a time, so that memory is bounded and a long prompt can be cancelled.
pub(crate) const PREFILL_ROWS: usize = 1024;
/// Longest answer when neither the request nor the checkpoint says it (the reference's `thinker_max_new_tokens`).
const MAX_NEW_TOKENS: usize = 1024;
/// Number of the draws.
pub(crate) const THINKER_DRAWS: u32 = 0;

/// The thinker at work on one answer.
pub(crate) struct Thinking<'a> {
    job: &'a Job<'a>,
    seat: &'a Seat<'a>,
    /// To the talker, while it listens.
    says: Option<SyncSender<Said>>,
    text: Option<TextStream>,
    answer: Answer,
}

impl<'a> Thinking<'a> {
    pub(crate) fn new(
        job: &'a Job<'a>,
        seat: &'a Seat<'a>,
        says: Option<SyncSender<Said>>,
    ) -> Self {
        Self {
            job,
            seat,
            says,
            text: None,
            answer: Answer::default(),
        }
    }

    /// Answers in text.
    pub(crate) fn think(mut self, question: Question) -> Result<Answer, Stopped> {
        let Question { prompt, text } = question;
        self.text = text;
        let length = prompt.ids.len();
        self.answer.usage.prompt_tokens = length;
        let limit = self.max_tokens(length);
        let captured = self.job.stages.captured.as_ref();
        let mut decoding = Decoding::new(&self.job.stages.thinker, captured, length + limit);
        let mut sampler = self.sampler();
        sampler.observe(&prompt.ids);
        let positions = prompt.positions.clone();
        let logits = self.prefill(prompt, &mut decoding)?;
        let mut next = Next::Scores(logits);
        self.answer.finish_reason = FinishReason::Length;
        for step in 0..limit {
            let id = self.choose(next, step, &mut sampler)?;
            let ends = self.job.stages.ends(id) && !self.job.request.endless;
            if ends {
                self.answer.finish_reason = FinishReason::Stop;
            }
            let last = ends || step + 1 == limit;
            self.say(if last { Said::End } else { Said::Token(id) });
            if !ends {
                let text = self.text.as_mut().and_then(|text| text.push(id));
                self.give(text)?;
            }
            if last {
                break;
            }
            let len = length + step;
            let place = Place {
                token: id,
                len,
                position: positions.decoded(len),
            };
            let greedy = sampler.is_greedy() && step + 1 >= self.job.request.min_tokens;
            let thinker = &self.job.stages.thinker;
            let begun = self.seat.busy();
            next = self.seat.turn(|| decoding.pass(thinker, place, greedy))??;
            self.answer.timings.decode += self.seat.busy() - begun;
        }
        let rest = self.text.take().and_then(TextStream::finish);
        self.give(rest)?;
        self.answer.usage.completion_tokens = self.answer.token_ids.len();
        Ok(self.answer)
    }

    /// Passes the prompt and hands it to the talker; gives the scores behind its last row.
    fn prefill(
        &mut self,
        prompt: Prompt,
        decoding: &mut Decoding<'_>,
    ) -> Result<Vec<f32>, Stopped> {
        let thinker = &self.job.stages.thinker;
        let rows = self.seat.turn(|| thinker.embed(&prompt))?;
        let prepared = self.job.started.elapsed();
        self.answer.timings.prepare = prepared;
        let (mut accepted, mut logits) = (Vec::new(), Vec::new());
        let length = prompt.ids.len();
        for start in (0..length).step_by(PREFILL_ROWS) {
            let range = start..(start + PREFILL_ROWS).min(length);
            let positions = &prompt.positions;
            let axes = [&positions.t, &positions.h, &positions.w];
            let (scores, hidden) = self.seat.turn(|| {
                let rope = thinker.rope(axes.map(|axis| &axis[range.clone()]));
                let output = thinker.forward(&rows.slice(range), &rope, decoding.state());
                (values(output.logits), output.accepted)
            })?;
            accepted.extend(hidden.filter(|_| self.says.is_some()));
            logits = scores;
        }
        self.answer.timings.prefill = self.job.started.elapsed() - prepared;
        if !accepted.is_empty() {
            self.say(Said::Heard(Box::new(Heard {
                embeds: rows.embeds,
                accepted: Tensor::cat(accepted, 0),
                prompt,
            })));
        }
        Ok(logits)
    }

    /// The next token.
    fn choose(&mut self, next: Next, step: usize, sampler: &mut Sampler) -> Result<u32, Stopped> {
        let request = self.job.request;
        let endless = step < request.min_tokens || request.endless;
        let id = match next {
            Next::Token(id) => id,
            Next::Scores(scores) => {
                finite(Stage::Thinker.name(), &scores)?;
                let stages = self.job.stages;
                sampler.sample(scores, |id| !endless || !stages.ends(id as u32))
            }
        };
        if step == 0 {
            self.answer.timings.first_token = self.job.started.elapsed();
        }
        self.answer.token_ids.push(id);
        Ok(id)
    }

    /// Tells the talker something. One that has reached its limit of frames is no longer there; one that failed ends this
    /// loop before its next step.
    fn say(&mut self, said: Said) {
        let Some(says) = &self.says else {
            return;
        };
        if self.seat.away(|| says.send(said)).is_err() {
            self.says = None;
        }
    }

    fn give(&mut self, text: Option<String>) -> Result<(), Stopped> {
        if let Some(text) = text {
            self.answer.text.push_str(&text);
            let sink = self.job.sink;
            self.seat.away(|| sink.send(Event::Text(text)))?;
        }
        Ok(())
    }

    fn sampler(&self) -> Sampler {
        let request = self.job.request;
        let sampling = request.sampling;
        let sampling = sampling.unwrap_or_else(|| self.job.stages.sampling());
        Sampler::new(sampling, Random::new(request.seed, THINKER_DRAWS))
    }

    fn max_tokens(&self, prompt: usize) -> usize {
        let stages = self.job.stages;
        let configured = stages.config.generation.max_new_tokens;
        let wanted = self.job.request.max_tokens.or(configured);
        wanted
            .unwrap_or(MAX_NEW_TOKENS)
            .min(stages.context - prompt)
    }
}
