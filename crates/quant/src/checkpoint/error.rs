//! What can be wrong with a checkpoint, in one line each.

use std::io;
use std::path::{Path, PathBuf};

use safetensors::Dtype;

use super::Component;

/// A checkpoint that cannot be used, and why.
///
/// Every message is one line that names the file and the tensor or field, what was expected and
/// what was found; [`CheckpointError::hint`] says what to do about it where there is something to
/// do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The folder does not exist.
    #[error("{dir}: no such folder", dir = .dir.display())]
    FolderMissing {
        /// The folder that was asked for.
        dir: PathBuf,
    },
    /// The path is a file.
    #[error("{path}: expected a checkpoint folder, found a file", path = .path.display())]
    NotAFolder {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// A checkpoint is being written to the folder, or was until that was interrupted.
    #[error("{dir}: this checkpoint is not whole, writing it was not finished", dir = .dir.display())]
    Unfinished {
        /// The folder that was asked for.
        dir: PathBuf,
    },
    /// The folder holds no safetensors file.
    #[error(
        "{dir}: not a checkpoint, no *.safetensors file in it or in thinker/, talker/, code2wav/",
        dir = .dir.display()
    )]
    NoWeights {
        /// The folder that was asked for.
        dir: PathBuf,
        /// What the folder holds instead.
        instead: Instead,
    },
    /// The tensors belong to no known component.
    #[error(
        "{file}: tensor `{}` starts with none of thinker., talker., code2wav., and {}",
        one_line(.tensor),
        .model_type.describe()
    )]
    UnknownLayout {
        /// File that holds the tensor.
        file: PathBuf,
        /// First tensor without an owner.
        tensor: String,
        /// What config.json says.
        model_type: ModelType,
    },
    /// The operating system refused to read a file.
    #[error("{file}: cannot be read: {cause}", file = .file.display())]
    Io {
        /// File or folder.
        file: PathBuf,
        /// The reason given by the operating system.
        cause: io::Error,
    },
    /// Something that is not a plain file has the name of one.
    #[error("{file}: expected a file, found something else", file = .file.display())]
    NotAFile {
        /// The path.
        file: PathBuf,
    },
    /// A JSON side file is malformed or of the wrong shape.
    #[error("{file}: {}", one_line(.detail), file = .file.display())]
    InvalidJson {
        /// The JSON file.
        file: PathBuf,
        /// What was expected and found.
        detail: String,
    },
    /// A JSON side file is larger than any real one.
    #[error(
        "{file}: expected a JSON file of at most {limit} bytes, found {found}",
        file = .file.display()
    )]
    JsonTooLarge {
        /// The JSON file.
        file: PathBuf,
        /// Largest accepted size in bytes.
        limit: u64,
        /// Size on disk in bytes.
        found: u64,
    },
    /// The index names a shard that is not there, or one of `-of-NNNNN` is not there.
    #[error(
        "{file}: missing shard, named by {named_by}",
        file = .file.display(), named_by = .named_by.display()
    )]
    MissingShard {
        /// The absent file.
        file: PathBuf,
        /// The index, or a sibling shard.
        named_by: PathBuf,
    },
    /// The index names a shard outside of its folder.
    #[error(
        "{index}: shard name `{}` of tensor `{}` is not a file name inside the folder",
        one_line(.shard), one_line(.tensor), index = .index.display()
    )]
    ShardOutside {
        /// The index file.
        index: PathBuf,
        /// The shard as written.
        shard: String,
        /// The tensor that is said to be in it.
        tensor: String,
    },
    /// The index places a tensor in a shard that lacks it.
    #[error(
        "{shard}: tensor `{}` is missing, {index} places it here",
        one_line(.tensor), shard = .shard.display(), index = .index.display()
    )]
    IndexedTensorMissing {
        /// The index file.
        index: PathBuf,
        /// The shard.
        shard: PathBuf,
        /// The absent tensor.
        tensor: String,
    },
    /// Two tensors of one component have the same name.
    #[error(
        "{file}: tensor `{}` is also in {first}",
        one_line(.tensor), file = .file.display(), first = .first.display()
    )]
    DuplicateTensor {
        /// File of the second tensor.
        file: PathBuf,
        /// File of the first tensor.
        first: PathBuf,
        /// The name.
        tensor: String,
    },
    /// The file is a pointer of Git LFS.
    #[error("{file}: expected weights, found a Git LFS pointer", file = .file.display())]
    LfsPointer {
        /// The pointer file.
        file: PathBuf,
    },
    /// The file is too short to hold a header length.
    #[error("{file}: expected a safetensors file, found only {len} bytes", file = .file.display())]
    TooShort {
        /// The file.
        file: PathBuf,
        /// Its size in bytes.
        len: u64,
    },
    /// The header does not fit in the file, or exceeds what the format allows.
    #[error("{file}: header of {header} bytes, expected at most {limit}", file = .file.display())]
    HeaderTooLong {
        /// The file.
        file: PathBuf,
        /// Header length as written, in bytes.
        header: u64,
        /// Largest length that is possible here, in bytes.
        limit: u64,
    },
    /// The header is not the JSON object that it should be.
    #[error("{file}: invalid header: {}", one_line(.detail), file = .file.display())]
    InvalidHeader {
        /// The file.
        file: PathBuf,
        /// What was expected and found.
        detail: String,
    },
    /// The header entry of one tensor is wrong.
    #[error(
        "{file}: tensor `{}`: {}",
        one_line(.tensor), one_line(.detail), file = .file.display()
    )]
    InvalidTensor {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// What was expected and found.
        detail: String,
    },
    /// The file ends before its last tensor does.
    #[error(
        "{file}: truncated, tensor `{}` ends at byte {expected} but the file has {found}",
        one_line(.tensor), file = .file.display()
    )]
    Truncated {
        /// The file.
        file: PathBuf,
        /// The tensor that reaches farthest.
        tensor: String,
        /// Bytes that the header asks for.
        expected: u64,
        /// Bytes of the file.
        found: u64,
    },
    /// Two tensors share bytes.
    #[error(
        "{file}: tensor `{}` overlaps tensor `{}` at data byte {at}",
        one_line(.tensor), one_line(.other), file = .file.display()
    )]
    Overlap {
        /// The file.
        file: PathBuf,
        /// The later tensor.
        tensor: String,
        /// The earlier tensor.
        other: String,
        /// Where the later one starts, from the end of the header.
        at: u64,
    },
    /// Bytes that no tensor describes.
    #[error("{file}: data bytes {from}..{to} belong to no tensor", file = .file.display())]
    Gap {
        /// The file.
        file: PathBuf,
        /// First byte of the gap, from the end of the header.
        from: u64,
        /// End of the gap, exclusive.
        to: u64,
    },
    /// A tensor that the model needs is not in the checkpoint.
    #[error(
        "{dir}: tensor `{}` of the {component} is missing",
        one_line(.tensor), dir = .dir.display()
    )]
    MissingTensor {
        /// The checkpoint.
        dir: PathBuf,
        /// The component that was searched.
        component: Component,
        /// The name inside the component.
        tensor: String,
        /// The name in the checkpoint that shares the longest beginning.
        nearest: Option<String>,
    },
    /// A tensor has another shape than the model needs.
    #[error(
        "{file}: tensor `{}`: expected shape {expected:?}, found {found:?}",
        one_line(.tensor), file = .file.display()
    )]
    ShapeMismatch {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Shape that the config implies.
        expected: Vec<usize>,
        /// Shape on disk.
        found: Vec<usize>,
    },
    /// A tensor has a value that says nothing.
    #[error(
        "{file}: tensor `{}`: expected {expected}, found {}",
        one_line(.tensor), one_line(.found), file = .file.display()
    )]
    BadValue {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// What it should hold.
        expected: &'static str,
        /// What it holds.
        found: String,
    },
    /// A tensor has a dtype that this reader does not take.
    #[error(
        "{file}: tensor `{}`: expected dtype {expected}, found {found}",
        one_line(.tensor), file = .file.display()
    )]
    UnexpectedDtype {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The accepted dtypes, in words.
        expected: &'static str,
        /// Dtype on disk.
        found: Dtype,
    },
}

/// What a folder without safetensors holds instead.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Instead {
    /// Nothing that says more.
    Nothing,
    /// Weights in another container, by file name.
    OtherFormat(String),
    /// A hub cache folder whose snapshots are one level deeper.
    HubCache(PathBuf),
}

/// What `config.json` says about unprefixed tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelType {
    /// There is no `config.json`.
    NoConfig,
    /// `config.json` has no `model_type`.
    Absent,
    /// The `model_type`.
    Is(String),
}

impl ModelType {
    fn describe(&self) -> String {
        match self {
            Self::NoConfig => "there is no config.json to say whose it is".into(),
            Self::Absent => "config.json has no model_type to say whose it is".into(),
            Self::Is(found) => format!(
                "config.json has model_type `{}`, expected `qwen3_omni_moe_thinker`",
                one_line(found)
            ),
        }
    }
}

impl CheckpointError {
    /// What the user can do about it, in one line.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let fixed = match self {
            Self::NotAFolder { path } => return Some(not_a_folder_hint(path)),
            Self::NoWeights { instead, .. } => return instead.hint(),
            Self::MissingTensor { nearest, .. } => {
                let nearest = one_line(nearest.as_deref()?);
                return Some(format!("the closest name in the checkpoint is `{nearest}`"));
            }
            Self::Unfinished { .. } => {
                "repeat the command that was writing it, it goes on where it stopped"
            }
            Self::FolderMissing { .. } => "pass a folder on this machine, not a hub name",
            Self::UnknownLayout {
                model_type: ModelType::Is(_),
                ..
            } => "this engine runs Qwen3-Omni: model_type qwen3_omni_moe or qwen3_omni_moe_thinker",
            Self::UnknownLayout { .. } => {
                "copy config.json of the original release into the folder"
            }
            Self::MissingShard { .. } => "the download is incomplete, fetch the missing file",
            Self::Truncated { .. } | Self::TooShort { .. } => {
                "the download or copy is incomplete, fetch the file again"
            }
            Self::InvalidJson { .. } | Self::JsonTooLarge { .. } => {
                "the file is damaged or was edited by mistake, copy it from the original release"
            }
            Self::HeaderTooLong { .. } | Self::InvalidHeader { .. } => {
                "the file is damaged or is no safetensors file, fetch it again"
            }
            Self::LfsPointer { .. } => "run `git lfs pull` in the checkpoint's folder",
            Self::IndexedTensorMissing { .. } => {
                "the index and its shards are of different versions, fetch both again"
            }
            Self::DuplicateTensor { .. } => {
                "remove the file that does not belong to this checkpoint"
            }
            Self::UnexpectedDtype { .. } => {
                "weights are read in BF16, F16 and F32, and quantized as NVFP4, MXFP4, MXFP8, FP8, NF4, FP4 or INT4"
            }
            Self::BadValue { .. } => {
                "the file is damaged, or the tool that quantized it failed; fetch or make it again"
            }
            _ => return None,
        };
        Some(fixed.into())
    }
}

impl Instead {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Nothing => None,
            Self::OtherFormat(name) => Some(format!(
                "`{}` is another format; only safetensors is read, and pickles are never opened",
                one_line(name)
            )),
            Self::HubCache(snapshot) => {
                Some(format!("this is a hub cache, pass {}", snapshot.display()))
            }
        }
    }
}

fn not_a_folder_hint(path: &Path) -> String {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    format!("pass the folder that contains it: {}", parent.display())
}

/// Text from a file, safe to show in a message of one line.
fn one_line(text: &str) -> String {
    const LONGEST: usize = 200;
    let mut shown = String::new();
    for character in text.chars() {
        if shown.len() >= LONGEST {
            shown.push('…');
            break;
        }
        if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}
