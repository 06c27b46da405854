//! What stands beside the tensors: configs, indexes, and the source's other files.

mod quantization;
mod side;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::checkpoint::{Checkpoint, Component};

use super::plan::Source;
use super::{Plan, WriteError};

/// Name of the quantization in a `config.json`.
const QUANTIZATION: &str = "quantization_config";
/// Name of ModelOpt's own description.
const HF_QUANT_CONFIG: &str = "hf_quant_config.json";

/// Checks that the source has its configs, and that they are those of dense weights.
pub(super) fn check(checkpoint: &Checkpoint) -> Result<(), WriteError> {
    let configs = checkpoint.configs();
    for set in checkpoint.components() {
        let component = set.component();
        let Some(config) = configs.component(component) else {
            let dir = checkpoint.dir().into();
            return Err(WriteError::NoConfig { dir, component });
        };
        let says = [config.document, config.json];
        if says.iter().any(|json| json.get(QUANTIZATION).is_some()) {
            return Err(WriteError::Quantized {
                file: config.file.into(),
                found: format!("it has a {QUANTIZATION}"),
            });
        }
    }
    match checkpoint.file(HF_QUANT_CONFIG) {
        Some(file) => Err(WriteError::Quantized {
            file,
            found: "it describes a quantized one".into(),
        }),
        None => Ok(()),
    }
}

/// Everything but the tensors in the order in which it is written, the configs last: paths in the destination and
/// contents.
pub(super) fn documents(plan: &Plan<'_>) -> Result<Vec<(PathBuf, Vec<u8>)>, WriteError> {
    let mut documents = match plan.source {
        Source::Checkpoint(checkpoint) => side_files(plan, checkpoint)?,
        Source::Drawn(drawn) => drawn.files().collect(),
    };
    documents.extend(indexes(plan));
    documents.extend(configs(plan)?);
    Ok(documents)
}

fn side_files(
    plan: &Plan<'_>,
    checkpoint: &Checkpoint,
) -> Result<Vec<(PathBuf, Vec<u8>)>, WriteError> {
    let files = side::files(plan.options.form, checkpoint.dir())?.into_iter();
    let read = |(source, name): (PathBuf, PathBuf)| match fs::read(&source) {
        Ok(bytes) => Ok((name, bytes)),
        Err(cause) => Err(unreadable(&source, cause)),
    };
    files.map(read).collect()
}

fn unreadable(file: &Path, cause: std::io::Error) -> WriteError {
    let file = file.into();
    crate::checkpoint::CheckpointError::Io { file, cause }.into()
}

/// An index for every folder with more than one shard.
fn indexes(plan: &Plan<'_>) -> Vec<(PathBuf, Vec<u8>)> {
    let mut folders: Vec<(PathBuf, Map<String, Value>, u64, usize)> = Vec::new();
    for shard in &plan.shards {
        let folder = shard.path.parent().unwrap_or(Path::new("")).to_owned();
        let file = shard.path.file_name().unwrap_or_default();
        let file = Value::from(file.to_string_lossy());
        let names = shard.stored.iter().map(|stored| stored.name.clone());
        let entries = names.map(|name| (name, file.clone()));
        let bytes = shard.bytes - shard.head.len() as u64;
        match folders.last_mut() {
            Some((last, map, total, shards)) if *last == folder => {
                map.extend(entries);
                *total += bytes;
                *shards += 1;
            }
            _ => folders.push((folder, entries.collect(), bytes, 1)),
        }
    }
    let index = |(folder, mut map, total, _): (PathBuf, Map<String, Value>, u64, usize)| {
        map.sort_keys();
        let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
        (folder.join("model.safetensors.index.json"), pretty(&index))
    };
    folders
        .into_iter()
        .filter(|(.., shards)| *shards > 1)
        .map(index)
        .collect()
}

/// The configs, with what says how the tensors are stored.
fn configs(plan: &Plan<'_>) -> Result<Vec<(PathBuf, Vec<u8>)>, WriteError> {
    if !plan.options.form.is_split() {
        let mut config = match plan.source {
            Source::Checkpoint(checkpoint) => whole(checkpoint),
            Source::Drawn(drawn) => drawn.config().clone(),
        };
        if let Some(quantization) = quantization::compressed_tensors(plan) {
            config[QUANTIZATION] = quantization;
        }
        return Ok(vec![("config.json".into(), pretty(&config))]);
    }
    let Some(checkpoint) = plan.source.checkpoint() else {
        return Ok(Vec::new()); // made-up weights are written to one folder
    };
    let mut documents = Vec::new();
    for (component, mut config) in components(checkpoint) {
        let folder = Path::new(component.name());
        if let Some(quantization) = quantization::modelopt(plan, component) {
            config[QUANTIZATION] = quantization.in_config();
            let own = pretty(&quantization.of_its_own());
            documents.push((folder.join(HF_QUANT_CONFIG), own));
        }
        documents.push((folder.join("config.json"), pretty(&config)));
    }
    if let Some(root) = checkpoint.configs().root() {
        let bytes = fs::read(root.file).map_err(|cause| unreadable(root.file, cause))?;
        documents.push(("config.json".into(), bytes));
    }
    Ok(documents)
}

/// The components that have tensors, with their configs.
fn components(checkpoint: &Checkpoint) -> impl Iterator<Item = (Component, Value)> {
    checkpoint.components().filter_map(|set| {
        let config = checkpoint.configs().component(set.component())?;
        Some((set.component(), config.json.clone()))
    })
}

/// The config of the whole model: the source's, or one that is put together from those of its components.
fn whole(checkpoint: &Checkpoint) -> Value {
    if let Some(root) = checkpoint.configs().root() {
        return root.document.clone();
    }
    let mut config = json!({
        "architectures": ["Qwen3OmniMoeForConditionalGeneration"],
        "model_type": "qwen3_omni_moe",
    });
    for (component, own) in components(checkpoint) {
        config[component.config_key()] = own;
    }
    config
}

fn pretty(value: &Value) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("a JSON value can be written");
    text.push(b'\n');
    text
}
