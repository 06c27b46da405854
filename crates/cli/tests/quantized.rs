//! Quantized checkpoints: written, shown, answered with, and broken.
#![allow(clippy::unwrap_used, reason = "what tests share is a part of them")]

mod common;

use std::fs;
use std::path::Path;

use common::checkpoint::{Broken, Tensor};
use common::{demo, run};
use serde_json::json;
use tempfile::TempDir;

const QUESTION: [&str; 2] = ["-p", "What is three plus four?"];
const SCALE: &str = "thinker.model.layers.0.self_attn.q_proj.weight_scale";

/// The demo as one folder in compressed-tensors' NVFP4.
fn quantized() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model");
    let (source, target) = (demo(), target.to_str().unwrap().to_owned());
    let source = source.to_str().unwrap();
    run(["quantize", source, &target, "--format", "nvfp4-ct"]).succeeds();
    folder
}

/// A quantized checkpoint with some of its tensors changed.
fn changed(change: impl FnOnce(&mut Vec<Tensor>)) -> Broken {
    let folder = quantized();
    let model = folder.path().join("model");
    let copy = |broken: Broken, name: &str| {
        let bytes = fs::read(model.join(name)).unwrap();
        broken.write(name, bytes)
    };
    let weights = fs::read_dir(&model)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let [weights] = weights
        .filter(|path| path.extension().is_some_and(|end| end == "safetensors"))
        .collect::<Vec<_>>()
        .try_into()
        .unwrap();
    let bytes = fs::read(weights).unwrap();
    copy(Broken::new(), "config.json")
        .write("model.safetensors", bytes)
        .tensors(change)
}

fn find<'a>(tensors: &'a mut [Tensor], name: &str) -> &'a mut Tensor {
    tensors
        .iter_mut()
        .find(|tensor| tensor.name == name)
        .unwrap_or_else(|| panic!("no {name}"))
}

fn answer(folder: &Path) -> common::Run {
    run(
        ["run", "-m", folder.to_str().unwrap(), "--temperature", "0"]
            .into_iter()
            .chain(QUESTION),
    )
}

#[test]
fn quantized_on_loading_it_still_answers() {
    let demo = demo();
    let dir = demo.to_str().unwrap();
    for format in ["nvfp4", "mxfp4"] {
        let args = ["run", "-m", dir, "--quantize", format]
            .into_iter()
            .chain(QUESTION);
        let said = run(args);
        assert_eq!(said.succeeds().stdout.trim(), "Seven.", "{format}");
        assert!(!said.stderr.contains("warning: "), "{said:#?}");
        let shown = run(["inspect", "-m", dir, "--quantize", format, "--json"])
            .succeeds()
            .json();
        let whole = run(["inspect", "-m", dir, "--json"]).succeeds().json();
        let bytes = |report: &serde_json::Value| report["weights_bytes"].as_u64().unwrap();
        assert!(bytes(&shown) < bytes(&whole));
        assert_eq!(
            shown["components"][0]["parameters"],
            whole["components"][0]["parameters"]
        );
        let stored = shown["components"][0]["stored"].as_array().unwrap();
        let name = format.to_uppercase();
        assert!(
            stored.iter().any(|stored| stored[0] == json!(name)),
            "{stored:?}"
        );
    }
}

#[test]
fn the_head_is_quantized_where_that_is_wanted() {
    let demo = demo();
    let dir = demo.to_str().unwrap();
    let head = ["--quantize", "nvfp4", "--quantize-head"];
    let said = run(["run", "-m", dir].into_iter().chain(head).chain(QUESTION));
    assert_eq!(said.succeeds().stdout.trim(), "Seven.");
    let bytes = |args: &[&str]| {
        let shown = run(["inspect", "-m", dir, "--json"]
            .into_iter()
            .chain(args.iter().copied()));
        shown.succeeds().json()["weights_bytes"].as_u64().unwrap()
    };
    // 1024 x 192 weights of 16 bits become codes, a scale for 16 of them and a factor a row.
    let saved = 1024 * (192 * 2 - 192 / 2 - 192 / 16 - 4);
    assert_eq!(bytes(&head[..2]) - bytes(&head), saved);
    for command in [&["run", "-p", "Hello!"][..], &["chat"], &["inspect"]] {
        let flags = ["-m", dir, "--quantize-head"];
        let alone = run(command.iter().copied().chain(flags));
        alone.fails(2, &["--quantize-head: nothing is quantized on loading"]);
    }
}

#[test]
fn a_quantized_checkpoint_is_shown_checked_and_answered_with() {
    let folder = quantized();
    let model = folder.path().join("model");
    let shown = run(["inspect", "-m", model.to_str().unwrap(), "--check"]);
    assert!(shown.succeeds().stdout.contains("NVFP4"), "{shown:#?}");
    assert!(!shown.stderr.contains("warning: "), "{shown:#?}");
    let said = answer(&model);
    assert_eq!(said.succeeds().stdout.trim(), "Seven.");
    assert!(!said.stderr.contains("warning: "), "{said:#?}");
}

#[test]
fn a_scale_that_is_nan_is_told_and_found() {
    let broken = changed(|tensors| find(tensors, SCALE).bytes[5] = 0x7F);
    let said = answer(broken.path());
    said.succeeds();
    let warning = format!("warning: `{SCALE}`: 1 scale byte is NaN, taken as 448");
    assert_eq!(
        said.stderr
            .lines()
            .filter(|line| **line == *warning)
            .count(),
        1,
        "{said:#?}"
    );
    run(["inspect", "-m", broken.text(), "--check"]).fails(
        1,
        &[SCALE, "expected finite weights, found NaN at element 5"],
    );
}

#[test]
fn a_missing_tensor_scale_is_named() {
    let name = "model.layers.0.self_attn.q_proj.weight_global_scale";
    let broken = changed(|tensors| tensors.retain(|tensor| !tensor.name.ends_with(name)));
    answer(broken.path()).fails(1, &["thinker has 1 missing tensor", name]);
    let zero = changed(|tensors| find(tensors, &format!("thinker.{name}")).bytes.fill(0));
    answer(zero.path()).fails(1, &[name, "expected a factor above 0, found 0"]);
}

#[test]
fn a_config_that_disagrees_is_told_once() {
    let demo = Broken::new().config(|config| {
        config["quantization_config"] = json!({
            "quant_method": "modelopt",
            "quant_algo": "NVFP4",
            "ignore": ["talker*", "code2wav*", "*audio_tower*", "*visual*", "*lm_head", "*mlp.gate", "re:("],
            "config_groups": {"group_0": {"targets": ["Linear"]}},
        });
    });
    let demo = demo.write("modelopt_state.pth", "no pickle is opened");
    let said = answer(demo.path());
    assert_eq!(said.succeeds().stdout.trim(), "Seven.");
    let warnings: Vec<_> = said
        .stderr
        .lines()
        .filter(|line| line.starts_with("warning: "))
        .collect();
    assert_eq!(warnings.len(), 3, "{said:#?}");
    for part in [
        "pickles never are",
        "`re:(`: not a regular expression",
        "says NVFP4, but 112 modules",
    ] {
        assert!(
            warnings.iter().any(|warning| warning.contains(part)),
            "{part}: {warnings:#?}"
        );
    }
}

#[test]
fn an_unknown_format_is_named() {
    let algorithm = |broken: Broken| {
        broken.config(|config| {
            config["quantization_config"] =
                json!({"quant_method": "modelopt", "quant_algo": "NVFP9"})
        })
    };
    let said = answer(algorithm(Broken::new()).path());
    assert!(
        said.succeeds()
            .stderr
            .contains("\"NVFP9\", which is not known"),
        "{said:#?}"
    );
    let odd = algorithm(changed(|tensors| {
        let scale = find(tensors, SCALE);
        (scale.dtype, scale.shape) = ("I8".into(), scale.shape.clone());
    }));
    answer(odd.path()).fails(1, &["q_proj", "NVFP9"]);
}
