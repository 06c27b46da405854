//! Why a checkpoint was not written.

use std::io;
use std::path::PathBuf;

use crate::checkpoint::CheckpointError;

/// A checkpoint that was not written, and why, in one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The source cannot be read.
    #[error(transparent)]
    Source(#[from] CheckpointError),
    /// The source is quantized already.
    #[error("{file}: expected a checkpoint in BF16, F16 or F32, but {found}", file = .file.display())]
    Quantized {
        /// The file that says so.
        file: PathBuf,
        /// What it says.
        found: String,
    },
    /// The source does not say what it is.
    #[error("{dir}: no config.json for the {component}", dir = .dir.display())]
    NoConfig {
        /// The source.
        dir: PathBuf,
        /// Whose config is missing.
        component: crate::checkpoint::Component,
    },
    /// Every matrix stays as it is.
    #[error("{dir}: there is nothing to quantize, every matrix is ignored or has another width", dir = .dir.display())]
    Nothing {
        /// The source.
        dir: PathBuf,
    },
    /// A matrix has a value that is not finite.
    #[error("{file}: tensor `{tensor}`: expected finite weights, found NaN or an infinity", file = .file.display())]
    NotFinite {
        /// The file.
        file: PathBuf,
        /// Name on disk.
        tensor: String,
        /// Name of its module.
        module: String,
    },
    /// Source and destination are the same or one in the other.
    #[error("{destination}: {relation} {source_dir}", destination = .destination.display(), source_dir = .source_dir.display())]
    Inside {
        /// The destination.
        destination: PathBuf,
        /// How they lie.
        relation: &'static str,
        /// The source.
        source_dir: PathBuf,
    },
    /// The destination is a file.
    #[error("{path}: expected a folder, found a file", path = .path.display())]
    NotAFolder {
        /// The destination.
        path: PathBuf,
    },
    /// The destination has something in it.
    #[error("{dir}: the folder is not empty", dir = .dir.display())]
    NotEmpty {
        /// The destination.
        dir: PathBuf,
    },
    /// The destination is that of an interrupted run that was asked for something else.
    #[error("{dir}: an interrupted run with another source or other options left its files here", dir = .dir.display())]
    OtherRun {
        /// The destination.
        dir: PathBuf,
    },
    /// Another process writes to the destination.
    #[error("{dir}: another run is writing to this folder", dir = .dir.display())]
    Busy {
        /// The destination.
        dir: PathBuf,
    },
    /// The disk is too full.
    #[error(
        "{dir}: the checkpoint needs {} GB, the disk has {} GB free",
        gigabytes(*needed), gigabytes(*free), dir = .dir.display()
    )]
    NoRoom {
        /// The destination.
        dir: PathBuf,
        /// Bytes that are still to be written.
        needed: u64,
        /// Bytes that there are.
        free: u64,
    },
    /// The disk did not take a file.
    #[error("{path}: cannot be written: {cause}", path = .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The reason given by the operating system.
        cause: io::Error,
        /// Bytes that the whole checkpoint takes, where it is known.
        needed: Option<u64>,
    },
    /// It was asked to stop.
    #[error("stopped before the checkpoint was whole")]
    Interrupted,
}

impl WriteError {
    /// What the user can do about it, in one line.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let fixed = match self {
            Self::Source(error) => return error.hint(),
            Self::NotFinite { module, .. } => {
                return Some(format!(
                    "`burn-omni inspect --check` lists all such tensors; `--ignore '{module}'` leaves this one as it is"
                ));
            }
            Self::Io { cause, needed, .. } => return hint_of_io(cause, *needed),
            Self::Quantized { .. } => "quantize the release in BF16 instead",
            Self::NoConfig { .. } => "copy config.json of the original release into the folder",
            Self::Nothing { .. } => "ask for fewer modules with --ignore",
            Self::Inside { .. } => "write to a folder of its own",
            Self::NotAFolder { .. } => "name a folder that does not exist yet",
            Self::NotEmpty { .. } => {
                "name another folder, or pass --force to replace the checkpoint in it"
            }
            Self::OtherRun { .. } => {
                "pass what that run was given to go on with it, or --force to begin anew"
            }
            Self::NoRoom { .. } => "make room, or name a folder on another disk",
            Self::Busy { .. } => "wait until it is done",
            Self::Interrupted => "the same command goes on where it stopped",
        };
        Some(fixed.into())
    }
}

/// Bytes in GB with a digit behind the point.
fn gigabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e9)
}

fn hint_of_io(cause: &io::Error, needed: Option<u64>) -> Option<String> {
    use io::ErrorKind;

    match cause.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            let needed = needed.map_or_else(String::new, |bytes| {
                format!(", {} GB in all for the checkpoint", gigabytes(bytes))
            });
            Some(format!(
                "make room{needed}; the same command goes on where it stopped"
            ))
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            Some("name a folder that you may write to".into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_with_what_is_needed() {
        let error = WriteError::Io {
            path: "out/model.safetensors".into(),
            cause: io::ErrorKind::StorageFull.into(),
            needed: Some(19_300_000_000),
        };
        assert!(error.to_string().starts_with("out/model.safetensors: "));
        let hint = error.hint().unwrap();
        assert!(
            hint.contains("19.3 GB") && hint.contains("goes on"),
            "{hint}"
        );
    }
}
