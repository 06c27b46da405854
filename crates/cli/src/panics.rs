//! Panics as one line: nobody but a developer reads the usual text, and `-v` shows it to developers.

use std::backtrace::Backtrace;
use std::cell::Cell;
use std::io::Write;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::failure::{BUG, Failure};
use crate::output::Verbosity;

/// Where the last panic happened.
static PLACE: Mutex<Option<String>> = Mutex::new(None);
static VERBOSE: OnceLock<bool> = OnceLock::new();

thread_local! {
    /// Whether panics of this thread are an answer to a question, such as whether a device works.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// Replaces the default report of panics.
pub(crate) fn install(verbosity: Verbosity) {
    let _ = VERBOSE.set(verbosity >= Verbosity::Verbose(1));
    std::panic::set_hook(Box::new(on_panic));
}

/// Remembers the place; who catches the panic reports it.
fn on_panic(info: &PanicHookInfo<'_>) {
    let place = info
        .location()
        .map(|place| format!("{}:{}", place.file(), place.line()));
    *PLACE.lock().unwrap_or_else(PoisonError::into_inner) = place;
    if VERBOSE.get() == Some(&true) && !EXPECTED.get() {
        let mut err = std::io::stderr().lock();
        let _ = writeln!(err, "{info}\n{}", Backtrace::force_capture());
    }
}

/// Runs a command; a panic becomes a failure.
pub(crate) fn guard(command: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    catch_unwind(AssertUnwindSafe(command)).unwrap_or_else(|panic| {
        let place = PLACE.lock().unwrap_or_else(PoisonError::into_inner).take();
        let place = place
            .map(|place| format!(" (at {place})"))
            .unwrap_or_default();
        let message = format!("internal: {}{place}", describe(panic.as_ref()));
        Err(Failure::advised(message, BUG))
    })
}

/// Runs what may panic where it cannot work; the error is what the panic said.
pub(crate) fn attempt<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    EXPECTED.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    EXPECTED.set(false);
    outcome.map_err(|panic| describe(panic.as_ref()))
}

fn describe(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("unknown cause");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
