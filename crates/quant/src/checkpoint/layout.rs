//! Who owns which tensor: by folder first, then by prefix, then by the config's `model_type`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use serde_json::Value;

use super::error::{Instead, ModelType};
use super::file::TensorFile;
use super::header::Entry;
use super::index::{self, Shards};
use super::{CheckpointError, Component, Configs, TensorSet};

/// A tensor on disk that is never read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// Full name, as on disk.
    pub name: String,
    /// The file that holds it.
    pub file: PathBuf,
}

/// The tensors of a checkpoint, handed out to their owners.
#[derive(Debug)]
pub(super) struct Owners {
    sets: BTreeMap<Component, TensorSet>,
    ignored: Vec<Ignored>,
}

/// What decides about the names in one folder.
#[derive(Clone, Copy, Debug)]
enum Rule {
    /// Everything belongs to this component.
    Folder(Component),
    /// The prefix decides; a name without one belongs to this component.
    Prefix { bare: Option<Component> },
}

/// One weight file with its tensors, and the rule of its folder.
type Opened = (Rule, TensorFile, Vec<Entry>);

impl Owners {
    /// Opens every weight file of the checkpoint in `dir`.
    pub(super) fn read(dir: &Path, configs: &Configs) -> Result<Self, CheckpointError> {
        let model_type = model_type(dir, configs);
        let folders = folders(dir, &model_type)?;
        if folders.is_empty() {
            return Err(CheckpointError::NoWeights {
                dir: dir.into(),
                instead: instead(dir)?,
            });
        }
        let mut opened = Vec::new();
        for (rule, shards) in folders {
            opened.extend(open(rule, &shards)?);
        }
        Self::hand_out(dir, opened, model_type)
    }

    pub(super) fn get(&self, component: Component) -> Option<&TensorSet> {
        self.sets.get(&component)
    }

    pub(super) fn ignored(&self) -> &[Ignored] {
        &self.ignored
    }

    /// The weight files of all components.
    pub(super) fn files(&self) -> impl Iterator<Item = &TensorFile> {
        // Every set has all files.
        self.sets.values().take(1).flat_map(TensorSet::files)
    }

    fn hand_out(
        dir: &Path,
        opened: Vec<Opened>,
        model_type: ModelType,
    ) -> Result<Self, CheckpointError> {
        let by_folder: BTreeSet<Component> = opened
            .iter()
            .filter_map(|(rule, ..)| match rule {
                Rule::Folder(component) => Some(*component),
                Rule::Prefix { .. } => None,
            })
            .collect();
        let (files, tables): (Vec<_>, Vec<_>) = opened
            .into_iter()
            .map(|(rule, file, entries)| (file, (rule, entries)))
            .unzip();
        let files: Arc<[TensorFile]> = files.into();
        let mut owners = Self {
            sets: BTreeMap::new(),
            ignored: Vec::new(),
        };
        for (number, (rule, entries)) in tables.into_iter().enumerate() {
            for entry in entries {
                let owner = rule.owner(&entry.name, &by_folder);
                let Some((component, local)) = owner.map(|(c, local)| (c, local.to_owned())) else {
                    let file = files[number].path().into();
                    owners.ignored.push(Ignored {
                        name: entry.name,
                        file,
                    });
                    continue;
                };
                let set = owners
                    .sets
                    .entry(component)
                    .or_insert_with(|| TensorSet::new(component, dir, Arc::clone(&files)));
                set.insert(&local, number, entry)?;
            }
        }
        match owners.ignored.first() {
            Some(Ignored { name, file }) if owners.sets.is_empty() => {
                Err(CheckpointError::UnknownLayout {
                    file: file.clone(),
                    tensor: name.clone(),
                    model_type,
                })
            }
            None if owners.sets.is_empty() => Err(CheckpointError::NoWeights {
                dir: dir.into(),
                instead: Instead::Nothing,
            }),
            _ => Ok(owners),
        }
    }
}

impl Rule {
    /// The owner of a tensor and its local name; `None` when nobody owns it.
    fn owner<'a>(
        self,
        name: &'a str,
        by_folder: &BTreeSet<Component>,
    ) -> Option<(Component, &'a str)> {
        let prefixed = Component::ALL
            .into_iter()
            .find_map(|component| component.strip(name).map(|local| (component, local)));
        match (self, prefixed) {
            (Self::Folder(component), Some((prefix, local))) => {
                (prefix == component).then_some((component, local))
            }
            (Self::Folder(component), None) => Some((component, name)),
            (Self::Prefix { .. }, Some(owner)) => Some(owner),
            (Self::Prefix { bare }, None) => bare.map(|component| (component, name)),
        }
        // A component that has a folder takes nothing from outside of it.
        .filter(|(owner, _)| matches!(self, Self::Folder(_)) || !by_folder.contains(owner))
    }
}

/// The folders that hold weights, with their rules.
fn folders(dir: &Path, model_type: &ModelType) -> Result<Vec<(Rule, Shards)>, CheckpointError> {
    let mut folders = Vec::new();
    for component in Component::ALL {
        let folder = dir.join(component.name());
        if folder.is_dir() {
            folders.push((Rule::Folder(component), index::find(&folder)?));
        }
    }
    let bare = match model_type {
        ModelType::Is(model_type) => Component::of_model_type(model_type),
        ModelType::NoConfig | ModelType::Absent => None,
    };
    let mut own = index::find(dir)?;
    // A root index may name the files of the sub-folders, whose rule comes first.
    own.files.retain(|file| {
        !folders
            .iter()
            .any(|(_, shards)| shards.files.contains(file))
    });
    folders.push((Rule::Prefix { bare }, own));
    folders.retain(|(_, shards)| !shards.files.is_empty());
    Ok(folders)
}

/// The `model_type` of the folder's own `config.json`.
fn model_type(dir: &Path, configs: &Configs) -> ModelType {
    let own = |config: &super::ComponentConfig<'_>| config.file.parent() == Some(dir);
    let components = Component::ALL
        .into_iter()
        .filter_map(|c| configs.component(c));
    let document = configs.root().into_iter().chain(components).find(own);
    match document.map(|config| config.document.get("model_type").and_then(Value::as_str)) {
        None => ModelType::NoConfig,
        Some(None) => ModelType::Absent,
        Some(Some(found)) => ModelType::Is(found.into()),
    }
}

/// Opens the files of one folder and compares them with its index.
fn open(rule: Rule, shards: &Shards) -> Result<Vec<Opened>, CheckpointError> {
    // Collected first so that of several errors always the same one is reported.
    let opened: Vec<_> = shards
        .files
        .par_iter()
        .map(|file| TensorFile::open(file))
        .collect();
    let opened = opened.into_iter().collect::<Result<Vec<_>, _>>()?;
    if let Some((index, promised)) = &shards.index {
        for (file, entries) in &opened {
            let present: BTreeSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
            let missing = promised
                .get(file.path())
                .into_iter()
                .flatten()
                .find(|name| !present.contains(name.as_str()));
            if let Some(tensor) = missing {
                return Err(CheckpointError::IndexedTensorMissing {
                    index: index.clone(),
                    shard: file.path().into(),
                    tensor: tensor.clone(),
                });
            }
        }
    }
    Ok(opened
        .into_iter()
        .map(|(file, entries)| (rule, file, entries))
        .collect())
}

/// What a folder without safetensors holds, for the hint.
fn instead(dir: &Path) -> Result<Instead, CheckpointError> {
    const OTHER: [&str; 6] = ["bin", "gguf", "pt", "pth", "ckpt", "onnx"];
    let paths = index::list(dir)?;
    let other = paths
        .iter()
        .find(|path| OTHER.iter().any(|ext| index::has_extension(path, ext)));
    if let Some(name) = other.and_then(|path| path.file_name()) {
        return Ok(Instead::OtherFormat(name.to_string_lossy().into_owned()));
    }
    let snapshots = dir.join("snapshots");
    let snapshot = if snapshots.is_dir() {
        index::list(&snapshots)?.pop()
    } else {
        None
    };
    Ok(snapshot.map_or(Instead::Nothing, Instead::HubCache))
}
