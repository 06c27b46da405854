//! What can be wrong with the text side of a checkpoint or of a request.

use std::io;
use std::path::PathBuf;

use crate::processor::MediaKind;

const CONVERSATION: &str = r#"[{"role": "user", "content": "Hello"}]"#;
const PART: &str = r#"{"type": "audio", "audio": "clip.wav"}"#;

/// An error of the text half of the processor; one line, naming file or field, what was expected
/// and what was found.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// A file exists but cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file that the checkpoint must have is not there.
    #[error("no {expected} in `{}`", dir.display())]
    MissingFile {
        /// The checkpoint folder.
        dir: PathBuf,
        /// Names of the files, any of which would do.
        expected: &'static str,
    },
    /// A file, or a field of it, does not hold what it should.
    #[error("{file}: {field}: expected {expected}, found {found}")]
    BadFile {
        /// File name within the checkpoint.
        file: String,
        /// Field, line or token within the file.
        field: String,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// The tokenizer refused a text.
    #[error("cannot tokenize the prompt: {0}")]
    Tokenize(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The conversation is not JSON, or not a list of messages.
    #[error("messages: expected {expected}, found {found}")]
    BadConversation {
        /// What was expected.
        expected: &'static str,
        /// What was found.
        found: String,
    },
    /// A message of the conversation is malformed.
    #[error("message {message}: field `{field}`: expected {expected}, found {found}")]
    BadMessage {
        /// Index of the message, from 0.
        message: usize,
        /// Field within the message, such as `content[1].audio`.
        field: String,
        /// What was expected.
        expected: &'static str,
        /// What was found.
        found: String,
    },
    /// The chat template does not parse.
    #[error("{file}: the chat template does not parse: {reason}")]
    BadTemplate {
        /// File name within the checkpoint.
        file: String,
        /// The engine's message, with a line number.
        reason: String,
    },
    /// The chat template failed on this conversation, or refused it through `raise_exception`.
    #[error("{file}: the chat template failed: {reason}")]
    Render {
        /// File name within the checkpoint.
        file: String,
        /// The engine's message, or the template's own.
        reason: String,
    },
    /// The rendered prompt and the request disagree on how many media of a kind there are.
    #[error(
        "`{}` in the prompt: expected {media}, one for each {kind} of the request, \
         found {placeholders}",
        kind.placeholder()
    )]
    PlaceholderCount {
        /// Which kind.
        kind: MediaKind,
        /// Placeholders in the rendered prompt.
        placeholders: usize,
        /// Media in the request.
        media: usize,
    },
    /// A placeholder is not enclosed in the start and end tokens of its kind.
    #[error(
        "`{}` number {index} of the prompt: expected between its start and end tokens, found bare",
        kind.placeholder()
    )]
    BarePlaceholder {
        /// Which kind.
        kind: MediaKind,
        /// Index among the placeholders of that kind, from 0.
        index: usize,
    },
    /// A medium whose size cannot be laid out.
    #[error("medium {medium} ({kind}): {field}: expected {expected}, found {found}")]
    BadMedium {
        /// Index in the list of media.
        medium: usize,
        /// Which kind.
        kind: MediaKind,
        /// Which number of it.
        field: &'static str,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// The token ids and the media they are said to hold disagree.
    #[error("token {index}: expected {expected} rows of {kind}, found {found}")]
    RunLength {
        /// Index of the first token of the run.
        index: usize,
        /// Which kind.
        kind: MediaKind,
        /// Rows of the medium.
        expected: usize,
        /// Tokens in the run.
        found: usize,
    },
}

impl TextError {
    /// What to do about it, where that is known: printed as `hint:` after the error.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::MissingFile { .. } => {
                Some("give the folder that holds the checkpoint's config.json".to_owned())
            }
            Self::Read { source, .. } if source.kind() == io::ErrorKind::InvalidData => {
                Some("the file is damaged, copy it from the original release".to_owned())
            }
            Self::BadConversation { .. } => Some(format!("a conversation is like {CONVERSATION}")),
            Self::BadMessage { field, .. } if field.starts_with("content") => {
                Some(format!("content is a text, or a list of parts like {PART}"))
            }
            Self::PlaceholderCount { kind, .. } => Some(format!(
                "a text that itself contains `{}` counts as a placeholder",
                kind.placeholder()
            )),
            _ => None,
        }
    }
}
