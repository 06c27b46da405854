//! Checkpoints that nobody trained.

use std::cell::Cell;
use std::path::Path;

use half::bf16;
use safetensors::Dtype;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{files, quiet};
use crate::Asked;
use crate::checkpoint::{Checkpoint, CheckpointError, Component, RawTensor};
use crate::write::{Drawn, Form, Replace, SideFile, Watcher, WriteError};

/// A layer of the thinker, and a norm of code2wav.
fn drawn(form: Option<Form>) -> Drawn {
    let files = vec![SideFile {
        name: "vocab.json".into(),
        bytes: b"{}".into(),
    }];
    let config = json!({ "model_type": "qwen3_omni_moe", "thinker_config": {} });
    let mut drawn = Drawn::new(config, files, (form, false));
    let asked = |(name, shape): (&str, &[usize])| Asked {
        name: name.into(),
        shape: shape.into(),
    };
    let thinker: [(&str, &[usize]); 6] = [
        ("lm_head.weight", &[8, 64]),
        ("model.layers.0.input_layernorm.weight", &[64]),
        ("model.layers.0.mlp.gate.weight", &[2, 64]),
        ("model.layers.0.self_attn.k_proj.weight", &[4, 64]),
        ("model.layers.0.self_attn.q_proj.weight", &[4, 64]),
        ("visual.blocks.0.attn.qkv.bias", &[6]),
    ];
    drawn.add(Component::Thinker, thinker.map(asked).into());
    let norm = ("pre_transformer.norm.weight", &[5000][..]);
    drawn.add(Component::Code2Wav, vec![asked(norm)]);
    drawn
}

fn values(tensor: &RawTensor<'_>) -> Vec<f32> {
    assert_eq!(tensor.dtype, Dtype::BF16, "{}", tensor.name);
    let (halves, _) = tensor.bytes.as_chunks();
    let values = halves
        .iter()
        .map(|half| bf16::from_le_bytes(*half).to_f32());
    values.collect()
}

fn write(drawn: &Drawn, dir: &Path) -> Checkpoint {
    let plan = drawn.plan();
    plan.write(dir, Replace::Nothing, quiet()).unwrap();
    Checkpoint::open(dir).unwrap()
}

#[test]
fn values_are_sane() {
    let folder = TempDir::new().unwrap();
    for form in [Form::CompressedTensors, Form::Mxfp4] {
        let checkpoint = write(&drawn(Some(form)), &folder.path().join(form.name()));
        let thinker = checkpoint.component(Component::Thinker).unwrap();
        let get = |name: &str| thinker.require(name).unwrap();
        let layer = |name: &str| get(&format!("model.layers.0.{name}"));
        assert_eq!(values(&layer("input_layernorm.weight")), [1.0; 64]);
        assert_eq!(values(&get("visual.blocks.0.attn.qkv.bias")), [0.0; 6]);
        let head = values(&get("lm_head.weight"));
        let spread = head.iter().map(|x| x * x).sum::<f32>() / head.len() as f32;
        assert!((0.014..0.022).contains(&spread.sqrt()), "{spread}");
        assert_ne!(head[..128], values(&layer("mlp.gate.weight"))[..]);
        let [q, k] = ["q", "k"].map(|name| layer(&format!("self_attn.{name}_proj.weight_packed")));
        assert_eq!((q.dtype, q.shape), (Dtype::U8, &[4, 32][..]));
        assert_ne!(q.bytes, k.bytes);
        let scales = layer("self_attn.q_proj.weight_scale");
        let scale = "self_attn.q_proj.weight_global_scale";
        let range = if form == Form::Mxfp4 {
            assert_eq!((scales.dtype, scales.shape), (Dtype::U8, &[4, 2][..]));
            assert!(!thinker.contains(&format!("model.layers.0.{scale}")));
            0x76..=0x79
        } else {
            assert_eq!((scales.dtype, scales.shape), (Dtype::F8_E4M3, &[4, 4][..]));
            let divisor = layer(scale).to_f32().unwrap()[0];
            assert!((2200.0..2250.0).contains(&divisor), "{divisor}");
            0x40..=0x5F
        };
        assert!(scales.bytes.iter().all(|scale| range.contains(scale)));
        let sound = checkpoint.component(Component::Code2Wav).unwrap();
        let norm = values(&sound.require("pre_transformer.norm.weight").unwrap());
        assert_eq!(norm, [1.0; 5000]);
    }
}

#[test]
fn the_config_names_the_form_where_there_is_one() {
    let folder = TempDir::new().unwrap();
    let config = |form: Option<Form>| -> Value {
        let dir = folder.path().join(form.map_or("bf16", Form::name));
        let checkpoint = write(&drawn(form), &dir);
        assert_eq!(std::fs::read(dir.join("vocab.json")).unwrap(), b"{}");
        checkpoint.configs().root().unwrap().document.clone()
    };
    assert!(config(None).get("quantization_config").is_none());
    let nvfp4 = &config(Some(Form::CompressedTensors))["quantization_config"];
    assert_eq!(nvfp4["format"], "nvfp4-pack-quantized");
    assert!(
        nvfp4["ignore"]
            .as_array()
            .unwrap()
            .contains(&"thinker.lm_head".into()),
        "{nvfp4}"
    );
    let mxfp4 = &config(Some(Form::Mxfp4))["quantization_config"];
    assert_eq!(mxfp4["format"], "mxfp4-pack-quantized");
}

#[test]
fn the_progress_ends_with_all() {
    let folder = TempDir::new().unwrap();
    for form in [None, Some(Form::CompressedTensors), Some(Form::Mxfp4)] {
        let drawn = drawn(form);
        let last = Cell::new((0, 1));
        let watcher = Watcher {
            progress: &|done, total| last.set((done, total)),
            stops: &|| false,
        };
        let dir = folder.path().join(form.map_or("bf16", Form::name));
        drawn.plan().write(&dir, Replace::Nothing, watcher).unwrap();
        let (done, total) = last.get();
        assert_eq!(done, total, "{form:?}");
    }
}

#[test]
fn a_stopped_run_is_no_checkpoint_and_goes_on() {
    let folder = TempDir::new().unwrap();
    let drawn = drawn(Some(Form::CompressedTensors));
    let plan = || drawn.plan_in_shards(600);
    let whole = folder.path().join("whole");
    plan().write(&whole, Replace::Nothing, quiet()).unwrap();
    let whole = files(&whole);
    assert!(
        whole
            .iter()
            .any(|(name, _)| name == "model.safetensors.index.json")
    );
    for steps in 2..=9 {
        let dir = folder.path().join("target");
        let left = Cell::new(steps);
        let watcher = Watcher {
            progress: &|_, _| {},
            stops: &|| {
                left.set(left.get() - 1);
                left.get() == 0
            },
        };
        let error = plan().write(&dir, Replace::Nothing, watcher).unwrap_err();
        assert!(matches!(error, WriteError::Interrupted), "{error}");
        if dir.exists() {
            let error = Checkpoint::open(&dir).unwrap_err();
            assert!(
                matches!(error, CheckpointError::Unfinished { .. }),
                "{error}"
            );
            let other = drawn.plan().write(&dir, Replace::Nothing, quiet());
            assert!(matches!(other, Err(WriteError::OtherRun { .. })));
        }
        plan().write(&dir, Replace::Nothing, quiet()).unwrap();
        assert!(files(&dir) == whole, "{steps} steps");
        std::fs::remove_dir_all(dir).unwrap();
    }
}

#[test]
fn a_folder_with_something_in_it_is_left_as_it_is() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    let error = drawn(None)
        .plan()
        .write(folder.path(), Replace::Nothing, quiet());
    assert!(matches!(error, Err(WriteError::NotEmpty { .. })));
    assert_eq!(files(folder.path()).len(), 1);
}
