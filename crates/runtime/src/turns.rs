//! Turns at the device: every loop asks for one before each unit of work.
//!
//! A GPU does one thing at a time, so there a loop waits until [`Schedule`] chooses it. On the CPU all run at once. A turn
//! ends with its unit of work, and no loop waits for anything else while it has one, so every wait ends. A device works on
//! behind the host: most units end with numbers that are read back, and the turn of one that does not waits for the device,
//! so that no other loop pays for it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::schedule::{Candidate, Schedule, Stage};
use crate::stream::{Cancelled, Sink, Stopped};
use crate::{Error, Event};

/// How long a free device waits for a loop that comes first and is between two units of work.
const GRACE: Duration = Duration::from_micros(300);

/// Waits until the device has done what was queued; else gives what it said.
type Wait = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The turns at one device.
pub(crate) struct Turns {
    wait: Wait,
    /// Where the device is shared.
    arbiter: Option<Arbiter>,
    /// What was done when, where somebody wants to know.
    record: Option<Mutex<Vec<Span>>>,
    /// Asked before every unit of work.
    #[cfg(test)]
    pub(crate) probe: Option<Probe>,
}

/// What a test does before a unit of work.
#[cfg(test)]
pub(crate) type Probe = Box<dyn Fn(Stage) -> Result<(), Error> + Send + Sync>;

/// A unit of work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) stage: Stage,
    pub(crate) start: Instant,
    pub(crate) end: Instant,
}

impl std::fmt::Debug for Turns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turns")
            .field("shared", &self.arbiter.is_some())
            .finish_non_exhaustive()
    }
}

impl Turns {
    /// The turns at a device on which loops wait for one another, or do not; `wait` waits until it has done what was queued.
    pub(crate) fn new(
        shared: bool,
        wait: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            wait: Box::new(wait),
            arbiter: shared.then(Arbiter::new),
            record: None,
            #[cfg(test)]
            probe: None,
        }
    }

    /// The same with a record of what was done.
    pub(crate) fn recorded(mut self) -> Self {
        self.record = Some(Mutex::default());
        self
    }

    /// Takes what was done so far.
    pub(crate) fn take_record(&self) -> Vec<Span> {
        let record = self.record.as_ref();
        record.map_or_else(Vec::new, |spans| std::mem::take(&mut *lock(spans)))
    }

    /// A new answer, spoken in packets whose first has so many frames.
    pub(crate) fn answer(&self, first_packet: Option<usize>) -> Answering<'_> {
        let number = self
            .arbiter
            .as_ref()
            .map_or(0, |arbiter| arbiter.begin(first_packet));
        Answering {
            turns: self,
            number,
        }
    }
}

/// An answer in the making.
pub(crate) struct Answering<'a> {
    turns: &'a Turns,
    number: u64,
}

impl Answering<'_> {
    /// The seat of one of its loops.
    pub(crate) fn seat<'a>(&'a self, stage: Stage, sink: &'a Sink) -> Seat<'a> {
        let arbiter = self.turns.arbiter.as_ref();
        Seat {
            turns: self.turns,
            sink,
            stage,
            answer: self.number,
            key: arbiter.map_or(0, |arbiter| arbiter.sit(self.number, stage)),
            busy: Cell::default(),
        }
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        if let Some(arbiter) = &self.turns.arbiter {
            arbiter.lock().schedule.end(self.number);
        }
    }
}

/// Where a loop asks for its turns.
pub(crate) struct Seat<'a> {
    turns: &'a Turns,
    sink: &'a Sink,
    stage: Stage,
    answer: u64,
    key: u64,
    busy: Cell<Duration>,
}

impl Seat<'_> {
    /// Whether somebody listens to a speech that has to share the device with this work.
    pub(crate) fn is_beside_speech(&self) -> bool {
        let arbiter = self.turns.arbiter.as_ref();
        arbiter.is_some_and(|arbiter| arbiter.lock().schedule.is_heard())
    }

    /// Does a unit of work when it is its turn, unless the answer is no longer wanted. The work must not wait for another
    /// loop or for the reader, and it ends with numbers that it reads from the device: see [`Self::turn_until_done`].
    pub(crate) fn turn<T>(&self, work: impl FnOnce() -> T) -> Result<T, Stopped> {
        self.turn_of(0, work)
    }

    /// The same for work that only queues on the device: the turn ends when the device has done it.
    pub(crate) fn turn_until_done<T>(&self, work: impl FnOnce() -> T) -> Result<T, Stopped> {
        let (queued, done) = self.turn(|| (work(), (self.turns.wait)()))?;
        done.map_err(|cause| Error::stage(self.stage.name(), cause))?;
        Ok(queued)
    }

    /// The same as [`Self::turn`] for work that so many frames are made or decoded in.
    pub(crate) fn turn_of<T>(&self, frames: usize, work: impl FnOnce() -> T) -> Result<T, Stopped> {
        self.sink.check()?;
        #[cfg(test)]
        if let Some(probe) = &self.turns.probe {
            probe(self.stage)?;
            self.sink.check()?;
        }
        let arbiter = self.turns.arbiter.as_ref();
        let turn = arbiter.map(|arbiter| arbiter.take(self.key, frames));
        // It may have been a long wait.
        self.sink.check()?;
        let start = Instant::now();
        let done = work();
        let end = Instant::now();
        drop(turn);
        self.busy.set(self.busy.get() + (end - start));
        if let Some(record) = &self.turns.record {
            let stage = self.stage;
            lock(record).push(Span { stage, start, end });
        }
        Ok(done)
    }

    /// Waits for another loop or the reader; nobody waits for this loop meanwhile.
    fn away<T>(&self, wait: impl FnOnce() -> T) -> T {
        let Some(arbiter) = &self.turns.arbiter else {
            return wait();
        };
        arbiter.set(self.key, Mode::Away);
        let got = wait();
        arbiter.set(self.key, Mode::Between);
        got
    }

    /// Hands something to another loop.
    pub(crate) fn send<T>(&self, to: &SyncSender<T>, value: T) -> Result<(), Cancelled> {
        match to.try_send(value) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(value)) => {
                let sent = self.away(|| to.send(value));
                sent.map_err(|_| Cancelled)
            }
            Err(TrySendError::Disconnected(_)) => Err(Cancelled),
        }
    }

    /// Takes what another loop hands over.
    pub(crate) fn receive<T>(&self, from: &Receiver<T>) -> Result<T, Cancelled> {
        let waiting = from.try_recv();
        let received = waiting.or_else(|_| self.away(|| from.recv()));
        received.map_err(|_| Cancelled)
    }

    /// Gives something to the reader.
    pub(crate) fn give(&self, event: Event) -> Result<(), Cancelled> {
        match self.sink.offer(event)? {
            None => Ok(()),
            Some(event) => self.away(|| self.sink.send(event)),
        }
    }

    /// Says that samples of so many frames were given out, and how many frames the next packet has.
    pub(crate) fn gave(&self, frames: usize, packet: usize) {
        if let Some(arbiter) = &self.turns.arbiter {
            let now = arbiter.now();
            let mut table = arbiter.lock();
            table.schedule.gave(self.answer, frames, packet, now);
        }
    }

    /// The time of all its units of work.
    pub(crate) fn busy(&self) -> Duration {
        self.busy.get()
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        if let Some(arbiter) = &self.turns.arbiter {
            arbiter.lock().seats.remove(&self.key);
            arbiter.changed.notify_all();
        }
    }
}

/// Gives the turns at a shared device.
struct Arbiter {
    table: Mutex<Table>,
    changed: Condvar,
    began: Instant,
}

#[derive(Default)]
struct Table {
    schedule: Schedule,
    seats: BTreeMap<u64, Taken>,
    /// Who has its turn.
    holder: Option<u64>,
    /// When the device was last given back.
    free_since: Duration,
    /// Numbers that were given out.
    numbers: u64,
}

/// A seat that is taken.
struct Taken {
    candidate: Candidate,
    mode: Mode,
}

/// What a loop does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// It waits for another loop or for the reader.
    Away,
    /// It is about to ask for its turn.
    Between,
    /// It asked.
    Waiting,
}

/// A turn; it ends when this is dropped.
struct Turn<'a> {
    arbiter: &'a Arbiter,
    key: u64,
    frames: usize,
    start: Duration,
}

impl Arbiter {
    fn new() -> Self {
        Self {
            table: Mutex::default(),
            changed: Condvar::new(),
            began: Instant::now(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// The number of a new answer.
    fn begin(&self, first_packet: Option<usize>) -> u64 {
        let mut table = self.lock();
        table.numbers += 1;
        let number = table.numbers;
        if let Some(packet) = first_packet {
            table.schedule.speak(number, packet);
        }
        number
    }

    /// The key of a new seat; nothing is waited for until it first asks for its turn.
    fn sit(&self, answer: u64, stage: Stage) -> u64 {
        let mut table = self.lock();
        table.numbers += 1;
        let key = table.numbers;
        let candidate = Candidate {
            answer,
            stage,
            since: self.now(),
        };
        let mode = Mode::Away;
        table.seats.insert(key, Taken { candidate, mode });
        key
    }

    fn set(&self, key: u64, mode: Mode) {
        let now = self.now();
        if let Some(seat) = self.lock().seats.get_mut(&key) {
            seat.mode = mode;
            seat.candidate.since = now;
        }
        self.changed.notify_all();
    }

    /// Waits for the turn of a seat.
    fn take(&self, key: u64, frames: usize) -> Turn<'_> {
        self.set(key, Mode::Waiting);
        let mut table = self.lock();
        loop {
            if table.holder.is_some() {
                table = self
                    .changed
                    .wait(table)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let now = self.now();
            let patience = (table.free_since + GRACE).checked_sub(now);
            if table.next(now, patience.is_some()) == Some(key) {
                table.holder = Some(key);
                return Turn {
                    arbiter: self,
                    key,
                    frames,
                    start: now,
                };
            }
            // Somebody comes first: it has its turn soon, or its time to come is over.
            let limit = patience.unwrap_or(GRACE).max(Duration::from_micros(1));
            let waited = self.changed.wait_timeout(table, limit);
            table = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Table {
    /// Who comes next; with `patience` it may be one who has not asked yet.
    fn next(&self, now: Duration, patience: bool) -> Option<u64> {
        let wants = |mode| mode == Mode::Waiting || (patience && mode == Mode::Between);
        let seats = self.seats.iter().filter(|(_, seat)| wants(seat.mode));
        let candidates = seats.map(|(key, seat)| (*key, seat.candidate));
        self.schedule.choose(candidates, now)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let now = self.arbiter.now();
        let mut table = self.arbiter.lock();
        table.holder = None;
        table.free_since = now;
        let thinking = table.seats.iter().any(|(key, seat)| {
            let thinks = seat.candidate.stage == Stage::Thinker;
            thinks && *key != self.key && seat.mode != Mode::Away
        });
        if let Some(seat) = table.seats.get_mut(&self.key) {
            seat.mode = Mode::Between;
            seat.candidate.since = now;
            let candidate = seat.candidate;
            let took = now.saturating_sub(self.start);
            table.schedule.did(candidate, took, self.frames, thinking);
        }
        drop(table);
        self.arbiter.changed.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is inside is whole after every line that changes it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "turns_tests.rs"]
mod tests;
