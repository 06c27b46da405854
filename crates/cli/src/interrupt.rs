//! Ctrl-C: a command that watches for it stops its answer and tidies up; at any other time, and when it comes again, the
//! program ends.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use anyhow::Context;

use crate::failure::{Failure, INTERRUPTED};
use crate::kernels;

/// Whether an answer is in the making that asks [`Watch::was_requested`].
static WATCHED: AtomicBool = AtomicBool::new(false);
static REQUESTED: AtomicBool = AtomicBool::new(false);
/// Exit code where nobody watches.
static CODE: AtomicU8 = AtomicU8::new(INTERRUPTED);

/// Takes Ctrl-C over from the system.
pub(crate) fn install() -> Result<(), Failure> {
    ctrlc::set_handler(on_signal).context("Ctrl-C cannot be handled")?;
    Ok(())
}

#[expect(
    clippy::exit,
    reason = "nothing is in the making that would have to be tidied up, or it is not waited for"
)]
fn on_signal() {
    // Asked twice, the program ends at once: what it writes to may wait for a reader for ever.
    if WATCHED.load(Ordering::SeqCst) && !REQUESTED.swap(true, Ordering::SeqCst) {
        return;
    }
    let mut err = io::stderr();
    if err.is_terminal() {
        let _ = writeln!(err);
    }
    kernels::save_silently();
    std::process::exit(CODE.load(Ordering::SeqCst).into());
}

/// At a prompt Ctrl-C is the way out, not a failure.
pub(crate) fn quits_at_prompt() {
    CODE.store(0, Ordering::SeqCst);
}

/// While this lives, Ctrl-C is a request and not the end.
pub(crate) struct Watch(());

impl Watch {
    pub(crate) fn start() -> Self {
        REQUESTED.store(false, Ordering::SeqCst);
        WATCHED.store(true, Ordering::SeqCst);
        Self(())
    }

    /// Whether Ctrl-C was pressed since the start.
    pub(crate) fn was_requested(&self) -> bool {
        REQUESTED.load(Ordering::SeqCst)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        WATCHED.store(false, Ordering::SeqCst);
    }
}
