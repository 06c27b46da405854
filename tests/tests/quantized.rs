//! The trained demo model with quantized weights, as every program that quantizes writes them: what it still knows.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use burn::tensor::Device;
use burn_omni::{Engine, EngineConfig, Quantize};
use burn_omni_tests::demo::{answers, asked, request};
use burn_omni_tests::nf4::Tables;
use burn_omni_tests::reply::run;
use burn_omni_tests::tensors::Tensors;
use burn_omni_tests::variants::{Named, Variant};
use burn_omni_tests::{read, repository};

/// Right answers that must stay, of a hundred that the BF16 weights give.
const KEPT: usize = 98;

/// What an engine answers to the cases that are asked, by their names.
type Answers = BTreeMap<String, String>;

/// What the engine answers; it fails when too many of the right answers of the BF16 weights are lost.
#[expect(clippy::print_stdout, reason = "the figures, with --nocapture")]
fn knows(name: &str, engine: &Engine) -> Answers {
    let golden = answers();
    let (mut found, mut others) = (Answers::new(), Vec::new());
    let (mut right, mut plain) = (0, 0);
    for case in asked() {
        let reply = run(engine, request(&case.messages, None)).expect("the case is sound");
        let text = reply.answer.text;
        right += usize::from(text == case.expect);
        plain += usize::from(golden[&case.id] == case.expect);
        if text != golden[&case.id] {
            others.push(format!("{}: `{text}`", case.id));
        }
        found.insert(case.id, text);
    }
    let asked = found.len();
    println!("{name}: {right} of {asked} right, {plain} with BF16 weights, {others:?} differ");
    assert!(
        right * 100 >= plain * KEPT,
        "{name}: {right} of {asked} right, {plain} with BF16 weights:\n{}",
        others.join("\n")
    );
    found
}

/// What a variant answers. One at a time: every engine takes all cores.
fn variant_knows(variant: Variant) -> Answers {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().expect("a folder for a while");
    let dir = folder.path().join("model");
    variant.write(&dir);
    let config = EngineConfig::new(&dir).device(Device::flex());
    let engine = Engine::load(config).unwrap_or_else(|error| panic!("{variant:?}: {error}"));
    knows(&format!("{variant:?}"), &engine)
}

#[test]
fn quantized_on_loading_it_knows_what_it_knew() {
    for format in [Quantize::Nvfp4, Quantize::Mxfp4] {
        for head in [false, true] {
            let config = EngineConfig::new(repository("assets/omni-demo"))
                .device(Device::flex())
                .quantize(Some(format))
                .quantize_head(head);
            let engine = Engine::load(config).expect("the demo model loads");
            let head = if head { " with the head" } else { "" };
            knows(&format!("{format:?}{head} on loading"), &engine);
        }
    }
}

#[test]
fn ours_and_modelopts_answer_the_same() {
    let [ours, modelopt] = [Variant::Ours, Variant::ModelOpt].map(variant_knows);
    assert_eq!(ours, modelopt);
}

#[test]
fn compressed_tensors_knows_what_it_knew() {
    variant_knows(Variant::CompressedTensors);
}

#[test]
fn split_folders_without_a_config_at_the_root_know_what_they_knew() {
    variant_knows(Variant::Split);
}

#[test]
fn bf16_below_the_description_of_nvfp4_answers_as_it_did() {
    let golden = answers();
    for (id, text) in variant_knows(Variant::MetadataOnly) {
        assert_eq!(text, golden[&id], "{id}");
    }
}

#[test]
fn bitsandbytes_knows_what_it_knew() {
    variant_knows(Variant::Nf4);
}

#[test]
fn eight_bits_know_what_they_knew() {
    for variant in [Variant::Fp8, Variant::Fp8Blocks, Variant::Mxfp8] {
        variant_knows(variant);
    }
}

#[test]
fn nf4_is_what_bitsandbytes_makes_of_the_same_matrices() {
    let tables = Tables::golden();
    let golden = Tensors::load(&repository("tests/golden/quant/bitsandbytes.safetensors"));
    for (name, shape) in [("k64", [1, 64]), ("cross", [3, 48]), ("odd", [3, 21])] {
        let values = &golden.require(&format!("{name}.input")).data;
        let (codes, absmax) = tables.codes(values);
        let codes: Vec<f32> = codes.into_iter().map(f32::from).collect();
        let of = |end: &str| &golden.require(&format!("{name}.nf4.{end}")).data;
        assert_eq!(&codes, of("weight"), "{name}");
        assert_eq!(&absmax, of("weight.absmax"), "{name}");
        if name != "cross" {
            continue;
        }
        let nested = tables.nested(values, shape, "float32");
        let of = |end: &str| of_nested(&golden, end);
        assert_eq!(nested.codes, of("weight"));
        assert_eq!(nested.absmax, of("weight.absmax"));
        let state = of("weight.quant_state.bitsandbytes__nf4");
        assert_eq!(nested.state.as_bytes(), state);
        let outer = golden.require("cross.nf4.nested.weight.nested_absmax");
        assert_eq!(nested.nested_absmax, outer.data);
    }
}

fn of_nested(golden: &Tensors, end: &str) -> Vec<u8> {
    let tensor = golden.require(&format!("cross.nf4.nested.{end}"));
    tensor.data.iter().map(|x| *x as u8).collect()
}

#[test]
fn nf4_of_the_demo_model_is_what_bitsandbytes_makes_of_it() {
    let (tables, demo) = (Tables::golden(), Named::demo());
    let hashes = read(&repository("tests/golden/quant/demo_nf4.txt"));
    let golden: BTreeMap<&str, &str> = hashes
        .lines()
        .map(|line| line.split_once(' ').expect("a module and its hash"))
        .collect();
    let mut others = Vec::new();
    let mut modules = 0;
    for (module, weight) in demo.quantized() {
        modules += 1;
        let (shape, values) = weight.matrix();
        let nested = tables.nested(&values, shape, "bfloat16");
        // Not the JSON, in which Python and Rust round another last digit.
        let outer = nested.nested_absmax.iter().chain([&nested.offset]);
        let outer = outer.flat_map(|x| x.to_le_bytes());
        let hash = fnv1a(nested.codes.into_iter().chain(nested.absmax).chain(outer));
        if golden.get(module) != Some(&format!("{hash:016x}").as_str()) {
            others.push(module);
        }
    }
    assert_eq!((modules, golden.len()), (112, 112));
    assert!(others.is_empty(), "{} differ: {others:#?}", others.len());
}

/// A checksum that is short to write down in both languages.
fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
    })
}
