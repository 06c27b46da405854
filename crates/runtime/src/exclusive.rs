//! What one answer at a time can have, such as a captured pass with its caches.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, TryLockError};

/// Something that one answer at a time has, and that knows whether another had it since.
#[derive(Debug)]
pub(crate) struct Exclusive<T>(Mutex<Inner<T>>);

#[derive(Debug)]
struct Inner<T> {
    value: T,
    /// How often it was taken.
    ticket: u64,
}

/// It, until this is dropped.
#[derive(Debug)]
pub(crate) struct Taken<'a, T> {
    inner: MutexGuard<'a, Inner<T>>,
    untouched: bool,
}

impl<T> Exclusive<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(Inner { value, ticket: 0 }))
    }

    /// Whether nobody panicked that had it.
    pub(crate) fn is_whole(&self) -> bool {
        !self.0.is_poisoned()
    }

    /// Takes it, unless another answer has it or one panicked that had it. `ticket` is that of whoever wants to go on where it was.
    pub(crate) fn take(&self, ticket: Option<u64>) -> Option<Taken<'_, T>> {
        let mut inner = match self.0.try_lock() {
            Ok(inner) => inner,
            // A panic may have left it without its caches, and it cannot be made anew: captured passes know addresses.
            Err(TryLockError::Poisoned(_) | TryLockError::WouldBlock) => return None,
        };
        let untouched = ticket == Some(inner.ticket);
        inner.ticket += 1;
        Some(Taken { inner, untouched })
    }
}

impl<T> Taken<'_, T> {
    /// Whether nobody had it since the ticket was given out.
    pub(crate) fn is_untouched(&self) -> bool {
        self.untouched
    }

    /// What shows that this was its last use.
    pub(crate) fn ticket(&self) -> u64 {
        self.inner.ticket
    }
}

impl<T> Deref for Taken<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner.value
    }
}

impl<T> DerefMut for Taken<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_until_another_takes_it() {
        let exclusive = Exclusive::new(7);
        let first = exclusive.take(None).unwrap();
        assert!(!first.is_untouched());
        assert!(exclusive.take(None).is_none(), "one at a time");
        let ticket = first.ticket();
        drop(first);
        let again = exclusive.take(Some(ticket)).unwrap();
        assert!(again.is_untouched());
        drop(again);
        assert!(!exclusive.take(Some(ticket)).unwrap().is_untouched());
    }

    #[test]
    fn what_a_panic_left_is_not_used_again() {
        let exclusive = Exclusive::new(7);
        let ticket = exclusive.take(None).unwrap().ticket();
        let panicked = std::thread::scope(|scope| {
            let work = || {
                let _taken = exclusive.take(Some(ticket));
                panic!("out of cheese");
            };
            scope.spawn(work).join().is_err()
        });
        assert!(panicked);
        assert!(!exclusive.is_whole());
        assert!(exclusive.take(None).is_none());
    }
}
