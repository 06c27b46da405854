//! What is written where: stdout is data, stderr is messages.

use std::cell::OnceCell;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use crate::args::MessageArgs;
use crate::failure::Failure;

/// How much is said on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verbosity {
    /// Errors alone.
    Quiet,
    /// What the user has to know: where files are, how far a load is.
    Default,
    /// The log too; more with every `-v`.
    Verbose(u8),
}

/// The two ways out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    verbosity: Verbosity,
    progress: bool,
}

impl Output {
    pub(crate) fn new(args: &MessageArgs) -> Self {
        let verbosity = match (args.quiet, args.verbose) {
            (true, _) => Verbosity::Quiet,
            (false, 0) => Verbosity::Default,
            (false, times) => Verbosity::Verbose(times),
        };
        let progress = !args.no_progress && verbosity >= Verbosity::Default;
        Self {
            verbosity,
            progress: progress && io::stderr().is_terminal(),
        }
    }

    pub(crate) fn verbosity(&self) -> Verbosity {
        self.verbosity
    }

    /// The same without bars: stdout is read by a program.
    pub(crate) fn without_progress(self, without: bool) -> Self {
        let progress = self.progress && !without;
        Self { progress, ..self }
    }

    /// Sends the log to stderr.
    pub(crate) fn start_log(&self) {
        let level = match self.verbosity {
            Verbosity::Quiet | Verbosity::Default => return,
            Verbosity::Verbose(1) => "burn_omni=info",
            Verbosity::Verbose(2) => "info,burn_omni=debug",
            Verbosity::Verbose(_) => "debug,burn_omni=trace",
        };
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
        let log = tracing_subscriber::fmt().with_env_filter(filter);
        let log = log
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal());
        // A log that is already there is as good.
        let _ = log.try_init();
    }

    /// A message on stderr.
    pub(crate) fn note(&self, message: impl std::fmt::Display) {
        if self.verbosity >= Verbosity::Default {
            // Nothing more can be done when stderr is closed.
            let _ = writeln!(io::stderr().lock(), "{message}");
        }
    }

    /// Something that is not as it should be, and did not keep the command from its work.
    pub(crate) fn warning(&self, message: impl std::fmt::Display) {
        self.note(format_args!("warning: {message}"));
    }

    /// Part of a message on stderr, shown at once.
    pub(crate) fn note_part(&self, part: &str) {
        if self.verbosity >= Verbosity::Default {
            let mut err = io::stderr().lock();
            let _ = err.write_all(part.as_bytes()).and_then(|()| err.flush());
        }
    }

    /// A bar for `what`, which is as long as the total of the first call.
    pub(crate) fn bar(&self, what: &'static str) -> Bar {
        Bar {
            what,
            shown: self.progress,
            started: Instant::now(),
            bar: OnceCell::new(),
        }
    }
}

/// Data on stdout, shown at once.
pub(crate) fn data(text: &str) -> io::Result<()> {
    bytes(text.as_bytes())
}

/// Data on stdout, written at once.
pub(crate) fn bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    written.map_err(|cause| {
        io::Error::new(cause.kind(), format!("stdout: cannot be written: {cause}"))
    })
}

/// One JSON object on stdout.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(anyhow::Error::from)?;
    Ok(data(&(text + "\n"))?)
}

/// A progress bar that appears when the work takes a while.
pub(crate) struct Bar {
    what: &'static str,
    shown: bool,
    started: Instant,
    bar: OnceCell<ProgressBar>,
}

impl Bar {
    /// Work shorter than this needs no bar.
    const PATIENCE: Duration = Duration::from_millis(300);

    /// Bytes done, of how many.
    pub(crate) fn set(&self, done: u64, total: u64) {
        if !self.shown || (self.bar.get().is_none() && self.started.elapsed() < Self::PATIENCE) {
            return;
        }
        let bar = self.bar.get_or_init(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let style = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left";
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style);
            }
            bar.with_message(self.what)
        });
        bar.set_position(done);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.get() {
            bar.finish_and_clear();
        }
    }
}

/// The largest resident set of this process.
pub(crate) fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Bytes as people read them.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    while value >= 999.5
        && let Some(next) = units.next()
    {
        value /= 1000.0;
        unit = Some(next);
    }
    let digits = if value < 99.95 { 1 } else { 0 };
    format!("{value:.digits$} {}", unit.unwrap_or(&"TB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (23_552_690, "23.6 MB"),
            (999_600, "1.0 MB"),
            (61_000_000_000, "61.0 GB"),
            (123_000_000_000, "123 GB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
        }
    }
}
