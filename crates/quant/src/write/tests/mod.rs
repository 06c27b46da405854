mod content;
mod drawn;
mod interrupted;
mod refused;

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize_to_file};
use serde_json::json;
use tempfile::TempDir;

use crate::checkpoint::Checkpoint;
use crate::write::{Form, Plan, Replace, Summary, Watcher, WriteError, WriteOptions};

/// A small checkpoint and a place beside it.
struct Source {
    folder: TempDir,
}

/// A BF16 tensor.
type Tensor = (String, Vec<usize>, Vec<f32>);

fn tensor(name: &str, shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    // Other values for every name, of both signs.
    let seed = name.bytes().map(usize::from).sum::<usize>();
    let value = |i: usize| ((i * 37 + seed * 11) % 101) as f32 / 64.0 - 0.75;
    (name.into(), shape.into(), (0..count).map(value).collect())
}

/// One layer with attention and two experts, and what surrounds it.
fn tensors() -> Vec<Tensor> {
    let mut tensors = vec![
        tensor("thinker.lm_head.weight", &[8, 32]),
        tensor("thinker.model.embed_tokens.weight", &[8, 32]),
        tensor("thinker.model.layers.0.input_layernorm.weight", &[32]),
        tensor("thinker.model.layers.0.mlp.gate.weight", &[2, 32]),
        tensor("thinker.visual.blocks.0.attn.qkv.weight", &[6, 32]),
        tensor(
            "talker.model.layers.0.mlp.shared_expert.up_proj.weight",
            &[4, 32],
        ),
        tensor("talker.codec_head.weight", &[4, 32]),
        tensor("code2wav.pre_transformer.norm.weight", &[32]),
    ];
    for name in ["q", "k", "v", "o"] {
        let name = format!("thinker.model.layers.0.self_attn.{name}_proj.weight");
        tensors.push(tensor(&name, &[4, 32]));
    }
    for expert in 0..2 {
        for name in ["gate", "up", "down"] {
            let name = format!("thinker.model.layers.0.mlp.experts.{expert}.{name}_proj.weight");
            tensors.push(tensor(&name, &[4, 32]));
        }
    }
    tensors
}

fn bf16(values: &[f32]) -> Vec<u8> {
    let halves = values.iter().map(|&value| half::bf16::from_f32(value));
    halves.flat_map(half::bf16::to_le_bytes).collect()
}

impl Source {
    fn new(tensors: &[Tensor]) -> Self {
        let folder = TempDir::new().unwrap();
        let dir = folder.path().join("source");
        fs::create_dir(&dir).unwrap();
        let stored: Vec<_> = tensors
            .iter()
            .map(|(name, shape, values)| (name, shape.clone(), bf16(values)))
            .collect();
        let views = stored.iter().map(|(name, shape, bytes)| {
            let view = TensorView::new(Dtype::BF16, shape.clone(), bytes).unwrap();
            (name.as_str(), view)
        });
        serialize_to_file(views, None, &dir.join("model.safetensors")).unwrap();
        let config = json!({
            "model_type": "qwen3_omni_moe",
            "thinker_config": { "a": 1 },
            "talker_config": {},
            "code2wav_config": {},
        });
        fs::write(dir.join("config.json"), config.to_string()).unwrap();
        fs::write(dir.join("tokenizer.json"), "{}").unwrap();
        fs::write(dir.join("README.md"), "of the source").unwrap();
        Self { folder }
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("target")
    }

    fn write(&self, options: WriteOptions) -> Result<Summary, WriteError> {
        self.write_to(&self.target(), options, Replace::Nothing)
    }

    fn write_to(
        &self,
        dir: &Path,
        options: WriteOptions,
        replace: Replace,
    ) -> Result<Summary, WriteError> {
        let checkpoint = Checkpoint::open(&self.dir())?;
        let plan = Plan::new(&checkpoint, options)?;
        plan.write(dir, replace, quiet())?;
        Ok(plan.summary())
    }

    /// Writes until `steps` tensors are done, and stops.
    fn write_some(&self, options: WriteOptions, steps: usize) -> WriteError {
        let checkpoint = Checkpoint::open(&self.dir()).unwrap();
        let plan = Plan::new(&checkpoint, options).unwrap();
        let left = std::cell::Cell::new(steps);
        let watcher = Watcher {
            progress: &|_, _| {},
            stops: &|| {
                left.set(left.get().saturating_sub(1));
                left.get() == 0
            },
        };
        plan.write(&self.target(), Replace::Nothing, watcher)
            .unwrap_err()
    }
}

/// Nobody watches.
fn quiet() -> Watcher<'static> {
    Watcher {
        progress: &|_, _| {},
        stops: &|| false,
    }
}

/// Small shards.
fn in_shards(form: Form) -> WriteOptions {
    WriteOptions {
        shard_bytes: 600,
        ..WriteOptions::new(form)
    }
}

/// All files below a folder with their contents, sorted.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().to_str().unwrap();
                found.push((name.to_owned(), fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}
