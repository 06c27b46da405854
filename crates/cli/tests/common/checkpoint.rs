//! Copies of the demo checkpoint with something broken.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::demo;

const WEIGHTS: &str = "model.safetensors";

/// A copy whose files are links until they are changed.
pub(crate) struct Broken {
    folder: TempDir,
}

/// One tensor of the weights.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dtype: String,
    pub(crate) shape: Vec<u64>,
    pub(crate) bytes: Vec<u8>,
}

impl Broken {
    /// A copy that is whole.
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        for entry in fs::read_dir(demo()).expect("the demo checkpoint") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                let path = path.canonicalize().expect("the file exists");
                let link = folder.path().join(path.file_name().expect("a name"));
                symlink(path, link).expect("a link");
            }
        }
        Self { folder }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn text(&self) -> &str {
        self.path()
            .to_str()
            .expect("a temporary folder has a plain name")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub(crate) fn remove(self, name: &str) -> Self {
        fs::remove_file(self.file(name)).expect("the file exists");
        self
    }

    pub(crate) fn write(self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        // A link is replaced and not written through.
        let _ = fs::remove_file(self.file(name));
        fs::write(self.file(name), bytes).expect("the folder can be written to");
        self
    }

    /// Changes `config.json`.
    pub(crate) fn config(self, change: impl FnOnce(&mut Value)) -> Self {
        let text = fs::read_to_string(self.file("config.json")).expect("a config");
        let mut config = serde_json::from_str(&text).expect("JSON");
        change(&mut config);
        self.write("config.json", config.to_string())
    }

    /// Changes the weights' file as bytes.
    pub(crate) fn bytes(self, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut bytes = fs::read(self.file(WEIGHTS)).expect("weights");
        change(&mut bytes);
        self.write(WEIGHTS, bytes)
    }

    /// Changes the header and leaves the data as they are.
    pub(crate) fn header(self, change: impl FnOnce(&mut Map<String, Value>)) -> Self {
        self.bytes(|bytes| {
            let (mut header, data) = split(bytes);
            change(&mut header);
            *bytes = join(&header, data);
        })
    }

    /// Changes the list of tensors and writes a sound file of them.
    pub(crate) fn tensors(self, change: impl FnOnce(&mut Vec<Tensor>)) -> Self {
        self.bytes(|bytes| {
            let (header, data) = split(bytes);
            let mut tensors = list(&header, data);
            change(&mut tensors);
            *bytes = file(&tensors);
        })
    }

    /// Deals the weights out to two shards with an index.
    pub(crate) fn in_shards(self) -> Self {
        let bytes = fs::read(self.file(WEIGHTS)).expect("weights");
        let (header, data) = split(&bytes);
        let tensors = list(&header, data);
        let (first, second) = tensors.split_at(tensors.len() / 2);
        let mut map = Map::new();
        let mut copy = self.remove(WEIGHTS);
        for (number, shard) in [first, second].into_iter().enumerate() {
            let name = format!("model-{:05}-of-00002.safetensors", number + 1);
            map.extend(
                shard
                    .iter()
                    .map(|tensor| (tensor.name.clone(), json!(name))),
            );
            copy = copy.write(&name, file(shard));
        }
        copy.write(
            "model.safetensors.index.json",
            json!({ "weight_map": map }).to_string(),
        )
    }
}

fn split(bytes: &[u8]) -> (Map<String, Value>, &[u8]) {
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
    let end = 8 + usize::try_from(length).expect("a small header");
    (
        serde_json::from_slice(&bytes[8..end]).expect("a header"),
        &bytes[end..],
    )
}

fn join(header: &Map<String, Value>, data: &[u8]) -> Vec<u8> {
    let header = serde_json::to_vec(header).expect("JSON");
    [
        &(header.len() as u64).to_le_bytes(),
        header.as_slice(),
        data,
    ]
    .concat()
}

fn list(header: &Map<String, Value>, data: &[u8]) -> Vec<Tensor> {
    let entries = header.iter().filter(|(name, _)| *name != "__metadata__");
    let tensor = |(name, entry): (&String, &Value)| {
        let number = |value: &Value| value.as_u64().expect("a number");
        let at = |i: usize| usize::try_from(number(&entry["data_offsets"][i])).expect("small");
        Tensor {
            name: name.clone(),
            dtype: entry["dtype"].as_str().expect("a dtype").into(),
            shape: entry["shape"]
                .as_array()
                .expect("a shape")
                .iter()
                .map(number)
                .collect(),
            bytes: data[at(0)..at(1)].to_vec(),
        }
    };
    entries.map(tensor).collect()
}

fn file(tensors: &[Tensor]) -> Vec<u8> {
    let mut header = Map::new();
    let mut data = Vec::new();
    for Tensor {
        name,
        dtype,
        shape,
        bytes,
    } in tensors
    {
        let start = data.len();
        data.extend(bytes);
        let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, data.len()] });
        header.insert(name.clone(), entry);
    }
    join(&header, &data)
}
