//! Which safetensors files make up one folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{self, Path, PathBuf};

use serde_json::Value;

use super::CheckpointError;

/// Name of the file that maps tensors to shards.
const INDEX: &str = "model.safetensors.index.json";

/// Largest JSON file that is read, in bytes; the index of a million tensors is half of it.
const MAX_JSON: u64 = 1 << 28;

/// The weight files of one folder.
#[derive(Debug, Default)]
pub(super) struct Shards {
    /// Files to open, in name order.
    pub(super) files: Vec<PathBuf>,
    /// The index and the tensors that it promises for each file, where there is an index.
    pub(super) index: Option<(PathBuf, BTreeMap<PathBuf, Vec<String>>)>,
}

/// Finds the weight files of `dir`: those of the index, else `model.safetensors`, else every
/// `*.safetensors`.
///
/// A folder without weights is not an error here.
pub(super) fn find(dir: &Path) -> Result<Shards, CheckpointError> {
    let index = dir.join(INDEX);
    if index.is_file() {
        return from_index(dir, index);
    }
    let single = dir.join("model.safetensors");
    if single.is_file() {
        return Ok(Shards {
            files: vec![single],
            index: None,
        });
    }
    let files: Vec<PathBuf> = list(dir)?
        .into_iter()
        .filter(|file| has_extension(file, "safetensors"))
        .collect();
    check_complete(&files)?;
    Ok(Shards { files, index: None })
}

/// The entries of a folder, sorted.
pub(crate) fn list(dir: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let failed = |cause| CheckpointError::Io {
        file: dir.into(),
        cause,
    };
    let mut paths = fs::read_dir(dir)
        .map_err(failed)?
        .map(|entry| entry.map(|entry| entry.path()).map_err(failed))
        .collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    Ok(paths)
}

/// Whether the file name ends in `.extension`, in any case.
pub(super) fn has_extension(file: &Path, extension: &str) -> bool {
    file.extension()
        .is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

/// Reads a JSON file of a sane size.
pub(crate) fn read_json(file: &Path) -> Result<Value, CheckpointError> {
    let failed = |cause| CheckpointError::Io {
        file: file.into(),
        cause,
    };
    let metadata = fs::metadata(file).map_err(failed)?;
    if !metadata.is_file() {
        return Err(CheckpointError::NotAFile { file: file.into() });
    }
    if metadata.len() > MAX_JSON {
        return Err(CheckpointError::JsonTooLarge {
            file: file.into(),
            limit: MAX_JSON,
            found: metadata.len(),
        });
    }
    let mut text = Vec::new();
    File::open(file)
        .map_err(failed)?
        .take(MAX_JSON)
        .read_to_end(&mut text)
        .map_err(failed)?;
    serde_json::from_slice(&text).map_err(|error| CheckpointError::InvalidJson {
        file: file.into(),
        detail: format!("invalid JSON: {error}"),
    })
}

fn from_index(dir: &Path, index: PathBuf) -> Result<Shards, CheckpointError> {
    let invalid = |detail: String| CheckpointError::InvalidJson {
        file: index.clone(),
        detail,
    };
    let json = read_json(&index)?;
    let weight_map = json
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| invalid("expected an object `weight_map`, found none".into()))?;
    let mut promised: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    for (tensor, shard) in weight_map {
        let shard = shard.as_str().ok_or_else(|| {
            invalid(format!(
                "weight_map.{tensor}: expected a file name, found {shard}"
            ))
        })?;
        if !stays_inside(shard) {
            return Err(CheckpointError::ShardOutside {
                index,
                shard: shard.into(),
                tensor: tensor.clone(),
            });
        }
        promised
            .entry(dir.join(shard))
            .or_default()
            .push(tensor.clone());
    }
    if let Some(file) = promised.keys().find(|file| !file.exists()) {
        return Err(CheckpointError::MissingShard {
            file: file.clone(),
            named_by: index,
        });
    }
    Ok(Shards {
        files: promised.keys().cloned().collect(),
        index: Some((index, promised)),
    })
}

/// Whether a shard name leads to a file of the folder and nowhere else.
fn stays_inside(shard: &str) -> bool {
    let mut parts = Path::new(shard).components().peekable();
    parts.peek().is_some()
        && !shard.chars().any(char::is_control)
        && parts.all(|part| matches!(part, path::Component::Normal(_)))
}

/// Checks that `a-00001-of-00003.safetensors` comes with all its siblings.
fn check_complete(files: &[PathBuf]) -> Result<(), CheckpointError> {
    let present: BTreeSet<&Path> = files.iter().map(PathBuf::as_path).collect();
    for file in files {
        let Some((stem, width, count)) = shard_family(file) else {
            continue;
        };
        // A count beyond the files present has a gap within the first `files.len() + 1` numbers.
        let sibling = (1..=count.min(files.len() + 1)).map(|number| {
            file.with_file_name(format!(
                "{stem}-{number:0width$}-of-{count:0width$}.safetensors"
            ))
        });
        for sibling in sibling {
            if !present.contains(sibling.as_path()) {
                return Err(CheckpointError::MissingShard {
                    file: sibling,
                    named_by: file.clone(),
                });
            }
        }
    }
    Ok(())
}

/// `model-00002-of-00015.safetensors` → (`model`, 5, 15).
fn shard_family(file: &Path) -> Option<(&str, usize, usize)> {
    let stem = file.file_name()?.to_str()?.strip_suffix(".safetensors")?;
    let (stem, count) = stem.rsplit_once("-of-")?;
    let (stem, number) = stem.rsplit_once('-')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let same = number.len() == count.len() && digits(number) && digits(count);
    (same && count.len() <= 9)
        .then(|| count.parse().ok())?
        .map(|total| (stem, count.len(), total))
}
