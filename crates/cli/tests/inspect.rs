//! What `inspect` shows, and every broken checkpoint that it names.

mod common;

use common::checkpoint::{Broken, Tensor};
use common::{Run, demo, run};
use serde_json::{Value, json};

fn inspect(broken: &Broken) -> Run {
    run(["inspect", "-m", broken.text()])
}

fn find<'a>(tensors: &'a mut [Tensor], name: &str) -> &'a mut Tensor {
    tensors
        .iter_mut()
        .find(|tensor| tensor.name == name)
        .expect("a tensor of the demo")
}

const NORM: &str = "thinker.model.norm.weight";

#[test]
fn the_demo_is_whole() {
    let demo = demo();
    let dir = demo.to_str().unwrap();
    let text = run(["inspect", "-m", dir, "--check"]);
    for part in [
        "qwen3_omni_moe",
        "ethan",
        "thinker",
        "BF16",
        "8 experts",
        "8192 tokens",
        "config.json",
    ] {
        assert!(text.succeeds().stdout.contains(part), "{part}: {text:#?}");
    }
    let json = run([
        "inspect",
        "-m",
        dir,
        "--check",
        "--json",
        "--max-context",
        "100",
    ])
    .succeeds()
    .json();
    assert_eq!(json["model_type"], "qwen3_omni_moe");
    assert_eq!(json["components"].as_array().unwrap().len(), 3);
    assert_eq!(json["context"], 100);
    assert_eq!(
        json["kv_bytes"].as_u64(),
        json["kv_bytes_per_token"].as_u64().map(|bytes| bytes * 100)
    );
    for none in ["problems", "bad_tensors", "ignored"] {
        assert_eq!(json[none], json!([]), "{none}");
    }
}

#[test]
fn the_plan_has_a_byte_for_a_number_of_fp8() {
    let plan = |dtype: &str| {
        let model = demo();
        let model = ["inspect", "--json", "-m", model.to_str().unwrap()];
        let settings = ["--max-context", "100", "--kv-dtype", dtype];
        run(model.into_iter().chain(settings)).succeeds().json()
    };
    let config = std::fs::read(demo().join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    let number = |name: &str| {
        let text = &config["thinker_config"]["text_config"];
        text[name].as_u64().unwrap()
    };
    let layer = 2 * number("num_key_value_heads") * number("head_dim");
    let (auto, fp8) = (plan("auto"), plan("fp8"));
    assert_eq!(
        fp8["kv_bytes_per_token"],
        layer * number("num_hidden_layers")
    );
    assert!(auto["kv_bytes"].as_u64() >= fp8["kv_bytes"].as_u64().map(|bytes| 2 * bytes));
    assert_eq!(auto["talker_kv_bytes"], fp8["talker_kv_bytes"]);
}

#[test]
fn folders_that_are_no_checkpoint() {
    run(["inspect", "-m", "/no/such/folder"])
        .fails(1, &["/no/such/folder", "no such folder"])
        .hints("not a hub name");
    let file = demo().join("config.json");
    run(["inspect", "-m", file.to_str().unwrap()])
        .fails(
            1,
            &["config.json", "expected a checkpoint folder, found a file"],
        )
        .hints("pass the folder");
    let empty = tempfile::tempdir().unwrap();
    run(["inspect", "-m", empty.path().to_str().unwrap()])
        .fails(1, &["not a checkpoint", "safetensors"]);
    std::fs::write(empty.path().join("model.gguf"), "GGUF").unwrap();
    run(["inspect", "-m", empty.path().to_str().unwrap()])
        .fails(1, &["not a checkpoint"])
        .hints("only safetensors is read");
}

#[test]
fn weight_files_that_are_cut_off_or_lie_about_their_size() {
    let cut = Broken::new().bytes(|bytes| bytes.truncate(bytes.len() - 1000));
    inspect(&cut)
        .fails(
            1,
            &["model.safetensors", "truncated, tensor `", "ends at byte"],
        )
        .hints("incomplete");
    let short = Broken::new().write("model.safetensors", "abc");
    inspect(&short)
        .fails(1, &["model.safetensors", "only 3 bytes"])
        .hints("incomplete");
    let long = Broken::new().bytes(|bytes| bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes()));
    inspect(&long).fails(
        1,
        &[
            "model.safetensors",
            "header of 18446744073709551615 bytes",
            "at most",
        ],
    );
    let junk = Broken::new().bytes(|bytes| bytes[8] = b'[');
    inspect(&junk)
        .fails(1, &["model.safetensors", "invalid header"])
        .hints("damaged");
}

#[test]
fn offsets_that_overlap_or_leave_the_file() {
    let offsets = |change: fn(u64, u64) -> (u64, u64)| {
        Broken::new().header(|header| {
            let entry = &mut header[NORM]["data_offsets"];
            let (start, end) = (entry[0].as_u64().unwrap(), entry[1].as_u64().unwrap());
            let (start, end) = change(start, end);
            *entry = json!([start, end]);
        })
    };
    let shifted = offsets(|start, end| (start.saturating_sub(64), end.saturating_sub(64)));
    inspect(&shifted).fails(1, &["model.safetensors", "overlaps tensor `"]);
    let outside = offsets(|start, end| (start + (1 << 40), end + (1 << 40)));
    inspect(&outside).fails(1, &["model.safetensors", NORM, "ends at byte"]);
    let backwards = offsets(|start, end| (end, start));
    inspect(&backwards).fails(1, &["model.safetensors", NORM, "before their start"]);
    let longer = offsets(|start, end| (start, end + 2));
    inspect(&longer).fails(
        1,
        &["model.safetensors", NORM, "takes", "data_offsets give"],
    );
}

#[test]
fn tensors_of_another_dtype_or_shape() {
    let integers = Broken::new().header(|header| header[NORM]["dtype"] = json!("I16"));
    inspect(&integers).fails(
        1,
        &[
            "model.safetensors",
            NORM,
            "expected dtype BF16, F16 or F32",
            "found I16",
        ],
    );
    let unknown = Broken::new().header(|header| header[NORM]["dtype"] = json!("Q9"));
    inspect(&unknown).fails(
        1,
        &["model.safetensors", NORM, "expected a known dtype", "Q9"],
    );
    let folded = Broken::new().header(|header| header[NORM]["shape"] = json!([2, 96]));
    inspect(&folded).fails(
        1,
        &[
            "model.safetensors",
            NORM,
            "expected shape [192], found [2, 96]",
        ],
    );
}

#[test]
fn shards_and_tensors_that_are_missing_or_nobody_asked_for() {
    let whole = Broken::new().in_shards();
    inspect(&whole).succeeds();
    let shard = whole.remove("model-00002-of-00002.safetensors");
    inspect(&shard)
        .fails(
            1,
            &[
                "model-00002-of-00002.safetensors",
                "missing shard",
                "index.json",
            ],
        )
        .hints("fetch the missing file");
    let missing = Broken::new().tensors(|tensors| tensors.retain(|tensor| tensor.name != NORM));
    inspect(&missing)
        .fails(1, &["thinker has 1 missing tensor", "`model.norm.weight`"])
        .hints("closest name");
    let unexpected = Broken::new().tensors(|tensors| {
        let mut more = find(tensors, NORM).clone();
        more.name = "thinker.model.extra.weight".into();
        tensors.push(more);
    });
    inspect(&unexpected)
        .fails(
            1,
            &["thinker has 1 unexpected tensor", "`model.extra.weight`"],
        )
        .hints("of the same model");
}

#[test]
fn speech_tensors_are_checked_too() {
    for (name, component) in [("talker.", "talker"), ("code2wav.", "code2wav")] {
        let missing = Broken::new().tensors(|tensors| {
            let first = tensors
                .iter()
                .position(|tensor| tensor.name.starts_with(name))
                .unwrap();
            tensors.remove(first);
        });
        inspect(&missing).fails(1, &[&format!("{component} has 1 missing tensor")]);
    }
}

#[test]
fn configs_that_are_no_json_lack_a_field_or_contradict_themselves() {
    let invalid = Broken::new().write("config.json", "{\"model_type\": ");
    inspect(&invalid).fails(1, &["config.json", "invalid JSON"]);
    let missing = Broken::new().config(|config| {
        config["thinker_config"]["text_config"]
            .as_object_mut()
            .unwrap()
            .remove("hidden_size");
    });
    inspect(&missing)
        .fails(
            1,
            &[
                "config.json",
                "`thinker_config.text_config.hidden_size` is missing",
            ],
        )
        .hints("no default is assumed");
    let contradiction =
        Broken::new().config(|config| config["talker_config"]["thinker_hidden_size"] = json!(100));
    inspect(&contradiction).fails(
        1,
        &[
            "config.json",
            "talker_config.thinker_hidden_size",
            "100",
            "192",
        ],
    );
    let other = Broken::new().config(|config| config["model_type"] = json!("llama"));
    inspect(&other)
        .fails(
            1,
            &["config.json", "`model_type` is", "llama", "qwen3_omni_moe"],
        )
        .hints("supported model types");
    let text = Broken::new().config(|config| *config = json!([1]));
    inspect(&text).fails(1, &["config.json", "expected a JSON object"]);
}

#[test]
fn side_files_that_are_missing() {
    let no_preprocessor = Broken::new().remove("preprocessor_config.json");
    let shown = inspect(&no_preprocessor);
    shown
        .fails(1, &["no preprocessor_config.json"])
        .hints("copy preprocessor_config.json");
    assert!(shown.stdout.contains("not there"), "{shown:#?}");
    let no_tokenizer = Broken::new().remove("tokenizer.json").remove("vocab.json");
    inspect(&no_tokenizer).fails(1, &["tokenizer.json"]);
}

#[test]
fn a_checkpoint_without_speech_says_so() {
    let mute = Broken::new()
        .tensors(|tensors| tensors.retain(|tensor| tensor.name.starts_with("thinker.")));
    let shown = inspect(&mute);
    assert!(shown.succeeds().stdout.contains("text only"), "{shown:#?}");
}

#[test]
fn weights_that_are_not_finite_are_named() {
    let sick = Broken::new().tensors(|tensors| {
        let norm = find(tensors, NORM);
        norm.bytes[4..6].copy_from_slice(&0x7fc0_u16.to_le_bytes());
        norm.bytes[8..10].copy_from_slice(&0x7f80_u16.to_le_bytes());
    });
    let checked = run(["inspect", "-m", sick.text(), "--check"]);
    checked.fails(
        1,
        &[
            "model.safetensors",
            NORM,
            "expected finite weights, found NaN at element 2",
        ],
    );
    let json: Value = run(["inspect", "-m", sick.text(), "--check", "--json"]).json();
    assert_eq!(json["bad_tensors"][0]["tensor"], NORM);
    inspect(&sick).succeeds();
}
