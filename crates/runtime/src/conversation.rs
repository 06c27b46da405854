//! A conversation of several turns.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use burn_omni_model::processor::{Message, Role};

use crate::budget::{Budget, Resting};
use crate::engine::Asking;
use crate::kept::Kept;
use crate::progress::Progress;
use crate::request::Media;
use crate::stream::Read;
use crate::{Answer, Engine, Error, Event, Request, Stream};

/// A conversation with a model: what was said before is part of every request, and the rows that the model has of it are
/// kept, so that only what is new in a turn passes the model, and every medium is prepared once. Where a memory limit
/// leaves no room for the rows while other answers are made, they are given up, and the next turn passes all of them.
///
/// An answer that has ended is part of the conversation as a whole, whether its events were read yet or not. One whose
/// [`Stream`] is dropped before its last event was read ends where it was read, or, when [`Self::heard`] says so, where it
/// was heard. A question whose answer is empty then is forgotten with it.
///
/// ```no_run
/// use burn_omni::{Content, Device, Engine, EngineConfig, Event, Request};
///
/// let engine = Engine::load(EngineConfig::new("assets/omni-demo").device(Device::flex()))?;
/// let mut conversation = engine.conversation();
/// for question in ["What is three plus four?", "Count from 2 to 6."] {
///     let request = Request::new().user([Content::text(question)]);
///     for event in conversation.send(request)? {
///         if let Event::Text(delta) = event? {
///             print!("{delta}");
///         }
///     }
/// }
/// # Ok::<(), burn_omni::Error>(())
/// ```
#[derive(Debug)]
pub struct Conversation {
    engine: Engine,
    shared: Arc<Mutex<Shared>>,
    turn: Option<Turn>,
    /// What the assistant said last.
    last: String,
}

/// What a conversation and its answer in the making both know.
#[derive(Debug, Default)]
struct Shared {
    /// Those up to the last answer.
    messages: Vec<Message<Media>>,
    /// The same with the question that is being answered, once it is read.
    asked: Option<Vec<Message<Media>>>,
    /// The answer to it, once it has ended.
    whole: Option<String>,
    kept: Option<Resting>,
    /// Whether an answer is in the making.
    busy: bool,
}

/// The last turn, whose answer is not yet part of the messages.
#[derive(Debug, Default)]
struct Turn {
    read: Arc<Mutex<Read>>,
    progress: Arc<Progress>,
    /// Samples that were heard.
    heard: Option<usize>,
}

impl Conversation {
    pub(crate) fn new(engine: Engine) -> Self {
        Self {
            engine,
            shared: Arc::default(),
            turn: None,
            last: String::new(),
        }
    }

    /// Asks something: the messages of the request follow those of the conversation. Its settings hold for this turn alone.
    ///
    /// The last answer has to have ended, or its stream to be dropped. Events of it that were not read yet can still be read.
    ///
    /// # Errors
    /// As [`Engine::generate`], and while the last answer is still being made.
    pub fn send(&mut self, mut request: Request) -> Result<Stream, Error> {
        self.engine.accepts(&request)?;
        self.settle()?;
        let messages = std::mem::take(&mut request.conversation.messages);
        let before = lock(&self.shared).messages.clone();
        request.conversation.messages = before.into_iter().chain(messages).collect();
        let turn = Turn::default();
        let (read, progress) = (turn.read.clone(), turn.progress.clone());
        let engine = self.engine.clone();
        let mut work = Work::begin(&self.shared, engine.budget());
        let started = Instant::now();
        let stream = Stream::spawn(move |sink| {
            let asking = Asking {
                sink,
                started,
                progress: &progress,
            };
            let (question, conversation) = engine.read(&mut request)?;
            lock(&work.shared).asked = Some(conversation);
            let answer = engine.answer(&request, asking, question, &mut work.kept)?;
            // The next turn can be asked as soon as the end of this one is known.
            work.end(&answer);
            Ok(sink.send(Event::Done(Box::new(answer)))?)
        })?;
        self.turn = Some(turn);
        Ok(stream.read_by(read))
    }

    /// Says how many samples of the last answer were played before it was interrupted: of its text only what they can have
    /// told stays in the conversation. Drop the stream first; after the next turn was asked it says nothing of this one.
    ///
    /// Speech does not say which token a sample belongs to. Where the whole speech was made its frames share the tokens
    /// evenly; else a frame tells a token, which is the most that it can.
    pub fn heard(&mut self, samples: usize) {
        if let Some(turn) = &mut self.turn {
            turn.heard = Some(samples);
        }
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// While the last answer is still being made.
    pub fn reset(&mut self) -> Result<(), Error> {
        self.settle()?;
        *lock(&self.shared) = Shared::default();
        self.last.clear();
        Ok(())
    }

    /// What the assistant said last, as the next turn will know it; empty where the last turn was forgotten.
    ///
    /// # Errors
    /// While the last answer is still being made.
    pub fn last_answer(&mut self) -> Result<&str, Error> {
        let shared = lock(&self.shared);
        if shared.busy {
            return Err(Error::Busy);
        }
        if let Some(turn) = &self.turn {
            self.last = turn.said(&self.engine, shared.whole.as_deref());
        }
        drop(shared);
        Ok(&self.last)
    }

    /// Makes the last turn part of the messages.
    fn settle(&mut self) -> Result<(), Error> {
        self.last_answer()?;
        if self.turn.take().is_some() {
            let mut shared = lock(&self.shared);
            shared.whole = None;
            // Two questions in a row are no conversation.
            let asked = shared.asked.take();
            if let Some(mut messages) = asked.filter(|_| !self.last.is_empty()) {
                messages.push(Message::text(Role::Assistant, self.last.clone()));
                shared.messages = messages;
            }
        }
        Ok(())
    }
}

impl Turn {
    /// What the assistant said in it; `whole` is its answer, where that has ended.
    fn said(&self, engine: &Engine, whole: Option<&str>) -> String {
        if let Some(samples) = self.heard {
            return engine.text(self.progress.far().heard(samples));
        }
        let read = lock(&self.read);
        let whole = whole.filter(|_| !read.left);
        whole.unwrap_or(&read.text).to_owned()
    }
}

/// An answer in the making: what is kept, until it is done, given up or was never begun.
struct Work {
    shared: Arc<Mutex<Shared>>,
    budget: Arc<Budget>,
    kept: Kept,
}

impl Work {
    fn begin(shared: &Arc<Mutex<Shared>>, budget: &Arc<Budget>) -> Self {
        let mut now = lock(shared);
        now.busy = true;
        let kept = now.kept.take().map(Resting::wake);
        drop(now);
        Self {
            shared: shared.clone(),
            budget: budget.clone(),
            kept: kept.unwrap_or_default(),
        }
    }

    /// The answer has ended.
    fn end(self, answer: &Answer) {
        lock(&self.shared).whole = Some(answer.text.clone());
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let kept = self.budget.rest(std::mem::take(&mut self.kept));
        let mut shared = lock(&self.shared);
        shared.kept = Some(kept);
        shared.busy = false;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "conversation_tests.rs"]
mod tests;
