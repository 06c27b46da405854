//! The weights door: a checkpoint folder, memory-mapped and checked in full before anything is read
//! from it.
//!
//! | layout | who owns a tensor |
//! |---|---|
//! | one folder (official) | its prefix: `thinker.`, `talker.`, `code2wav.` |
//! | `thinker/`, `talker/`, `code2wav/` | the sub-folder; a prefix of the same name is removed |
//! | one component alone | the `model_type` of `config.json`, for names without a prefix |
//!
//! The folder decides before the prefix does, and no name is ever matched by its text alone:
//! `model.*` occurs in the thinker and in the talker. Each folder has its shards in
//! `model.safetensors.index.json`, or is `model.safetensors` alone, or is every `*.safetensors` of
//! the folder.

mod configs;
mod error;
mod file;
mod header;
mod index;
mod layout;
mod tensor;
#[cfg(test)]
mod tests;
mod values;

use std::fmt;
use std::path::{Path, PathBuf};

pub use configs::{ComponentConfig, Configs};
pub use error::{CheckpointError, Instead, ModelType};
pub(crate) use index::{list, read_json};
pub use layout::Ignored;
pub use safetensors::Dtype;
use serde_json::Value;
pub use tensor::{RawTensor, TensorSet};
pub use values::FirstBad;
pub(crate) use values::to_f32;

/// A part of the model that has its own tensors and its own config.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// Text decoder with the audio and vision towers.
    Thinker,
    /// Speech decoder with the code predictor.
    Talker,
    /// Codes to samples.
    Code2Wav,
}

impl Component {
    /// Every component, in the order of the pipeline.
    pub const ALL: [Self; 3] = [Self::Thinker, Self::Talker, Self::Code2Wav];

    /// Name of the sub-folder, and of the prefix without its dot.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Thinker => "thinker",
            Self::Talker => "talker",
            Self::Code2Wav => "code2wav",
        }
    }

    /// Key of the component in a root `config.json`.
    #[must_use]
    pub const fn config_key(self) -> &'static str {
        match self {
            Self::Thinker => "thinker_config",
            Self::Talker => "talker_config",
            Self::Code2Wav => "code2wav_config",
        }
    }

    /// The component that a `model_type` stands for, when it is one component and not the whole
    /// model.
    #[must_use]
    pub fn of_model_type(model_type: &str) -> Option<Self> {
        let name = model_type.strip_prefix("qwen3_omni_moe_")?;
        Self::ALL
            .into_iter()
            .find(|component| component.name() == name)
    }

    /// The name without this component's prefix, where it has that prefix.
    fn strip(self, name: &str) -> Option<&str> {
        name.strip_prefix(self.name())?.strip_prefix('.')
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// File that lies in a folder as long as a checkpoint in it is being written.
pub(crate) const UNFINISHED: &str = ".burn-omni-quantize.json";

/// An open checkpoint: its tensors by component, its configs, its side files.
#[derive(Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    configs: Configs,
    tensors: layout::Owners,
}

impl Checkpoint {
    /// Opens the checkpoint in `dir`: maps every weight file and checks every header; no value is
    /// read.
    ///
    /// # Errors
    /// When the folder is no checkpoint, or a file of it is absent, truncated or inconsistent.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        if !dir.exists() {
            return Err(CheckpointError::FolderMissing { dir: dir.into() });
        }
        if !dir.is_dir() {
            return Err(CheckpointError::NotAFolder { path: dir.into() });
        }
        if dir.join(UNFINISHED).exists() {
            return Err(CheckpointError::Unfinished { dir: dir.into() });
        }
        let configs = Configs::read(dir)?;
        let tensors = layout::Owners::read(dir, &configs)?;
        Ok(Self {
            dir: dir.into(),
            configs,
            tensors,
        })
    }

    /// The folder that was opened.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The tensors of a component, or `None` when the checkpoint has none.
    #[must_use]
    pub fn component(&self, component: Component) -> Option<&TensorSet> {
        self.tensors.get(component)
    }

    /// The components that have tensors.
    pub fn components(&self) -> impl Iterator<Item = &TensorSet> {
        Component::ALL
            .into_iter()
            .filter_map(|component| self.component(component))
    }

    /// The raw JSON of the configs.
    #[must_use]
    pub fn configs(&self) -> &Configs {
        &self.configs
    }

    /// Tensors on disk that belong to no component and are never read.
    #[must_use]
    pub fn ignored(&self) -> &[Ignored] {
        self.tensors.ignored()
    }

    /// Bytes of all tensors of all components, as stored.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.components().map(TensorSet::bytes).sum()
    }

    /// Gives the memory back that what was read of the weights takes; they are read again when they are looked at again.
    pub fn forget_pages(&self) {
        self.tensors
            .files()
            .for_each(file::TensorFile::forget_pages);
    }

    /// A side file such as `tokenizer_config.json`: in the folder itself, else in `thinker/`.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<PathBuf> {
        let folders = [self.dir.clone(), self.dir.join(Component::Thinker.name())];
        folders
            .into_iter()
            .map(|folder| folder.join(name))
            .find(|file| file.is_file())
    }

    /// A JSON side file such as `generation_config.json`, with its path; `None` when there is none.
    ///
    /// # Errors
    /// When the file exists and is not JSON.
    pub fn json(&self, name: &str) -> Result<Option<(PathBuf, Value)>, CheckpointError> {
        self.file(name)
            .map(|file| index::read_json(&file).map(|json| (file, json)))
            .transpose()
    }
}
