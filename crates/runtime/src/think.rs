//! The thinker's loop: the prompt, then a token at a time.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use burn::tensor::{Tensor, s};
use burn_omni_model::processor::{Prompt, TextStream};
use burn_omni_model::thinker::Rows;
use burn_omni_ops::decode::Place;

use crate::decoding::{Decoding, Next};
use crate::kept::{KeptThinker, rest};
use crate::numbers::{finite, values};
use crate::pipeline::{Heard, Job, Question, Said};
use crate::sampler::{Random, Sampler};
use crate::schedule::Stage;
use crate::stream::Stopped;
use crate::turns::Seat;
use crate::{Answer, Event, FinishReason};

/// Number of the draws.
pub(crate) const THINKER_DRAWS: u32 = 0;

/// The thinker at work on one answer.
pub(crate) struct Thinking<'a> {
    job: &'a Job<'a>,
    seat: &'a Seat<'a>,
    /// To the talker, while it listens.
    says: Option<SyncSender<Said>>,
    kept: &'a mut KeptThinker,
    text: Option<TextStream>,
    answer: Answer,
}

impl<'a> Thinking<'a> {
    pub(crate) fn new(
        job: &'a Job<'a>,
        seat: &'a Seat<'a>,
        says: Option<SyncSender<Said>>,
        kept: &'a mut KeptThinker,
    ) -> Self {
        Self {
            job,
            seat,
            says,
            kept,
            text: None,
            answer: Answer::default(),
        }
    }

    /// Answers in text.
    pub(crate) fn think(mut self, question: Question) -> Result<Answer, Stopped> {
        let Question { prompt, text } = question;
        self.text = text;
        let length = prompt.ids.len();
        let stages = self.job.stages;
        let capacity = stages.rows(self.job.request, &prompt);
        let seat = self.seat;
        let (mut decoding, fresh) = seat.turn_until_done(|| self.begin(&prompt, capacity))?;
        let outcome = self
            .prefill(&prompt, &mut decoding, fresh)
            .and_then(|logits| self.decode(logits, &prompt, &mut decoding, capacity - length));
        // What failed may have left rows that are none.
        if !matches!(outcome, Err(Stopped::Failed(_))) {
            decoding.leave(self.kept);
        }
        outcome.map(|()| self.answer)
    }

    /// Takes a decoder with room for `capacity` rows, and embeds what the prompt has behind those that are kept: only the
    /// media there pass the encoders.
    fn begin(&mut self, prompt: &Arc<Prompt>, capacity: usize) -> (Decoding<'a>, Rows) {
        let stages = self.job.stages;
        let rows = self.kept.common(prompt);
        let captured = stages.captured.as_ref();
        let captured = captured.filter(|_| self.job.captured.thinker);
        let mut decoding = Decoding::resume(&stages.thinker, captured, capacity, self.kept);
        // Without the state there is nothing to go on behind.
        let rows = rows.min(decoding.state().len());
        decoding.state().truncate(rows);
        self.kept.begin(prompt.clone(), rows);
        self.answer.usage.prompt_tokens = prompt.ids.len();
        self.answer.usage.cached_tokens = rows;
        let fresh = match rows {
            0 => stages.thinker.embed(prompt),
            rows => stages.thinker.embed(&rest(prompt, rows)),
        };
        (decoding, fresh)
    }

    /// Passes the rows of the prompt that are `fresh` and hands it to the talker; gives the scores behind its last row.
    fn prefill(
        &mut self,
        prompt: &Arc<Prompt>,
        decoding: &mut Decoding<'_>,
        fresh: Rows,
    ) -> Result<Vec<f32>, Stopped> {
        let thinker = &self.job.stages.thinker;
        let rows = self.answer.usage.cached_tokens;
        let prepared = self.job.started.elapsed();
        self.answer.timings.prepare = prepared;
        // The talker reads the hidden rows of media, now or in a later turn.
        let wanted = self.says.is_some() || !prompt.spans.is_empty();
        let mut logits = Vec::new();
        let length = prompt.ids.len();
        let mut start = rows;
        while start < length {
            let chunk = self.job.stages.prefill_rows(self.seat.is_beside_speech());
            let range = start..(start + chunk).min(length);
            start = range.end;
            let positions = &prompt.positions;
            let axes = [&positions.t, &positions.h, &positions.w];
            let (scores, accepted) = self.seat.turn(|| {
                let rope = thinker.rope(axes.map(|axis| &axis[range.clone()]));
                let part = fresh.slice(range.start - rows..range.end - rows);
                let output = thinker.forward(&part, &rope, decoding.state());
                (values(output.logits), output.accepted)
            })?;
            let accepted = accepted.filter(|_| wanted);
            self.kept.passed(&prompt.ids[range], accepted);
            logits = scores;
        }
        self.answer.timings.prefill = self.job.started.elapsed() - prepared;
        if self.says.is_some() {
            let seat = self.seat;
            let heard = seat.turn_until_done(|| self.heard(prompt, fresh.embeds, rows))?;
            self.say(Said::Heard(Box::new(heard)));
        }
        Ok(logits)
    }

    /// What the talker reads of the prompt, whose first `rows` passed before: of those it reads no embeddings but those of
    /// text.
    fn heard(&self, prompt: &Arc<Prompt>, fresh: Tensor<2>, rows: usize) -> Heard {
        let thinker = &self.job.stages.thinker;
        let embeds = match rows {
            0 => fresh,
            rows => Tensor::cat(vec![thinker.embed_text(&prompt.ids[..rows]), fresh], 0),
        };
        let accepted = self.kept.accepted();
        let accepted = accepted.expect("a thinker that is loaded with a talker gives them");
        Heard {
            prompt: prompt.clone(),
            accepted: accepted.slice(s![..prompt.ids.len(), ..]),
            embeds,
        }
    }

    /// Chooses tokens until the answer ends.
    fn decode(
        &mut self,
        logits: Vec<f32>,
        prompt: &Prompt,
        decoding: &mut Decoding<'_>,
        limit: usize,
    ) -> Result<(), Stopped> {
        let (stages, request) = (self.job.stages, self.job.request);
        let mut sampler = self.sampler();
        sampler.observe(&prompt.ids);
        let mut next = Next::Scores(logits);
        self.answer.finish_reason = FinishReason::Length;
        for step in 0..limit {
            let id = self.choose(next, step, &mut sampler)?;
            let ends = stages.ends(id) && !request.endless;
            if ends {
                self.answer.finish_reason = FinishReason::Stop;
            }
            let last = ends || step + 1 == limit;
            self.say(if last { Said::End } else { Said::Token(id) });
            if !ends {
                let text = self.text.as_mut().and_then(|text| text.push(id));
                self.give(text)?;
                self.job.progress.said(id);
            }
            if last {
                break;
            }
            let len = prompt.ids.len() + step;
            let place = Place {
                token: id,
                len,
                position: prompt.positions.decoded(len),
                left: limit - 1 - step,
            };
            let choosing = || {
                let endless = request.endless.then_some(usize::MAX);
                let bans = request.min_tokens.saturating_sub(step + 1);
                sampler.choosing(stages.end_marks().collect(), endless.unwrap_or(bans))
            };
            let begun = self.seat.busy();
            let pass = || decoding.pass(&stages.thinker, place, choosing);
            next = self.seat.turn(pass)??;
            self.kept.passed(&[id], None);
            self.answer.timings.decode += self.seat.busy() - begun;
        }
        let rest = self.text.take().and_then(TextStream::finish);
        self.give(rest)?;
        self.answer.usage.completion_tokens = self.answer.token_ids.len();
        Ok(())
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
        if self.seat.send(says, said).is_err() {
            self.says = None;
        }
    }

    fn give(&mut self, text: Option<String>) -> Result<(), Stopped> {
        if let Some(text) = text {
            self.answer.text.push_str(&text);
            self.seat.give(Event::Text(text))?;
        }
        Ok(())
    }

    fn sampler(&self) -> Sampler {
        let request = self.job.request;
        let sampling = request.sampling;
        let sampling = sampling.unwrap_or_else(|| self.job.stages.sampling());
        Sampler::new(sampling, Random::new(request.seed, THINKER_DRAWS))
    }
}
