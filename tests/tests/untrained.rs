//! Checkpoints of random weights are loaded like published ones.

use std::collections::BTreeMap;
use std::path::Path;

use burn_omni::bench::Untrained;
use burn_omni::{
    Config, Content, Device, Engine, EngineConfig, Event, Quantize, Request, SpeechRequest,
};
use burn_omni_quant::checkpoint::{Checkpoint, Component, Dtype};
use burn_omni_quant::write::{Drawn, Replace, Watcher};
use tempfile::TempDir;

const FORMATS: [Option<Quantize>; 3] = [None, Some(Quantize::Nvfp4), Some(Quantize::Mxfp4)];

fn untrained(name: &str, quantize: Option<Quantize>) -> Untrained {
    Untrained {
        config: Config::preset(name).expect("a preset"),
        quantize,
        quantize_head: quantize.is_some(),
        speech: true,
    }
}

fn drawn(untrained: &Untrained) -> Drawn {
    let drawn = untrained.checkpoint(&Device::flex());
    drawn.expect("the vocabulary is large enough")
}

fn write(untrained: &Untrained) -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    let watcher = Watcher {
        progress: &|_, _| {},
        stops: &|| false,
    };
    let dir = folder.path().join("checkpoint");
    let drawn = drawn(untrained);
    let written = drawn.plan().write(&dir, Replace::Nothing, watcher);
    written.expect("the folder can be written to");
    folder
}

/// Names with dtypes and shapes.
fn tensors(dir: &Path) -> BTreeMap<String, (Dtype, Vec<usize>)> {
    let checkpoint = Checkpoint::open(dir).expect("a checkpoint");
    let all = checkpoint.components().flat_map(|set| set.iter());
    all.map(|(_, tensor)| {
        let form = (tensor.dtype, tensor.shape.to_vec());
        (tensor.name.to_owned(), form)
    })
    .collect()
}

#[test]
fn tensors_are_those_of_the_trained_model() {
    let demo = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/omni-demo"));
    let expected = tensors(demo);
    let folder = write(&untrained("omni-demo", None));
    let found = tensors(&folder.path().join("checkpoint"));
    assert_eq!(found, expected);
}

#[test]
fn four_bits_have_the_published_layout() {
    let dense = write(&untrained("omni-demo", None));
    let dense = tensors(&dense.path().join("checkpoint"));
    for (quantize, block, scale, parts) in [
        (Quantize::Nvfp4, 16, Dtype::F8_E4M3, 3),
        (Quantize::Mxfp4, 32, Dtype::U8, 2),
    ] {
        let folder = write(&untrained("omni-demo", Some(quantize)));
        let found = tensors(&folder.path().join("checkpoint"));
        let mut packed = 0;
        for (name, (dtype, shape)) in &dense {
            if let Some(same) = found.get(name) {
                assert_eq!(same, &(*dtype, shape.clone()), "{name}");
                continue;
            }
            packed += 1;
            let module = name.strip_suffix(".weight").expect("a matrix");
            let is_layer = module.starts_with("thinker.model.layers.") && module.ends_with("_proj");
            assert!(is_layer || module == "thinker.lm_head", "{name}");
            let [rows, width] = shape[..] else {
                panic!("{name}: {shape:?}")
            };
            let part = |name: &str| &found[&format!("{module}.{name}")];
            assert_eq!(part("weight_packed"), &(Dtype::U8, vec![rows, width / 2]));
            assert_eq!(part("weight_scale"), &(scale, vec![rows, width / block]));
            if quantize == Quantize::Nvfp4 {
                assert_eq!(part("weight_global_scale"), &(Dtype::F32, vec![1]));
            }
        }
        assert_eq!(found.len(), dense.len() + packed * (parts - 1));
        // Four layers of attention and of eight experts, and the head.
        assert_eq!(packed, 4 * (4 + 8 * 3) + 1);
    }
}

#[test]
fn every_format_answers_in_text_and_speech() {
    for quantize in FORMATS {
        let folder = write(&untrained("omni-demo", quantize));
        let config = EngineConfig::new(folder.path().join("checkpoint")).device(Device::flex());
        let engine = Engine::load(config).expect("the checkpoint can be loaded");
        assert!(!engine.template_is_fallback());
        let request = Request::new()
            .user([Content::text("Count from 2 to 6.")])
            .max_tokens(4)
            .speech(SpeechRequest {
                max_frames: Some(3),
                ..SpeechRequest::default()
            });
        let stream = engine.generate(request).expect("the request is sound");
        let events = stream.collect::<Result<Vec<_>, _>>();
        let events = events.expect("every stage gives finite numbers");
        let samples = events.iter().filter_map(|event| match event {
            Event::Audio(samples) => Some(samples.len()),
            _ => None,
        });
        assert!(samples.sum::<usize>() > 0, "{quantize:?}");
        let Some(Event::Done(answer)) = events.last() else {
            panic!("{quantize:?}: {events:?}")
        };
        assert!(!answer.text.trim().is_empty(), "{quantize:?}");
    }
}

#[test]
fn without_speech_there_is_a_thinker_alone() {
    let folder = write(&Untrained {
        speech: false,
        ..untrained("omni-demo", Some(Quantize::Nvfp4))
    });
    let dir = folder.path().join("checkpoint");
    let checkpoint = Checkpoint::open(&dir).expect("a checkpoint");
    let components: Vec<_> = checkpoint.components().map(|set| set.component()).collect();
    assert_eq!(components, [Component::Thinker]);
    let engine = Engine::load(EngineConfig::new(dir).device(Device::flex()));
    assert!(
        !engine
            .expect("a thinker can be loaded")
            .config()
            .can_speak()
    );
}

/// What is written at full size, without writing it.
#[test]
fn the_release_in_four_bits_has_its_size() {
    let untrained = untrained("qwen3-omni-30b-a3b", Some(Quantize::Nvfp4));
    let drawn = drawn(&untrained);
    let plan = drawn.plan();
    assert!(plan.warnings().is_empty(), "{:?}", plan.warnings());
    let summary = plan.summary();
    // Attention and experts of 48 layers, and the head.
    assert_eq!(summary.quantized, 48 * (4 + 128 * 3) + 1);
    let gigabytes = summary.bytes_out as f64 / 1e9;
    assert!((27.0..27.2).contains(&gigabytes), "{gigabytes}");
}
