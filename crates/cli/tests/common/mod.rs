//! Runs the program, and breaks copies of the demo checkpoint.
#![allow(dead_code, reason = "every test file uses another part")]

pub(crate) mod checkpoint;
#[cfg(unix)]
pub(crate) mod fake_cuda;
pub(crate) mod media;

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// The demo checkpoint of the repository.
pub(crate) fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/omni-demo")
}

/// The program, with nothing of the caller's environment that it looks at.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_burn-omni"));
    command.stdin(Stdio::null());
    // Nothing is left in the caller's home.
    command.env("BURN_OMNI_CACHE", "");
    for name in [
        "BURN_OMNI_MODEL",
        "RUST_LOG",
        "RUST_BACKTRACE",
        "XDG_DATA_HOME",
        "XDG_RUNTIME_DIR",
    ] {
        command.env_remove(name);
    }
    command
}

/// What a finished program left.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("the program writes text");
        Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

/// Runs the program.
pub(crate) fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Run {
    program()
        .args(args)
        .output()
        .expect("the program starts")
        .into()
}

/// Runs the program in a folder.
pub(crate) fn run_in<S: AsRef<OsStr>>(folder: &Path, args: impl IntoIterator<Item = S>) -> Run {
    program()
        .current_dir(folder)
        .args(args)
        .output()
        .expect("the program starts")
        .into()
}

/// Runs the program with something to read.
pub(crate) fn run_with_stdin<S: AsRef<OsStr>>(
    args: impl IntoIterator<Item = S>,
    stdin: &str,
) -> Run {
    let mut command = program();
    command
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut pipe = child.stdin.take().expect("stdin is a pipe");
    // A program that does not read is free to end first.
    let _ = pipe.write_all(stdin.as_bytes());
    drop(pipe);
    child.wait_with_output().expect("the program ends").into()
}

impl Run {
    /// It failed with this code and one `error:` line that has all of `parts`; nothing that looks like a defect.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, parts: &[&str]) -> &Self {
        let errors: Vec<_> = self
            .stderr
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect();
        assert_eq!(errors.len(), 1, "one error line: {self:#?}");
        for part in parts {
            assert!(
                errors[0].contains(part),
                "the error says {part:?}: {self:#?}"
            );
        }
        assert_eq!(self.code, Some(code), "exit code: {self:#?}");
        self.is_tidy();
        self
    }

    /// It failed and gave this advice.
    #[track_caller]
    pub(crate) fn hints(&self, part: &str) -> &Self {
        let hint = self.stderr.lines().find(|line| line.starts_with("hint: "));
        assert!(
            hint.is_some_and(|hint| hint.contains(part)),
            "the hint says {part:?}: {self:#?}"
        );
        self
    }

    /// It did what was asked.
    #[track_caller]
    pub(crate) fn succeeds(&self) -> &Self {
        assert_eq!(self.code, Some(0), "exit code: {self:#?}");
        assert!(!self.stderr.contains("error: "), "no error: {self:#?}");
        self
    }

    /// No panic, no back-trace.
    #[track_caller]
    pub(crate) fn is_tidy(&self) -> &Self {
        for trace in ["panicked", "RUST_BACKTRACE", "stack backtrace", "internal:"] {
            assert!(
                !self.stderr.contains(trace),
                "no trace of a defect: {self:#?}"
            );
        }
        self
    }

    /// The one JSON object on stdout.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// The names in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}
