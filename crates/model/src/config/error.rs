//! What can be wrong with a config, in one line each.

use std::path::PathBuf;

use burn_omni_quant::checkpoint::{CheckpointError, Component};

/// A config that cannot be used, and why.
///
/// Every message is one line that names the file and the dotted field in it, what was expected and
/// what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file of the checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint has no thinker.
    #[error("{dir}: the checkpoint has no thinker tensors", dir = .dir.display())]
    NoThinker {
        /// The checkpoint.
        dir: PathBuf,
    },
    /// A component has tensors and no config.
    #[error(
        "{dir}: no config for the {component}, expected `{}` in config.json or \
         {component}/config.json",
        .component.config_key(),
        dir = .dir.display()
    )]
    NoConfig {
        /// The checkpoint.
        dir: PathBuf,
        /// The component without a config.
        component: Component,
    },
    /// Another model.
    #[error(
        "{file}: `{field}` is {found}, supported here: `{supported}`",
        file = .file.display()
    )]
    UnknownModel {
        /// The config file.
        file: PathBuf,
        /// Dotted path of `model_type`.
        field: String,
        /// The value in the file.
        found: String,
        /// The value that this engine knows at this place.
        supported: &'static str,
    },
    /// A field that the release has is not there.
    #[error("{file}: `{field}` is missing", file = .file.display())]
    MissingField {
        /// The config file.
        file: PathBuf,
        /// Dotted path of the field.
        field: String,
    },
    /// A field has a value of another type, or out of range.
    #[error("{file}: `{field}` is {found}, expected {expected}", file = .file.display())]
    InvalidValue {
        /// The config file.
        file: PathBuf,
        /// Dotted path of the field.
        field: String,
        /// What would be accepted, in words.
        expected: String,
        /// The value in the file.
        found: String,
    },
    /// Two fields cannot both be right.
    #[error("{file}: `{field}` is {found}, expected {expected}", file = .file.display())]
    Contradiction {
        /// The file of the first field.
        file: PathBuf,
        /// Dotted path of the first field.
        field: String,
        /// What the other field implies, in words.
        expected: String,
        /// The value of the first field.
        found: String,
    },
    /// A known option that this engine does not run.
    #[error("{file}: `{field}` is {found}, supported: {supported}", file = .file.display())]
    Unsupported {
        /// The config file.
        file: PathBuf,
        /// Dotted path of the option.
        field: String,
        /// The value in the file.
        found: String,
        /// The values that are supported, in words.
        supported: String,
    },
    /// A special token is neither in a config nor in the tokenizer.
    #[error("`{field}` is in no config, and the tokenizer has no token `{token}`")]
    UnresolvedId {
        /// The root field.
        field: &'static str,
        /// Text of the token.
        token: &'static str,
    },
    /// The config and the tokenizer disagree.
    #[error("`{field}` is {found}, but token `{token}` of the tokenizer has id {expected}")]
    IdMismatch {
        /// The root field.
        field: &'static str,
        /// Text of the token.
        token: &'static str,
        /// Id in the config.
        found: u32,
        /// Id in the tokenizer.
        expected: u32,
    },
}

impl ConfigError {
    /// What the user can do about it, in one line.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Checkpoint(error) => return error.hint(),
            Self::NoThinker { .. } => "speech components alone cannot answer, add the thinker",
            Self::NoConfig { .. } => {
                "copy config.json of the original release into the checkpoint folder"
            }
            Self::UnknownModel { .. } => {
                "supported model types: qwen3_omni_moe, and qwen3_omni_moe_thinker on its own"
            }
            Self::MissingField { .. } => {
                "no default is assumed, copy the value from config.json of the original release"
            }
            Self::UnresolvedId { .. } | Self::IdMismatch { .. } => {
                "config.json and the tokenizer files must come from the same release"
            }
            Self::InvalidValue { .. } | Self::Contradiction { .. } | Self::Unsupported { .. } => {
                return None;
            }
        };
        Some(hint.into())
    }
}
