//! The source's small files: tokenizer, templates, generation settings, licence; not its model card, which is of another
//! checkpoint.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::checkpoint::{Component, list};
use crate::write::{Form, WriteError};

/// Endings of files with weights.
const WEIGHTS: [&str; 9] = [
    "safetensors",
    "bin",
    "gguf",
    "pt",
    "pth",
    "ckpt",
    "onnx",
    "h5",
    "msgpack",
];

/// The files, each with its path in the destination.
pub(super) fn files(form: Form, source: &Path) -> Result<Vec<(PathBuf, PathBuf)>, WriteError> {
    let mut folders = vec![PathBuf::new()];
    folders.extend(Component::ALL.map(|component| PathBuf::from(component.name())));
    let mut taken = BTreeSet::new();
    let mut files = Vec::new();
    for folder in folders {
        let from = source.join(&folder);
        if !from.is_dir() {
            continue;
        }
        for path in list(&from)?.into_iter().filter(|path| is_side_file(path)) {
            let name = path.file_name().unwrap_or_default();
            let target = match form.is_split() {
                true => folder.join(name),
                false => name.into(),
            };
            // Into one folder goes that of the first folder that has it.
            if taken.insert(target.clone()) {
                files.push((path, target));
            }
        }
    }
    Ok(files)
}

/// Whether a file is to lie beside the weights as it is.
fn is_side_file(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map(OsStr::to_ascii_lowercase);
    let is_weights = extension.is_some_and(|own| WEIGHTS.iter().any(|weights| own == *weights));
    path.is_file()
        && !name.starts_with('.')
        && !["config.json", "README.md"].contains(&name.as_ref())
        && !name.ends_with(".index.json")
        && !is_weights
}
