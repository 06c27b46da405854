//! Threads of answers: where the system gives none, that is an error of the answer and no panic.

use std::io;
use std::thread::Builder;

use crate::Error;

/// What a thread of this name is started with.
pub(crate) fn named(name: &str) -> Builder {
    let builder = Builder::new().name(name.into());
    #[cfg(test)]
    if tests::are_refused() {
        // No machine has so much room.
        return builder.stack_size(usize::MAX / 4);
    }
    builder
}

/// A thread that was not started.
pub(crate) fn refused(cause: io::Error) -> Error {
    Error::NoThread { cause }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    thread_local! {
        static REFUSED: Cell<bool> = const { Cell::new(false) };
    }

    /// Does work for which the system gives no thread to this one.
    pub(crate) fn without<T>(work: impl FnOnce() -> T) -> T {
        REFUSED.set(true);
        let done = work();
        REFUSED.set(false);
        done
    }

    pub(super) fn are_refused() -> bool {
        REFUSED.get()
    }

    #[test]
    fn the_system_refuses_what_no_machine_has() {
        let spawned = without(|| super::named("an answer").spawn(|| ()));
        let error = super::refused(spawned.expect_err("no room"));
        let text = error.to_string();
        assert!(text.starts_with("no thread for the answer: "), "{text}");
        assert!(!text.contains('\n'), "{text}");
        assert!(error.hint().is_some());
        let spawned = super::named("an answer").spawn(|| 7);
        assert_eq!(spawned.expect("there is room").join().expect("it ends"), 7);
    }
}
