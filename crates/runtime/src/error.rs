//! What can go wrong, in one line each.

use std::path::PathBuf;

use burn_omni_model::config::ConfigError;
use burn_omni_model::processor::ProcessorError;
use burn_omni_ops::Fault;
use burn_omni_quant::LoadError;
use burn_omni_quant::checkpoint::CheckpointError;

/// Bytes as people read them.
fn size(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    if bytes < MIB {
        return format!("{bytes} bytes");
    }
    if bytes < GIB {
        return format!("{:.0} MiB", bytes as f64 / (GIB >> 10) as f64);
    }
    format!("{:.2} GiB", bytes as f64 / GIB as f64)
}

/// Why an engine cannot be loaded or a request not be answered.
///
/// Every message is one line; [`Error::hint`] says what to do about it where there is something to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint's files.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint's config.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The checkpoint's tensors.
    #[error(transparent)]
    Load(LoadError),
    /// The request's text or media.
    #[error(transparent)]
    Processor(#[from] ProcessorError),
    /// The device cannot run this.
    #[error("{0}")]
    Device(String),
    /// A setting is out of its range.
    #[error("{field}: expected {expected}, found {found}")]
    BadSetting {
        /// Name of the setting.
        field: &'static str,
        /// Its range, in words.
        expected: String,
        /// What was given.
        found: String,
    },
    /// The request has no message to answer.
    #[error("the request is empty: expected text, audio, an image or a video")]
    EmptyRequest,
    /// The prompt does not fit.
    #[error(
        "the prompt has {prompt} tokens, the context holds {context}, and the answer needs at least one"
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Longest sequence.
        context: usize,
    },
    /// A conversation's next turn was sent too early.
    #[error(
        "the last answer is still being made: read it to its end or drop it before the next turn"
    )]
    Busy,
    /// The caches of an answer have no room beside those of the answers that are being made.
    #[error(
        "no room for another answer: its caches take {}, and those being made leave {}",
        size(*needed), size(*free)
    )]
    NoRoom {
        /// Bytes of its caches.
        needed: u64,
        /// Bytes that the other answers leave.
        free: u64,
    },
    /// The system gives no thread.
    #[error("no thread for the answer: {cause}")]
    NoThread {
        /// The reason given by the operating system.
        cause: std::io::Error,
    },
    /// The model does not fit the memory.
    #[error(
        "the model takes {} with a context of {context} tokens, and may take {}",
        size(*needed), size(*limit)
    )]
    DoesNotFit {
        /// Bytes of weights, caches and workspace.
        needed: u64,
        /// Bytes that there are, or that were allowed.
        limit: u64,
        /// Tokens of the context.
        context: usize,
        /// The longest context that would fit, 0 where none does.
        longest: usize,
    },
    /// Prompt and answer of a bench do not fit.
    #[error("{rows} tokens of prompt and answer do not fit, the context holds {context}")]
    BenchTooLong {
        /// Tokens of both.
        rows: usize,
        /// Longest sequence.
        context: usize,
    },
    /// Nobody has this voice.
    #[error("unknown voice `{voice}`, this checkpoint has {}", .voices.join(", "))]
    UnknownVoice {
        /// The voice that was asked for.
        voice: String,
        /// The voices there are.
        voices: Vec<String>,
    },
    /// Speech from a checkpoint that has no talker.
    #[error("{dir}: this checkpoint cannot speak, it has no {missing}", dir = .dir.display())]
    CannotSpeak {
        /// The checkpoint.
        dir: PathBuf,
        /// The component it lacks.
        missing: &'static str,
    },
    /// A file cannot be written.
    #[error("{path}: cannot be written: {cause}", path = .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The reason given by the operating system.
        cause: std::io::Error,
    },
    /// A stage gave numbers that are none.
    #[error("{stage} gives NaN or infinite values")]
    NotFinite {
        /// Name of the stage.
        stage: &'static str,
    },
    /// The device has less memory than was free when the model was planned.
    #[error("{doing}: the device has no memory for {} more", size(*bytes))]
    OutOfMemory {
        /// What it was for.
        doing: String,
        /// Bytes that were asked for.
        bytes: u64,
    },
    /// The device works no more.
    #[error("{doing}: the device failed, {cause}")]
    DeviceLost {
        /// What it was doing.
        doing: String,
        /// What it said.
        cause: String,
    },
    /// A stage stopped unexpectedly.
    #[error("{stage} failed: {cause}")]
    Stage {
        /// Name of the stage.
        stage: &'static str,
        /// What it said.
        cause: String,
    },
}

impl From<LoadError> for Error {
    fn from(error: LoadError) -> Self {
        let LoadError::Device { component, cause } = &error else {
            return Self::Load(error);
        };
        let doing = format!("loading the {}", component.name());
        Self::fault(doing, cause).unwrap_or(Self::Load(error))
    }
}

impl Error {
    /// A stage that stopped because of this, or the device's fault that it was.
    pub(crate) fn stage(stage: &'static str, mut cause: String) -> Self {
        // A kernel that does not compile is quoted whole behind what the compiler says.
        if let Some(source) = cause.find("[Source]") {
            cause.truncate(source);
        }
        Self::fault(stage.into(), &cause).unwrap_or(Self::Stage { stage, cause })
    }

    fn fault(doing: String, cause: &str) -> Option<Self> {
        Some(match Fault::of(cause)? {
            Fault::OutOfMemory { bytes } => Self::OutOfMemory { doing, bytes },
            Fault::Lost { cause } => Self::DeviceLost { doing, cause },
        })
    }

    /// What the user can do about it, in one line.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Checkpoint(error) => error.hint(),
            Self::Config(error) => error.hint(),
            Self::Load(error) => error.hint(),
            Self::Processor(error) => error.hint(),
            Self::PromptTooLong { .. } => Some("shorten the prompt or take smaller media; --on-overflow drop-oldest forgets old turns, --max-context raises a limit that was set below the model's".into()),
            Self::NoRoom { .. } => Some("wait until another answer has ended, ask for fewer tokens or frames, or raise --memory-limit".into()),
            Self::NoThread { .. } => Some("end other answers or programs, or raise the limits of `ulimit -u` and `ulimit -v`".into()),
            Self::DoesNotFit { longest: 0, .. } => Some(
                "quantize on loading with --quantize nvfp4, or answer in text alone, without talker and code2wav"
                    .into(),
            ),
            Self::DoesNotFit { longest, .. } => {
                Some(format!("--max-context {longest} would fit"))
            }
            Self::BenchTooLong { .. } => {
                Some("lower --prompt-tokens or --decode-tokens, or raise --max-context".into())
            }
            Self::CannotSpeak { .. } => {
                Some("ask for text only, or use a checkpoint with talker and code2wav".into())
            }
            Self::OutOfMemory { .. } => Some(
                "another program may have taken memory meanwhile, `nvidia-smi` shows it; --max-context and --memory-limit make the model smaller".into(),
            ),
            Self::DeviceLost { .. } => Some(
                "start the program again; `burn-omni doctor --kernels` checks the device, and the system's log may say more".into(),
            ),
            Self::NotFinite { .. } => {
                Some("`burn-omni inspect --check` finds the weights that are at fault".into())
            }
            _ => None,
        }
    }
}
