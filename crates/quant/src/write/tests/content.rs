//! What is in the files.

use std::fs;

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use super::{Source, bf16, files, in_shards, tensor, tensors};
use crate::checkpoint::{Checkpoint, Component, read_json};
use crate::quantize::{Convention, Matrix, nvfp4};
use crate::write::{Form, Plan, WriteOptions};

const ATTENTION: &str = "model.layers.0.self_attn";
const EXPERTS: &str = "model.layers.0.mlp.experts";

fn values(name: &str) -> Vec<f32> {
    let tensors = tensors();
    let (.., values) = tensors.iter().find(|(own, ..)| own == name).unwrap();
    values.clone()
}

fn amax(names: &[&str]) -> f32 {
    let values = names.iter().flat_map(|name| values(name));
    values.fold(0.0, |amax: f32, value| amax.max(value.abs()))
}

#[test]
fn a_split_tree_of_modelopt() {
    let source = Source::new(&tensors());
    let summary = source.write(WriteOptions::new(Form::ModelOpt)).unwrap();
    assert_eq!((summary.tensors, summary.quantized), (18, 10));
    let names: Vec<_> = files(&source.target()).into_iter().map(|f| f.0).collect();
    let expected = [
        "code2wav/config.json",
        "code2wav/model.safetensors",
        "config.json",
        "talker/config.json",
        "talker/model.safetensors",
        "thinker/config.json",
        "thinker/hf_quant_config.json",
        "thinker/model.safetensors",
        "tokenizer.json",
    ];
    assert_eq!(names, expected);
    let checkpoint = Checkpoint::open(&source.target()).unwrap();
    let thinker = checkpoint.component(Component::Thinker).unwrap();
    let stored = |name: String| thinker.get(&name).unwrap_or_else(|| panic!("{name}"));
    // Query, key and value share a scale.
    let names = ["q", "k", "v"].map(|x| format!("thinker.{ATTENTION}.{x}_proj.weight"));
    let shared = amax(&[&names[0], &names[1], &names[2]]);
    for (letter, name) in ["q", "k", "v"].iter().zip(&names) {
        let values = values(name);
        let expected = nvfp4(Matrix::of_values(&values, 32), shared, Convention::ModelOpt);
        let weight = stored(format!("{ATTENTION}.{letter}_proj.weight"));
        assert_eq!((weight.dtype, weight.shape), (Dtype::U8, &[4, 16][..]));
        assert_eq!(weight.bytes, expected.codes);
        let scale = stored(format!("{ATTENTION}.{letter}_proj.weight_scale"));
        assert_eq!((scale.dtype, scale.shape), (Dtype::F8_E4M3, &[4, 2][..]));
        assert_eq!(scale.bytes, expected.scales);
        let tensor_scale = stored(format!("{ATTENTION}.{letter}_proj.weight_scale_2"));
        assert_eq!(tensor_scale.shape, &[0; 0]);
        assert_eq!(tensor_scale.to_f32().unwrap(), [shared / 2688.0]);
    }
    // Each expert's gate and up share one, and other experts have others.
    let scale = |name: &str| stored(format!("{EXPERTS}.{name}_proj.weight_scale_2")).bytes;
    assert_eq!(scale("0.gate"), scale("0.up"));
    // The rest is as it was.
    for name in [
        "lm_head",
        "model.layers.0.mlp.gate",
        "visual.blocks.0.attn.qkv",
    ] {
        let own = stored(format!("{name}.weight"));
        assert_eq!(own.dtype, Dtype::BF16);
        assert_eq!(own.bytes, bf16(&values(&format!("thinker.{name}.weight"))));
    }
}

#[test]
fn configs_say_what_is_in_the_files() {
    let source = Source::new(&tensors());
    source.write(WriteOptions::new(Form::ModelOpt)).unwrap();
    let read = |name: &str| read_json(&source.target().join(name)).unwrap();
    let thinker = read("thinker/config.json");
    assert_eq!(thinker["a"], 1);
    let quantization = &thinker["quantization_config"];
    assert_eq!(quantization["quant_method"], "modelopt");
    let group = &quantization["config_groups"]["group_0"];
    assert_eq!(group["input_activations"], Value::Null);
    assert_eq!(group["weights"]["group_size"], 16);
    let ignored = [
        "lm_head",
        "model.embed_tokens",
        "model.layers.0.mlp.gate",
        "visual*",
    ];
    let listed = quantization["ignore"].as_array().unwrap();
    assert_eq!(listed.len(), 4, "{listed:?}");
    assert!(listed.iter().all(|own| {
        let own = own.as_str().unwrap();
        ignored.contains(&own) || own == "model.layers.*.mlp.gate"
    }));
    let own = read("thinker/hf_quant_config.json");
    assert_eq!(
        own["quantization"]["exclude_modules"],
        quantization["ignore"]
    );
    assert_eq!(
        own["quantization"]["quant_algo"],
        quantization["quant_algo"]
    );
    assert!(
        read("talker/config.json")
            .get("quantization_config")
            .is_none()
    );
    assert_eq!(
        fs::read(source.target().join("config.json")).unwrap(),
        fs::read(source.dir().join("config.json")).unwrap()
    );
}

#[test]
fn one_folder_of_compressed_tensors() {
    for (form, block, dtype) in [
        (Form::CompressedTensors, 16, Dtype::F8_E4M3),
        (Form::Mxfp4, 32, Dtype::U8),
    ] {
        let source = Source::new(&tensors());
        let options = WriteOptions {
            talker: true,
            head: true,
            ..WriteOptions::new(form)
        };
        let summary = source.write(options).unwrap();
        assert_eq!(summary.quantized, 13);
        let bytes = fs::read(source.target().join("model.safetensors")).unwrap();
        let stored = SafeTensors::deserialize(&bytes).unwrap();
        let head = "thinker.lm_head";
        assert_eq!(
            stored
                .tensor(&format!("{head}.weight_packed"))
                .unwrap()
                .shape(),
            [8, 16]
        );
        let scale = stored.tensor(&format!("{head}.weight_scale")).unwrap();
        assert_eq!(
            (scale.dtype(), scale.shape()),
            (dtype, &[8, 32 / block][..])
        );
        let global = stored.tensor(&format!("{head}.weight_global_scale"));
        assert_eq!(global.is_ok(), form == Form::CompressedTensors);
        if let Ok(global) = global {
            assert_eq!(global.shape(), [1]);
        }
        let config = read_json(&source.target().join("config.json")).unwrap();
        assert_eq!(config["thinker_config"]["a"], 1);
        let quantization = &config["quantization_config"];
        assert_eq!(
            quantization["config_groups"]["group_0"]["weights"]["group_size"],
            block
        );
        let ignored = quantization["ignore"].as_array().unwrap();
        assert!(
            ignored.contains(&"re:thinker\\.visual.*".into()),
            "{ignored:?}"
        );
        assert!(
            ignored.contains(&"thinker.model.embed_tokens".into()),
            "{ignored:?}"
        );
        Checkpoint::open(&source.target()).unwrap();
    }
}

#[test]
fn shards_have_an_index_and_aligned_tensors() {
    let mut tensors = tensors();
    // 8 bytes of codes, a byte of scale and 4 of tensor scale: 13.
    tensors.push(tensor(
        "thinker.model.layers.0.mlp.down_proj.weight",
        &[1, 16],
    ));
    tensors.push(tensor("thinker.model.norm.weight", &[3]));
    let source = Source::new(&tensors);
    let whole = WriteOptions::new(Form::CompressedTensors);
    for options in [whole, in_shards(Form::CompressedTensors)] {
        let shards = options.shard_bytes == 600;
        let dir = source.folder.path().join(format!("{shards}"));
        source
            .write_to(&dir, options, crate::write::Replace::Nothing)
            .unwrap();
        let index = dir.join("model.safetensors.index.json");
        assert_eq!(index.is_file(), shards);
        let mut total = 0;
        let mut names = 0;
        for (name, bytes) in files(&dir).iter().filter(|f| f.0.ends_with(".safetensors")) {
            let (head, metadata) = SafeTensors::read_metadata(bytes).unwrap();
            assert_eq!((8 + head) % 8, 0);
            for (tensor, info) in metadata.tensors() {
                let size = info.dtype.bitsize() / 8;
                assert_eq!(info.data_offsets.0 % size, 0, "{tensor} of {name}");
                names += 1;
                if shards {
                    let map = &read_json(&index).unwrap()["weight_map"];
                    assert_eq!(map[&tensor], **name, "{tensor}");
                }
            }
            total += bytes.len() - 8 - head;
        }
        assert_eq!(names, tensors.len() + 2 * 11);
        if shards {
            let index = read_json(&index).unwrap();
            assert_eq!(index["metadata"]["total_size"], total);
            assert_eq!(index["weight_map"].as_object().unwrap().len(), names);
        }
    }
}

#[test]
fn stacks_of_experts_are_written_one_by_one() {
    let mut stacked = tensors();
    stacked.retain(|(name, ..)| !name.contains(".experts."));
    let join = |names: &[String]| names.iter().flat_map(|name| values(name)).collect();
    let all = |parts: &[&str]| {
        let names = (0..2).flat_map(|e| {
            let name = move |part| format!("thinker.{EXPERTS}.{e}.{part}_proj.weight");
            parts.iter().map(name)
        });
        join(&names.collect::<Vec<_>>())
    };
    stacked.push((
        format!("thinker.{EXPERTS}.gate_up_proj"),
        vec![2, 8, 32],
        all(&["gate", "up"]),
    ));
    stacked.push((
        format!("thinker.{EXPERTS}.down_proj"),
        vec![2, 4, 32],
        all(&["down"]),
    ));
    let listed = Source::new(&tensors());
    let stacked = Source::new(&stacked);
    let options = WriteOptions::new(Form::ModelOpt);
    assert_eq!(
        listed.write(options.clone()).unwrap(),
        stacked.write(options).unwrap()
    );
    assert!(files(&listed.target()) == files(&stacked.target()));
}

#[test]
fn what_is_ignored_stays() {
    let source = Source::new(&tensors());
    let options = WriteOptions {
        ignore: [
            "thinker.model.layers.0.self_attn",
            "*.1.up_proj",
            "nothing*",
        ]
        .map(|glob| glob.parse().unwrap())
        .into(),
        ..WriteOptions::new(Form::ModelOpt)
    };
    let checkpoint = Checkpoint::open(&source.dir()).unwrap();
    let plan = Plan::new(&checkpoint, options.clone()).unwrap();
    assert_eq!(plan.summary().quantized, 5);
    assert_eq!(
        plan.warnings(),
        ["--ignore 'nothing*' is the name of no module"]
    );
    source.write(options).unwrap();
    let written = Checkpoint::open(&source.target()).unwrap();
    let thinker = written.component(Component::Thinker).unwrap();
    let up = thinker.get(&format!("{EXPERTS}.1.up_proj.weight")).unwrap();
    assert_eq!(up.dtype, Dtype::BF16);
    let scale = thinker.get(&format!("{EXPERTS}.1.gate_proj.weight_scale_2"));
    let name = format!("thinker.{EXPERTS}.1.gate_proj.weight");
    assert_eq!(scale.unwrap().to_f32().unwrap(), [amax(&[&name]) / 2688.0]);
}

#[test]
fn widths_that_are_not_of_whole_blocks_stay() {
    let mut tensors = tensors();
    tensors.push(tensor(
        "thinker.model.layers.0.mlp.down_proj.weight",
        &[2, 48],
    ));
    tensors.push(tensor(
        "thinker.model.layers.0.mlp.up_proj.weight",
        &[2, 40],
    ));
    let source = Source::new(&tensors);
    let checkpoint = Checkpoint::open(&source.dir()).unwrap();
    for (form, odd) in [(Form::ModelOpt, &[40][..]), (Form::Mxfp4, &[48, 40])] {
        let plan = Plan::new(&checkpoint, WriteOptions::new(form)).unwrap();
        assert_eq!(plan.warnings().len(), odd.len());
        for (warning, width) in plan.warnings().iter().zip(odd) {
            assert!(
                warning.contains(&format!("width {width} is no multiple")),
                "{warning}"
            );
        }
        assert_eq!(plan.summary().quantized, 12 - odd.len());
    }
}

#[test]
fn a_split_source_gives_the_same_single_folder() {
    let source = Source::new(&tensors());
    source
        .write(WriteOptions::new(Form::CompressedTensors))
        .unwrap();
    // A dense split tree: the same files as a talker that stays as it is, for all components.
    let split = Source::new(&[]);
    fs::remove_dir_all(split.dir()).unwrap();
    for component in Component::ALL {
        let prefix = format!("{component}.");
        let own: Vec<_> = tensors()
            .into_iter()
            .filter_map(|(name, shape, values)| {
                Some((name.strip_prefix(&prefix)?.to_owned(), shape, values))
            })
            .collect();
        let part = Source::new(&own);
        let folder = split.dir().join(component.name());
        fs::create_dir_all(&folder).unwrap();
        fs::copy(
            part.dir().join("model.safetensors"),
            folder.join("model.safetensors"),
        )
        .unwrap();
        let config = if component == Component::Thinker {
            "{\"a\": 1}"
        } else {
            "{}"
        };
        fs::write(folder.join("config.json"), config).unwrap();
    }
    split
        .write(WriteOptions::new(Form::CompressedTensors))
        .unwrap();
    let weights = |source: &Source| fs::read(source.target().join("model.safetensors")).unwrap();
    assert!(weights(&source) == weights(&split));
    let config = read_json(&split.target().join("config.json")).unwrap();
    assert_eq!(config["model_type"], "qwen3_omni_moe");
    assert_eq!(config["thinker_config"]["a"], 1);
    Checkpoint::open(&split.target()).unwrap();
}
