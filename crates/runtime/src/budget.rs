//! Room for the caches of answers that are made at once, and of conversations that wait for their next turn.
//!
//! The memory plan has the caches of one answer. An answer that finds those taken makes its own, and a conversation keeps
//! what its last answer left: both have to fit what the memory limit leaves beside the plan. Where they do not, the
//! conversations that have waited longest give up theirs and pass their prompt again in the next turn; an answer for
//! which that is not enough is refused, unless it is alone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::kept::Kept;
use crate::{Error, MemoryPlan};

/// Room for caches.
#[derive(Debug)]
pub(crate) struct Budget {
    row: RowBytes,
    /// Most bytes that all caches but the captured ones take together.
    limit: u64,
    table: Mutex<Table>,
}

/// Bytes of a row in caches that are not captured.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RowBytes {
    /// Keys and values of the thinker.
    pub(crate) thinker: u64,
    /// Keys and values of the talker.
    pub(crate) talker: u64,
    /// What the talker reads of the thinker's rows.
    pub(crate) accepted: u64,
}

/// Which passes have captured caches, or which of them an answer may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Captures {
    pub(crate) thinker: bool,
    /// Talker and code predictor.
    pub(crate) speech: bool,
}

/// Rows that an answer needs caches for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rows {
    pub(crate) thinker: usize,
    pub(crate) talker: usize,
    /// Rows that the thinker keeps for the talker.
    pub(crate) accepted: usize,
}

#[derive(Debug, Default)]
struct Table {
    /// Answers in the making, their bytes, and which of the captured caches they have.
    answers: usize,
    taken: u64,
    captured: Captures,
    /// What waits, with its bytes, the longest first.
    waiting: BTreeMap<u64, (Kept, u64)>,
    /// Numbers that were given out.
    numbers: u64,
}

impl Budget {
    /// Room without an end.
    pub(crate) fn endless(row: RowBytes) -> Self {
        Self::new(row, u64::MAX)
    }

    /// Room of so many bytes.
    pub(crate) fn new(row: RowBytes, limit: u64) -> Self {
        Self {
            row,
            limit,
            table: Mutex::default(),
        }
    }

    /// The room that a memory limit leaves beside a plan, and what the plan has for caches that are not captured.
    pub(crate) fn of(plan: &MemoryPlan, row: RowBytes, captured: Captures, limit: u64) -> Self {
        let own = |bytes, captured| if captured { 0 } else { bytes };
        let caches =
            own(plan.kv_bytes, captured.thinker) + own(plan.talker_kv_bytes, captured.speech);
        // The rows that one answer keeps for the talker are part of the workspace.
        let accepted = row.accepted * plan.context as u64;
        let spare = limit.saturating_sub(plan.total_bytes);
        Self::new(row, spare + caches + accepted)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // What is inside is whole after every line that changes it.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bytes(&self, rows: Rows) -> u64 {
        let RowBytes {
            thinker,
            talker,
            accepted,
        } = self.row;
        thinker * rows.thinker as u64
            + talker * rows.talker as u64
            + accepted * rows.accepted as u64
    }

    /// Takes room for an answer: captured caches where there are `some` that no other answer has, its own for the rest.
    ///
    /// # Errors
    /// When other answers leave too little. An answer that is alone is never refused: the plan has room for it.
    pub(crate) fn lease(&self, rows: Rows, some: Captures) -> Result<Lease<'_>, Error> {
        let mut table = self.lock();
        let captured = Captures {
            thinker: some.thinker && !table.captured.thinker,
            speech: some.speech && !table.captured.speech,
        };
        let own = Rows {
            thinker: if captured.thinker { 0 } else { rows.thinker },
            talker: if captured.speech { 0 } else { rows.talker },
            accepted: rows.accepted,
        };
        let needed = self.bytes(own);
        let free = self.limit.saturating_sub(table.taken);
        if needed > free && table.answers > 0 {
            return Err(Error::NoRoom { needed, free });
        }
        let given_up = table.give_up(free.saturating_sub(needed));
        table.answers += 1;
        table.taken += needed;
        table.captured.thinker |= captured.thinker;
        table.captured.speech |= captured.speech;
        drop(table);
        drop(given_up);
        Ok(Lease {
            budget: self,
            bytes: needed,
            captured,
        })
    }

    /// Keeps what an answer left until the next turn, or as long as nobody needs the room.
    pub(crate) fn rest(self: &Arc<Self>, kept: Kept) -> Resting {
        let bytes = self.bytes(kept.rows());
        let mut table = self.lock();
        let free = self.limit.saturating_sub(table.taken);
        let mut given_up = table.give_up(free.saturating_sub(bytes));
        table.numbers += 1;
        let number = table.numbers;
        if bytes <= free || table.answers == 0 {
            table.waiting.insert(number, (kept, bytes));
        } else {
            given_up.push(kept);
        }
        drop(table);
        drop(given_up);
        Resting {
            budget: self.clone(),
            number,
        }
    }
}

impl Table {
    /// Takes what has waited longest until the rest of what waits takes no more than `limit` bytes.
    fn give_up(&mut self, limit: u64) -> Vec<Kept> {
        let mut bytes: u64 = self.waiting.values().map(|(_, bytes)| bytes).sum();
        let mut given_up = Vec::new();
        let numbers: Vec<u64> = self.waiting.keys().copied().collect();
        for number in numbers {
            if bytes <= limit {
                break;
            }
            // Rows in captured caches take nothing here.
            let takes = self
                .waiting
                .get(&number)
                .is_some_and(|(_, bytes)| *bytes > 0);
            if let Some((kept, less)) = takes.then(|| self.waiting.remove(&number)).flatten() {
                bytes -= less;
                given_up.push(kept);
            }
        }
        given_up
    }
}

/// The room of an answer in the making, until this is dropped.
#[derive(Debug)]
pub(crate) struct Lease<'a> {
    budget: &'a Budget,
    bytes: u64,
    captured: Captures,
}

impl Lease<'_> {
    /// The captured caches that the answer may use.
    pub(crate) fn captured(&self) -> Captures {
        self.captured
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let mut table = self.budget.lock();
        table.answers -= 1;
        table.taken -= self.bytes;
        table.captured.thinker &= !self.captured.thinker;
        table.captured.speech &= !self.captured.speech;
    }
}

/// What a conversation keeps between two turns.
#[derive(Debug)]
pub(crate) struct Resting {
    budget: Arc<Budget>,
    number: u64,
}

impl Resting {
    /// What was kept; nothing where it was given up.
    pub(crate) fn wake(self) -> Kept {
        let kept = self.budget.lock().waiting.remove(&self.number);
        kept.map(|(kept, _)| kept).unwrap_or_default()
    }
}

impl Drop for Resting {
    fn drop(&mut self) {
        let kept = self.budget.lock().waiting.remove(&self.number);
        drop(kept);
    }
}

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;
