//! Checkpoints written by hand: good ones in every layout, and one for each thing that can be
//! wrong.

mod bad;
mod layouts;
mod properties;
mod values;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Checkpoint, CheckpointError};

/// The demo checkpoint of the repository.
const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/omni-demo");

/// A safetensors file of this header and these data bytes.
fn raw_file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(data);
    file
}

/// A safetensors file of F32 tensors with two elements, numbered from `first`.
fn file_of(names: &[&str]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let start = data.len();
        for element in 0..2_u16 {
            let value = f32::from(u16::try_from(number).expect("few names") * 2 + element);
            data.extend_from_slice(&value.to_le_bytes());
        }
        let entry = json!({"dtype": "F32", "shape": [2], "data_offsets": [start, data.len()]});
        header.insert((*name).into(), entry);
    }
    raw_file(&Value::Object(header).to_string(), &data)
}

/// Writes files into a fresh folder; names may have sub-folders.
fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let dir = TempDir::new().expect("a temporary folder");
    for (name, content) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("inside of the folder")).expect("a sub-folder");
        fs::write(path, content).expect("a file");
    }
    dir
}

fn open(dir: &TempDir) -> Result<Checkpoint, CheckpointError> {
    Checkpoint::open(dir.path())
}

/// The error of opening these files: the message with the folder cut out, and the hint.
fn error_of(files: &[(&str, &[u8])]) -> (String, Option<String>) {
    let dir = folder(files);
    let error = open(&dir).expect_err("a bad checkpoint");
    assert!(!error.to_string().contains('\n'), "one line: {error}");
    (
        shorten(&error.to_string(), dir.path()),
        error.hint().map(|hint| shorten(&hint, dir.path())),
    )
}

fn shorten(message: &str, dir: &Path) -> String {
    message.replace(&dir.display().to_string(), "DIR")
}
