//! A request from prompt to answer.

use std::time::Instant;

use burn::tensor::{DType, Tensor};
use burn_omni_model::processor::Prompt;

use crate::decoding::{Decoding, Next, Place};
use crate::engine::Model;
use crate::memory::prefill_rows;
use crate::request::Media;
use crate::sampler::{Random, Sampler};
use crate::speech::Speaker;
use crate::stream::{Sink, Stopped};
use crate::{Answer, Error, Event, FinishReason, Request};

/// Longest answer when neither the request nor the checkpoint says it (the reference's `thinker_max_new_tokens`).
const MAX_NEW_TOKENS: usize = 1024;
/// Stage numbers of the draws.
pub(crate) const THINKER_STAGE: u32 = 0;
pub(crate) const TALKER_STAGE: u32 = 1;
pub(crate) const PREDICTOR_STAGE: u32 = 2;

/// One request being answered.
pub(crate) struct Job<'a> {
    model: &'a Model,
    request: Request,
    sink: &'a Sink,
    started: Instant,
    answer: Answer,
}

/// What the thinker leaves for the talker.
pub(crate) struct Thought {
    pub(crate) prompt: Prompt,
    /// Input embeddings of the prompt, `[prompt, hidden]`.
    pub(crate) embeds: Tensor<2>,
    /// Accepted hidden rows of the prompt, `[prompt, hidden]`.
    pub(crate) accepted: Tensor<2>,
    /// The tokens of the answer, the one that ended it included.
    pub(crate) token_ids: Vec<u32>,
}

impl<'a> Job<'a> {
    pub(crate) fn new(model: &'a Model, request: Request, sink: &'a Sink) -> Self {
        Self {
            model,
            request,
            sink,
            started: Instant::now(),
            answer: Answer::default(),
        }
    }

    pub(crate) fn run(mut self) -> Result<(), Stopped> {
        let prompt = self.prepare()?;
        let thought = self.think(prompt)?;
        if let (Some(speech), Some(thought)) = (self.request.speech.clone(), thought) {
            let speaker = Speaker::new(self.model, &speech, self.request.seed)?;
            speaker.speak(&thought, self.sink, self.started, &mut self.answer)?;
        }
        self.answer.timings.total = self.started.elapsed();
        self.sink.send(Event::Done(Box::new(self.answer)))?;
        Ok(())
    }

    /// Reads the media and makes the prompt.
    fn prepare(&mut self) -> Result<Prompt, Stopped> {
        let processor = &self.model.processor;
        let sound = self.request.use_audio_in_video;
        let conversation =
            self.request
                .conversation
                .clone()
                .map_media(|kind, medium| match medium {
                    Media::Decoded(medium) => Ok(medium),
                    Media::File(path) => processor.read(kind, &path, sound),
                });
        let prompt = processor.prepare(&conversation?)?;
        let (length, context) = (prompt.ids.len(), self.model.context);
        if length >= context {
            return Err(Error::PromptTooLong {
                prompt: length,
                context,
            }
            .into());
        }
        self.answer.usage.prompt_tokens = length;
        Ok(prompt)
    }

    /// Answers in text; what the talker needs is kept when speech was asked for.
    fn think(&mut self, prompt: Prompt) -> Result<Option<Thought>, Stopped> {
        let thinker = &self.model.thinker;
        let rows = thinker.embed(&prompt);
        self.answer.timings.prepare = self.started.elapsed();
        let length = prompt.ids.len();
        let limit = self.max_tokens(length);
        let mut decoding = Decoding::new(thinker, self.model.captured.as_ref(), length + limit);
        let mut accepted = Vec::new();
        let mut logits = Vec::new();
        let chunk = prefill_rows(self.model.captured.is_some());
        for start in (0..length).step_by(chunk) {
            self.sink.check()?;
            let range = start..(start + chunk).min(length);
            let positions = &prompt.positions;
            let rope = thinker
                .rope([&positions.t, &positions.h, &positions.w].map(|axis| &axis[range.clone()]));
            let output = thinker.forward(&rows.slice(range), &rope, decoding.state());
            accepted.extend(output.accepted.filter(|_| self.request.speech.is_some()));
            logits = values(output.logits);
        }
        self.answer.timings.prefill = self.started.elapsed() - self.answer.timings.prepare;
        self.decode(logits, &prompt, decoding, limit)?;
        Ok((!accepted.is_empty()).then(|| Thought {
            embeds: rows.embeds,
            accepted: Tensor::cat(accepted, 0),
            token_ids: self.answer.token_ids.clone(),
            prompt,
        }))
    }

    /// Samples tokens until the answer ends.
    fn decode(
        &mut self,
        logits: Vec<f32>,
        prompt: &Prompt,
        mut decoding: Decoding<'_>,
        limit: usize,
    ) -> Result<(), Stopped> {
        let model = self.model;
        let mut text = model.processor.tokenizer().stream(true);
        let sampling = self.request.sampling.unwrap_or_else(|| model.sampling());
        let mut sampler = Sampler::new(sampling, Random::new(self.request.seed, THINKER_STAGE));
        sampler.observe(&prompt.ids);
        self.answer.finish_reason = FinishReason::Length;
        let mut next = Next::Scores(logits);
        for step in 0..limit {
            let early = step < self.request.min_tokens;
            let id = match next {
                Next::Token(id) => id,
                Next::Scores(scores) => {
                    finite("the thinker", &scores)?;
                    sampler.sample(scores, |id| !early || !self.ends(id as u32))
                }
            };
            if step == 0 {
                self.answer.timings.first_token = self.started.elapsed();
            }
            self.answer.token_ids.push(id);
            if self.ends(id) {
                self.answer.finish_reason = FinishReason::Stop;
                break;
            }
            self.give(text.push(id))?;
            if step + 1 == limit {
                break;
            }
            self.sink.check()?;
            let len = prompt.ids.len() + step;
            let place = Place {
                token: id,
                len,
                position: prompt.positions.decoded(len),
            };
            let greedy = sampling.is_greedy() && step + 1 >= self.request.min_tokens;
            next = decoding.pass(&model.thinker, place, greedy)?;
        }
        self.give(text.finish())?;
        self.answer.usage.completion_tokens = self.answer.token_ids.len();
        self.answer.timings.decode = self.started.elapsed() - self.answer.timings.first_token;
        Ok(())
    }

    fn give(&mut self, text: Option<String>) -> Result<(), Stopped> {
        if let Some(text) = text {
            self.answer.text.push_str(&text);
            self.sink.send(Event::Text(text))?;
        }
        Ok(())
    }

    fn ends(&self, id: u32) -> bool {
        let also = &self.model.config.generation.eos_token_id;
        id == self.model.ids.im_end || also.as_ref().is_some_and(|ids| ids.contains(&id))
    }

    fn max_tokens(&self, prompt: usize) -> usize {
        let configured = self.model.config.generation.max_new_tokens;
        let wanted = self
            .request
            .max_tokens
            .or(configured)
            .unwrap_or(MAX_NEW_TOKENS);
        wanted.min(self.model.context - prompt)
    }
}

/// The numbers of one row of logits.
pub(crate) fn values(logits: Tensor<2>) -> Vec<f32> {
    logits
        .cast(DType::F32)
        .into_data()
        .try_to_vec()
        .expect("the tensor was cast to f32")
}

/// An error when a stage gave NaN or infinite values, which every choice after them would hide.
pub(crate) fn finite(stage: &'static str, values: &[f32]) -> Result<(), Error> {
    if values.iter().all(|value| value.is_finite()) {
        Ok(())
    } else {
        Err(Error::NotFinite { stage })
    }
}
