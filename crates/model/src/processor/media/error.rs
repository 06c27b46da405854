//! What can be wrong with a media file: one line that names it, what was expected and what was
//! found.

use std::path::Path;

/// A media file or byte string that cannot be used.
///
/// Displays as one line: the name, then the fact. [`hint`](Self::hint) is the advice that belongs
/// beside it.
#[derive(Debug, thiserror::Error)]
#[error("`{name}`: {problem}")]
pub struct MediaError {
    /// The file's path, or what the caller called the bytes.
    pub name: String,
    /// What is wrong.
    #[source]
    pub problem: MediaProblem,
}

/// The kinds of [`MediaError`].
#[derive(Debug, thiserror::Error)]
pub enum MediaProblem {
    /// The file cannot be opened or read.
    #[error("cannot be read: {0}")]
    Read(#[source] std::io::Error),
    /// The content is not what this door takes.
    #[error("expected {expected}, found {found}")]
    Unexpected {
        /// What the door takes.
        expected: String,
        /// What was there.
        found: String,
    },
    /// A size is above what this program is willing to hold.
    #[error("{what} is {found}, the limit is {limit}")]
    TooLarge {
        /// The quantity, e.g. `image size`.
        what: &'static str,
        /// Its value, with unit.
        found: String,
        /// The most that is taken, with unit.
        limit: String,
    },
    /// The right kind of file, but broken.
    #[error("damaged {kind}: {detail}")]
    Damaged {
        /// What the file claims to be.
        kind: String,
        /// The decoder's words.
        detail: String,
    },
    /// A program that decodes this kind of file is not installed.
    #[error("needs the program `{program}` to be decoded, which was not found on PATH")]
    ProgramMissing {
        /// Name of the program.
        program: &'static str,
    },
    /// A program that decodes this kind of file failed.
    #[error("`{program}` failed: {detail}")]
    ProgramFailed {
        /// Name of the program.
        program: &'static str,
        /// The last line it wrote, or its exit status.
        detail: String,
    },
}

impl MediaError {
    /// A problem of the file or bytes called `name`.
    pub fn new(name: impl Into<String>, problem: MediaProblem) -> Self {
        Self {
            name: name.into(),
            problem,
        }
    }

    /// The same problem under another name, for bytes that the caller knows by a better one.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Advice for the user, where there is some.
    pub fn hint(&self) -> Option<String> {
        let advice = match &self.problem {
            MediaProblem::Unexpected { expected, found } => content_hint(expected, found)?,
            MediaProblem::Read(_) => return None,
            MediaProblem::TooLarge { .. } => "cut it or scale it down first",
            MediaProblem::Damaged { .. } => {
                "does another program open it? If not, copy or download it again"
            }
            MediaProblem::ProgramMissing { .. } => {
                "install FFmpeg, which brings `ffmpeg` and `ffprobe`, or give a folder of frames or \
                 a gif"
            }
            MediaProblem::ProgramFailed { .. } => {
                return Some(format!("see what `ffprobe {}` says about it", self.name));
            }
        };
        Some(advice.into())
    }

    pub(super) fn read(name: impl Into<String>, error: std::io::Error) -> Self {
        Self::new(name, MediaProblem::Read(error))
    }

    pub(super) fn unexpected(
        name: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        let (expected, found) = (expected.into(), found.into());
        Self::new(name, MediaProblem::Unexpected { expected, found })
    }

    pub(super) fn damaged(
        name: impl Into<String>,
        kind: impl Into<String>,
        detail: impl std::fmt::Display,
    ) -> Self {
        let detail = one_line(&detail.to_string());
        let mut kind = kind.into();
        if let Some((_, rest)) = kind
            .split_once(' ')
            .filter(|(word, _)| ["a", "an"].contains(word))
        {
            kind = rest.to_owned();
        }
        Self::new(name, MediaProblem::Damaged { kind, detail })
    }

    pub(super) fn too_large(
        name: impl Into<String>,
        what: &'static str,
        found: impl Into<String>,
        limit: impl Into<String>,
    ) -> Self {
        let (found, limit) = (found.into(), limit.into());
        Self::new(name, MediaProblem::TooLarge { what, found, limit })
    }

    pub(super) fn program_failed(
        name: impl Into<String>,
        program: &'static str,
        detail: impl AsRef<str>,
    ) -> Self {
        let detail = one_line(detail.as_ref());
        Self::new(name, MediaProblem::ProgramFailed { program, detail })
    }
}

/// Advice for content that a door does not take.
fn content_hint(expected: &str, found: &str) -> Option<&'static str> {
    if found.starts_with("text") || found.starts_with("an empty") {
        Some("is it the right file?")
    } else if expected.ends_with("audio") {
        Some("convert it: `ffmpeg -i INPUT -ar 16000 -ac 1 out.wav`")
    } else if expected.ends_with("image") {
        Some("the content decides, not the extension: convert it to png or jpeg")
    } else {
        None
    }
}

/// A path as it is written in errors.
pub(super) fn display(path: &Path) -> String {
    path.display().to_string()
}

/// `text` without line breaks, and not longer than a line should be.
fn one_line(text: &str) -> String {
    const LONGEST: usize = 240;
    let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match joined.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &joined[..end]),
        None => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_that_names_the_file() {
        let error = MediaError::damaged("a.png", "a png image", "first\n  second");
        assert_eq!(
            error.to_string(),
            "`a.png`: damaged png image: first second"
        );
        assert!(error.hint().is_some());
        let renamed = error.named("image 2");
        assert!(renamed.to_string().starts_with("`image 2`: "));
    }

    #[test]
    fn long_details_are_cut_at_a_character() {
        let error = MediaError::damaged("a", "b", "é".repeat(1000));
        assert!(error.to_string().chars().count() < 300);
    }
}
