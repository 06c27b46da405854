//! A conversation of several turns.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use burn_omni_model::processor::{Message, Role};

use crate::engine::Asking;
use crate::kept::Kept;
use crate::progress::Progress;
use crate::request::Media;
use crate::stream::Read;
use crate::{Engine, Error, Event, Request, Stream};

/// A conversation with a model: what was said before is part of every request, and the rows that the model has of it are
/// kept, so that only what is new in a turn passes the model, and every medium is prepared once.
///
/// What the assistant said is what the reader took from the [`Stream`]: an answer that is dropped ends where it was read,
/// or, when [`Self::heard`] says so, where it was heard. A question whose answer was not read at all is forgotten with it.
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
    kept: Kept,
    /// Whether an answer is in the making.
    busy: bool,
}

/// The last turn, whose answer is not yet part of the messages.
#[derive(Debug)]
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
    /// # Errors
    /// As [`Engine::generate`], and while the last answer is still being made.
    pub fn send(&mut self, mut request: Request) -> Result<Stream, Error> {
        self.engine.accepts(&request)?;
        self.settle()?;
        let mut shared = lock(&self.shared);
        let messages = std::mem::take(&mut request.conversation.messages);
        let before = shared.messages.iter().cloned();
        request.conversation.messages = before.chain(messages).collect();
        shared.busy = true;
        drop(shared);
        let read = Arc::<Mutex<Read>>::default();
        let progress = Arc::<Progress>::default();
        self.turn = Some(Turn {
            read: read.clone(),
            progress: progress.clone(),
            heard: None,
        });
        let (engine, shared) = (self.engine.clone(), self.shared.clone());
        let started = Instant::now();
        let stream = Stream::spawn(move |sink| {
            let mut work = Work::new(&shared);
            let asking = Asking {
                sink,
                started,
                progress: &progress,
            };
            let (question, conversation) = engine.read(&mut request)?;
            lock(&shared).asked = Some(conversation);
            let answer = engine.answer(&request, asking, question, &mut work.kept)?;
            // The next turn can be asked as soon as the end of this one is known.
            drop(work);
            Ok(sink.send(Event::Done(Box::new(answer)))?)
        });
        Ok(stream.read_by(read))
    }

    /// Says how many samples of the last answer were played before it was interrupted: of its text only what they can have
    /// told stays in the conversation. Drop the stream first.
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
        self.settle()?;
        Ok(&self.last)
    }

    /// Makes the last turn part of the messages.
    fn settle(&mut self) -> Result<(), Error> {
        let mut shared = lock(&self.shared);
        if shared.busy {
            return Err(Error::Busy);
        }
        let Some(turn) = self.turn.take() else {
            return Ok(());
        };
        let asked = shared.asked.take();
        self.last = match turn.heard {
            None => lock(&turn.read).text.clone(),
            Some(samples) => self.engine.text(turn.progress.far().heard(samples)),
        };
        // Two questions in a row are no conversation.
        if let Some(mut messages) = asked.filter(|_| !self.last.is_empty()) {
            messages.push(Message::text(Role::Assistant, self.last.clone()));
            shared.messages = messages;
        }
        Ok(())
    }
}

/// An answer in the making: what is kept, until it is done or given up.
struct Work<'a> {
    shared: &'a Mutex<Shared>,
    kept: Kept,
}

impl<'a> Work<'a> {
    fn new(shared: &'a Mutex<Shared>) -> Self {
        let kept = std::mem::take(&mut lock(shared).kept);
        Self { shared, kept }
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        let mut shared = lock(self.shared);
        shared.kept = std::mem::take(&mut self.kept);
        shared.busy = false;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "conversation_tests.rs"]
mod tests;
