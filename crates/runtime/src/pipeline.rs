//! A request from prompt to answer: three loops, each on a thread of its own, joined by bounded channels.
//!
//! The thinker hands its prompt and then every token to the talker ([`Said`]), the talker every frame to code2wav
//! ([`Spoken`]); text and samples go to the reader as they are made. A loop that ends before it is done ends the others:
//! it says so to all before their next unit of work, and its channels close, so that nobody waits for it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Instant;

use burn::tensor::Tensor;
use burn_omni_model::processor::{Prompt, TextStream};

use crate::budget::Captures;
use crate::kept::Kept;
use crate::progress::Progress;
use crate::schedule::Stage;
use crate::sound::Sound;
use crate::stages::Stages;
use crate::stream::{Sink, Stopped, describe};
use crate::talk::{Talking, Voice};
use crate::think::Thinking;
use crate::turns::{Answering, Turns};
use crate::{Answer, Error, Request, SpeechRequest, threads};

/// Tokens that the thinker may be ahead of the talker: as many as the reference ever speaks.
const TOKENS_AHEAD: usize = 4096;
/// Frames that the talker may be ahead of code2wav, which collects those of a packet itself.
const FRAMES_AHEAD: usize = 32;

/// One request being answered.
pub(crate) struct Job<'a> {
    pub(crate) stages: &'a Stages,
    pub(crate) turns: &'a Turns,
    pub(crate) request: &'a Request,
    pub(crate) sink: &'a Sink,
    pub(crate) progress: &'a Progress,
    /// When it was asked.
    pub(crate) started: Instant,
    /// The captured caches that it may use.
    pub(crate) captured: Captures,
}

/// What is answered.
pub(crate) struct Question {
    pub(crate) prompt: Arc<Prompt>,
    /// Tokens to text, where somebody reads it.
    pub(crate) text: Option<TextStream>,
}

/// What the thinker tells the talker.
pub(crate) enum Said {
    /// The prompt, once it has passed.
    Heard(Box<Heard>),
    /// A token that another one follows: the last token of an answer is never spoken.
    Token(u32),
    /// The token before was the last that is spoken.
    End,
}

/// The thinker's prompt.
pub(crate) struct Heard {
    pub(crate) prompt: Arc<Prompt>,
    /// Input embeddings, `[prompt, hidden]`.
    pub(crate) embeds: Tensor<2>,
    /// Accepted hidden rows, `[prompt, hidden]`.
    pub(crate) accepted: Tensor<2>,
}

/// What the talker tells code2wav.
pub(crate) enum Spoken {
    /// The codes of a frame.
    Frame(Vec<u32>),
    /// The frame before was the last.
    End,
}

impl Job<'_> {
    /// Answers, and leaves in `kept` what the next answer of a conversation goes on behind.
    pub(crate) fn run(&self, question: Question, kept: &mut Kept) -> Result<Answer, Stopped> {
        let speech = self.request.speech.as_ref();
        let answering = self.turns.answer(speech.map(|speech| speech.first_chunk));
        let mut answer = match speech {
            None => self.guard(Stage::Thinker, || {
                let seat = answering.seat(Stage::Thinker, self.sink);
                Thinking::new(self, &seat, None, &mut kept.thinker).think(question)
            })?,
            Some(speech) => self.speak(question, speech, (&answering, kept))?,
        };
        answer.timings.total = self.started.elapsed();
        Ok(answer)
    }

    /// Answers in text and in speech.
    fn speak(
        &self,
        question: Question,
        speech: &SpeechRequest,
        (answering, kept): (&Answering<'_>, &mut Kept),
    ) -> Result<Answer, Stopped> {
        self.progress.speaks();
        let Kept { thinker, talker } = kept;
        let voice = Voice::new(self.stages, speech)?;
        let (says, said) = sync_channel(TOKENS_AHEAD);
        let (speaks, spoken) = sync_channel(FRAMES_AHEAD);
        let (thought, talked, sounded) = thread::scope(|scope| {
            let talks = move || {
                self.guard(Stage::Talker, || {
                    let seat = answering.seat(Stage::Talker, self.sink);
                    Talking::new(self, &seat, voice, speaks).talk(&said, talker)
                })
            };
            let sounds = move || {
                self.guard(Stage::Code2Wav, || {
                    let seat = answering.seat(Stage::Code2Wav, self.sink);
                    Sound::new(self, &seat, speech).sound(&spoken)
                })
            };
            let talker = start(scope, "talker", talks);
            let code2wav = start(scope, "code2wav", sounds);
            if talker.is_err() || code2wav.is_err() {
                self.sink.stop();
            }
            let thought = self.guard(Stage::Thinker, || {
                let seat = answering.seat(Stage::Thinker, self.sink);
                Thinking::new(self, &seat, Some(says), thinker).think(question)
            });
            let joined = "panics of a loop are caught in it";
            (
                thought,
                talker.and_then(|talker| talker.join().expect(joined)),
                code2wav.and_then(|code2wav| code2wav.join().expect(joined)),
            )
        });
        let (mut answer, talked, sounded) = first_failure(thought, talked, sounded)?;
        answer.timings.talker = talked.busy;
        answer.timings.code2wav = sounded.busy;
        answer.timings.first_audio = sounded.first;
        answer.usage.audio_frames = talked.speech.codes.len();
        let mut speech = talked.speech;
        speech.samples = sounded.samples;
        answer.speech = Some(speech);
        Ok(answer)
    }

    /// Runs a loop on its queue of the device. When it fails, the others end before their next unit of work.
    fn guard<T>(
        &self,
        stage: Stage,
        work: impl FnOnce() -> Result<T, Stopped>,
    ) -> Result<T, Stopped> {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.stages.on_queue(work)));
        let outcome = outcome.unwrap_or_else(|panic| {
            Err(Error::stage(stage.name(), describe(panic.as_ref())).into())
        });
        if outcome.is_err() {
            self.sink.stop();
        }
        outcome
    }
}

/// Starts a loop's thread; where the system has none left, the loop never was.
fn start<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> Result<T, Stopped> + Send + 'scope,
) -> Result<thread::ScopedJoinHandle<'scope, Result<T, Stopped>>, Stopped> {
    let started = threads::named(name).spawn_scoped(scope, work);
    started.map_err(|cause| Stopped::Failed(threads::refused(cause)))
}

/// What all loops did; else what went wrong, and not that the others ended for it.
fn first_failure<A, B>(
    thought: Result<Answer, Stopped>,
    talked: Result<A, Stopped>,
    sounded: Result<B, Stopped>,
) -> Result<(Answer, A, B), Stopped> {
    match (thought, talked, sounded) {
        (Ok(thought), Ok(talked), Ok(sounded)) => Ok((thought, talked, sounded)),
        (Err(Stopped::Failed(error)), ..)
        | (_, Err(Stopped::Failed(error)), _)
        | (.., Err(Stopped::Failed(error))) => Err(Stopped::Failed(error)),
        _ => Err(Stopped::Cancelled),
    }
}

#[cfg(test)]
#[path = "pipeline_tests.rs"]
mod tests;
