//! Why a command ended early: one line, a hint where there is one, and an exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use burn_omni::Error;

/// Exit code of a request or run that failed.
const FAILED: u8 = 1;
/// Exit code of a command line that says nothing that can be done.
const USAGE: u8 = 2;
/// Exit code after Ctrl-C, as shells have it: 128 and the number of the signal.
pub(crate) const INTERRUPTED: u8 = 130;

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line contradicts itself or asks for nothing.
    Usage {
        /// What is wrong, in one line.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The request or the run failed.
    Run(anyhow::Error),
    /// It was already said on stdout what is wrong.
    Reported,
    /// Ctrl-C.
    Interrupted,
}

/// An error of the command itself with advice; the library's errors bring their own.
#[derive(Debug)]
pub(crate) struct Advised {
    message: String,
    hint: String,
}

impl std::fmt::Display for Advised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Advised {}

impl Failure {
    /// Wrong usage, with advice.
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage {
            message: message.into(),
            hint: Some(hint.into()),
        }
    }

    /// A failure with advice.
    pub(crate) fn advised(message: impl Into<String>, hint: impl Into<String>) -> Self {
        let (message, hint) = (message.into(), hint.into());
        Self::Run(Advised { message, hint }.into())
    }

    /// The line that says what is wrong; `None` when there is nothing to say.
    fn message(&self) -> Option<String> {
        match self {
            Self::Usage { message, .. } => Some(message.clone()),
            Self::Run(error) => Some(error.to_string()),
            Self::Reported | Self::Interrupted => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Usage { hint, .. } => hint.clone(),
            Self::Run(error) => {
                let advised = error.downcast_ref::<Advised>();
                let advised = advised.map(|advised| advised.hint.clone());
                advised.or_else(|| error.downcast_ref::<Error>().and_then(hint))
            }
            Self::Reported | Self::Interrupted => None,
        }
    }

    /// Whether the reader of stdout went away, as in `burn-omni … | head -1`: it got all it wanted.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        let Self::Run(error) = self else { return false };
        let cause = error.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
    }

    fn code(&self) -> u8 {
        match self {
            Self::Usage { .. } => USAGE,
            Self::Run(_) | Self::Reported => FAILED,
            Self::Interrupted => INTERRUPTED,
        }
    }

    /// Writes the error and its hint to stderr.
    pub(crate) fn print(&self) {
        if let Some(message) = self.message() {
            print(&message, self.hint().as_deref());
        }
    }
}

/// Advice on an error of the library.
pub(crate) fn hint(error: &Error) -> Option<String> {
    match error {
        Error::Stage { .. } => Some(BUG.into()),
        error => error.hint(),
    }
}

/// Advice on what should not happen.
pub(crate) const BUG: &str =
    "this is a defect; please report it with the output of the same command and -v";

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Run(error.into())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Run(error.into())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Run(error)
    }
}

/// Says what went wrong, if anything, and gives the exit code.
pub(crate) fn report(outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.code())
        }
    }
}

/// Says what is wrong with the command line, or shows the help that was asked for.
pub(crate) fn report_usage(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;

    let help = [
        ErrorKind::DisplayHelp,
        ErrorKind::DisplayVersion,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
    ];
    if help.contains(&error.kind()) {
        // Nothing more can be done about a reader that went away.
        let _ = error.print();
        let asked = error.exit_code() == 0;
        return if asked {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(USAGE)
        };
    }
    let text = error.render().to_string();
    let (message, advice) = text.split_once("\n\n").unwrap_or((&text, ""));
    let tip = advice
        .lines()
        .find_map(|line| line.trim().strip_prefix("tip: "));
    let usage = || {
        let usage = advice.lines().find_map(|line| line.strip_prefix("Usage: "));
        usage.map(|usage| format!("usage: {usage}"))
    };
    let hint = tip.map(str::to_owned).or_else(usage);
    print(message.trim_start_matches("error: "), hint.as_deref());
    ExitCode::from(USAGE)
}

/// An error line and its hint, each without line breaks.
pub(crate) fn print(message: &str, hint: Option<&str>) {
    let mut err = io::stderr().lock();
    // Nothing more can be done when stderr is closed.
    let _ = writeln!(err, "error: {}", one_line(message));
    if let Some(hint) = hint {
        let _ = writeln!(err, "hint: {}", one_line(hint));
    }
}

fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ")
}
