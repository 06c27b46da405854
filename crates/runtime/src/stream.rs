//! An answer in the making.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::{Error, Event, threads};

/// Events that wait for the reader before the work pauses.
const WAITING: usize = 64;

/// The events of an answer, as they are made. Dropping it ends the work within one step.
///
/// Work goes on while up to 64 events wait to be read, and those of an answer that has ended can be read as long as the
/// stream is there.
#[derive(Debug)]
pub struct Stream {
    events: Option<Receiver<Result<Event, Error>>>,
    cancel: Arc<AtomicBool>,
    worker: Option<JoinHandle<()>>,
    read: Option<Arc<Mutex<Read>>>,
    #[cfg_attr(
        not(feature = "futures"),
        expect(dead_code, reason = "only futures are woken")
    )]
    bell: Arc<Bell>,
}

/// Wakes a reader that does not wait.
#[derive(Debug, Default)]
struct Bell(Mutex<Option<Waker>>);

impl Bell {
    /// Wakes this reader at the next event or at the end.
    #[cfg(feature = "futures")]
    fn set(&self, waker: &Waker) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
    }

    fn ring(&self) {
        let waker = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Rings when the worker is gone and no event can come.
struct AtEnd(Arc<Bell>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        self.0.ring();
    }
}

/// What a reader took.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub(crate) text: String,
    /// Whether it took the end of the answer.
    ended: bool,
    /// Whether it left before that.
    pub(crate) left: bool,
}

/// The worker's end of a stream.
pub(crate) struct Sink {
    events: SyncSender<Result<Event, Error>>,
    cancel: Arc<AtomicBool>,
    bell: Arc<Bell>,
}

/// The reader is gone, or another loop ended.
#[derive(Debug)]
pub(crate) struct Cancelled;

impl Sink {
    /// A sink and what comes out of it, without a worker.
    pub(crate) fn channel() -> (Self, Receiver<Result<Event, Error>>) {
        let (events, receiver) = sync_channel(WAITING);
        let (cancel, bell) = (Arc::default(), Arc::default());
        let sink = Self {
            events,
            cancel,
            bell,
        };
        (sink, receiver)
    }

    /// Gives an event out; waits while the reader is behind.
    pub(crate) fn send(&self, event: Event) -> Result<(), Cancelled> {
        self.events.send(Ok(event)).map_err(|_| Cancelled)?;
        self.bell.ring();
        Ok(())
    }

    /// The same without waiting: gives the event back where the reader is behind.
    pub(crate) fn offer(&self, event: Event) -> Result<Option<Event>, Cancelled> {
        match self.events.try_send(Ok(event)) {
            Ok(()) => {
                self.bell.ring();
                Ok(None)
            }
            Err(TrySendError::Full(event)) => Ok(event.ok()),
            Err(TrySendError::Disconnected(_)) => Err(Cancelled),
        }
    }

    /// Ends the work before its next step, for another reason than that the reader is gone.
    pub(crate) fn stop(&self) {
        self.cancel.store(true, Ordering::Relaxed);
    }

    /// Whether the answer is still wanted; asked before every step.
    pub(crate) fn check(&self) -> Result<(), Cancelled> {
        if self.cancel.load(Ordering::Relaxed) {
            Err(Cancelled)
        } else {
            Ok(())
        }
    }
}

/// How work ends before it is done.
#[derive(Debug)]
pub(crate) enum Stopped {
    Cancelled,
    Failed(Error),
}

impl From<Cancelled> for Stopped {
    fn from(_: Cancelled) -> Self {
        Self::Cancelled
    }
}

impl<E: Into<Error>> From<E> for Stopped {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Stream {
    /// Runs `work` on a thread of its own. Where there is none, it is dropped.
    pub(crate) fn spawn(
        work: impl FnOnce(&Sink) -> Result<(), Stopped> + Send + 'static,
    ) -> Result<Self, Error> {
        let (sink, events) = Sink::channel();
        let (cancel, bell) = (sink.cancel.clone(), sink.bell.clone());
        let worker = threads::named("answer").spawn(move || {
            // Dropped in the order of their making turned round: the sink goes before the bell rings.
            let _end = AtEnd(sink.bell.clone());
            let sink = sink;
            let outcome = catch_unwind(AssertUnwindSafe(|| work(&sink)));
            let error = match outcome {
                Ok(Ok(()) | Err(Stopped::Cancelled)) => return,
                Ok(Err(Stopped::Failed(error))) => error,
                Err(panic) => Error::stage("generation", describe(panic.as_ref())),
            };
            // The reader may be gone, and then nobody wants to know.
            let _ = sink.events.send(Err(error));
        });
        Ok(Self {
            events: Some(events),
            cancel,
            worker: Some(worker.map_err(threads::refused)?),
            read: None,
            bell,
        })
    }

    /// The same with a record of what the reader takes.
    pub(crate) fn read_by(mut self, read: Arc<Mutex<Read>>) -> Self {
        self.read = Some(read);
        self
    }

    fn note(&self, event: &Result<Event, Error>) {
        let Some(read) = &self.read else {
            return;
        };
        let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Ok(Event::Text(text)) => read.text.push_str(text),
            Ok(Event::Done(_)) => read.ended = true,
            Ok(Event::Audio(_)) | Err(_) => {}
        }
    }
}

impl Stream {
    /// The next event if it comes within `limit`, so that a reader can look at other things while it waits.
    pub fn next_within(&mut self, limit: Duration) -> Poll<Option<Result<Event, Error>>> {
        let Some(events) = &self.events else {
            return Poll::Ready(None);
        };
        match events.recv_timeout(limit) {
            Ok(event) => {
                self.note(&event);
                Poll::Ready(Some(event))
            }
            Err(RecvTimeoutError::Timeout) => Poll::Pending,
            Err(RecvTimeoutError::Disconnected) => Poll::Ready(None),
        }
    }
}

/// What a panic said.
pub(crate) fn describe(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "unknown cause".into())
}

impl Iterator for Stream {
    type Item = Result<Event, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let event = self.events.as_ref()?.recv().ok()?;
        self.note(&event);
        Some(event)
    }
}

/// Events for executors of futures. What waits is woken by the loops; dropping it still waits for the step at hand.
#[cfg(feature = "futures")]
impl futures_core::Stream for Stream {
    type Item = Result<Event, Error>;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> Poll<Option<Self::Item>> {
        let stream = self.get_mut();
        // Whoever rings after this wakes the reader, and whatever came before is seen below.
        stream.bell.set(context.waker());
        stream.next_within(Duration::ZERO)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(read) = &self.read {
            let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
            read.left = !read.ended;
        }
        self.cancel.store(true, Ordering::Relaxed);
        // The channel closes first, so that a worker that waits for its reader wakes up.
        self.events = None;
        if let Some(worker) = self.worker.take() {
            // A panic was already reported as an event.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropping_a_stream_ends_a_worker_that_waits_for_its_reader() {
        let (done, finished) = sync_channel(1);
        let mut stream = Stream::spawn(move |sink| {
            let outcome = (0..).try_for_each(|i| sink.send(Event::Text(format!("{i}"))));
            done.send(outcome.is_err()).expect("the test waits");
            Ok(outcome?)
        })
        .expect("there are threads");
        assert!(matches!(stream.next(), Some(Ok(Event::Text(text))) if text == "0"));
        drop(stream);
        assert!(finished.recv().unwrap());
    }

    #[test]
    fn a_reader_need_not_wait() {
        let (go, wait) = sync_channel::<()>(0);
        let mut stream = Stream::spawn(move |sink| {
            let _ = wait.recv();
            Ok(sink.send(Event::Text("late".into()))?)
        })
        .expect("there are threads");
        assert!(stream.next_within(Duration::from_millis(1)).is_pending());
        go.send(()).unwrap();
        let long = Duration::from_secs(60);
        let event = stream.next_within(long);
        assert!(matches!(event, Poll::Ready(Some(Ok(Event::Text(text)))) if text == "late"));
        assert!(matches!(stream.next_within(long), Poll::Ready(None)));
    }

    #[test]
    fn errors_and_panics_reach_the_reader_once() {
        let failed = Stream::spawn(|_| Err(Error::EmptyRequest.into()));
        let mut failed = failed.expect("there are threads");
        assert!(matches!(failed.next(), Some(Err(Error::EmptyRequest))));
        assert!(failed.next().is_none());
        let panicked = Stream::spawn(|_| panic!("out of cheese"));
        let mut panicked = panicked.expect("there are threads");
        assert_eq!(
            panicked.next().unwrap().unwrap_err().to_string(),
            "generation failed: out of cheese"
        );
        assert!(panicked.next().is_none());
    }
}
