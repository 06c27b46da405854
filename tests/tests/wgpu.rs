//! The trained demo model on a Vulkan adapter that is a program: the CPU's texts over every kind of case, and its codes.
#![allow(
    clippy::print_stdout,
    reason = "what was skipped, and how long it took"
)]

use std::sync::LazyLock;
use std::time::Instant;

use burn::tensor::Device;
use burn_omni::{Engine, EngineConfig, KvDtype, Quantize};
use burn_omni_ops::PackedFormat;
use burn_omni_ops::adapter::software_vulkan_for_test;
use burn_omni_tests::demo::{answers, cases, goldens, request};
use burn_omni_tests::drawn::{self, Drawn};
use burn_omni_tests::reply::run;
use burn_omni_tests::repository;

/// Cases of every kind: words, several turns, sounds, pictures, and pictures with sounds.
const CASES: [&str; 22] = [
    "text-000",
    "text-001",
    "text-002",
    "text-003",
    "text-004",
    "text-005",
    "chat-000",
    "chat-001",
    "chat-002",
    "chat-003",
    "audio-000",
    "audio-001",
    "audio-002",
    "audio-003",
    "audio-004",
    "image-000",
    "image-001",
    "image-002",
    "image-003",
    "av-000",
    "av-001",
    "av-002",
];
/// Golden answers that are spoken too, to words and to a sound.
const SPOKEN: [&str; 2] = ["demo-001", "speech-002"];

/// The demo model on the adapter, loaded once; nothing where there is none.
fn engine() -> Option<&'static Engine> {
    static ENGINE: LazyLock<Option<Engine>> =
        LazyLock::new(|| Some(load(software_vulkan_for_test()?, None, KvDtype::Auto)));
    ENGINE.as_ref()
}

fn load(device: Device, quantize: Option<Quantize>, kv: KvDtype) -> Engine {
    let started = Instant::now();
    let config = EngineConfig::new(repository("assets/omni-demo"))
        .device(device)
        .quantize(quantize)
        .kv_dtype(kv);
    let engine = Engine::load(config).expect("the demo model loads");
    println!("load: {:.1} s", started.elapsed().as_secs_f64());
    engine
}

#[test]
fn cases_of_every_kind_are_answered_as_on_the_cpu() {
    let Some(engine) = engine() else {
        return;
    };
    let (cases, golden) = (cases(), answers());
    let mut failures = Vec::new();
    for id in CASES {
        let case = cases.iter().find(|case| case.id == id).expect("a case");
        let started = Instant::now();
        let reply = run(engine, request(&case.messages, None)).expect("the case is sound");
        let text = &reply.answer.text;
        println!("{id}: {:.1} s, `{text}`", started.elapsed().as_secs_f64());
        if *text != golden[id] {
            failures.push(format!("{id}: `{text}`, on the CPU `{}`", golden[id]));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn spoken_answers_have_the_codes_of_the_cpu() {
    let Some(engine) = engine() else {
        return;
    };
    let goldens = goldens();
    for id in SPOKEN {
        let golden = goldens.iter().find(|golden| golden.id == id);
        let golden = golden.expect("a golden");
        let started = Instant::now();
        let voice = golden.speaker.as_deref();
        let reply = run(engine, request(&golden.messages, voice)).expect("the case is sound");
        println!("{id}: {:.1} s", started.elapsed().as_secs_f64());
        assert_eq!(reply.answer.text, golden.text, "{id}");
        let speech = reply.answer.speech.expect("speech was asked for");
        let frames = golden.frames().expect("it was spoken");
        assert_eq!(speech.codes, frames, "{id}");
        assert_eq!(Some(reply.samples.len()), golden.samples, "{id}");
        let wave = golden.wave().expect("it was spoken");
        let loudest = |samples: &mut dyn Iterator<Item = f32>| samples.fold(0.0, f32::max);
        let error = loudest(
            &mut reply
                .samples
                .iter()
                .zip(&wave)
                .map(|(found, wanted)| (found - f32::from(*wanted) / 32_768.0).abs()),
        );
        println!("{id}: samples differ by {error:.1e}");
        assert!(error < 2e-3, "{id}: samples differ by {error}");
    }
}

#[test]
fn quantized_weights_answer_as_on_the_cpu() {
    let Some(device) = software_vulkan_for_test() else {
        return;
    };
    let quantize = Some(Quantize::Nvfp4);
    let engines = [device, Device::flex()].map(|device| load(device, quantize, KvDtype::Auto));
    let (cases, goldens) = (cases(), goldens());
    for id in CASES {
        let case = cases.iter().find(|case| case.id == id).expect("a case");
        let [found, expected] = engines.each_ref().map(|engine| {
            let reply = run(engine, request(&case.messages, None)).expect("the case is sound");
            reply.answer.token_ids
        });
        assert_eq!(found, expected, "{id}");
    }
    for id in SPOKEN {
        let golden = goldens.iter().find(|golden| golden.id == id);
        let golden = golden.expect("a golden");
        let voice = golden.speaker.as_deref();
        let [found, expected] = engines.each_ref().map(|engine| {
            let reply = run(engine, request(&golden.messages, voice)).expect("the case is sound");
            reply.answer.speech.expect("speech was asked for").codes
        });
        assert!(!expected.is_empty(), "{id} is silent");
        assert_eq!(found, expected, "{id}");
    }
}

#[test]
fn fp8_caches_answer_as_on_the_cpu() {
    let Some(device) = software_vulkan_for_test() else {
        return;
    };
    let engines = [device, Device::flex()].map(|device| load(device, None, KvDtype::Fp8));
    let cases = cases();
    for id in CASES.iter().step_by(3) {
        let case = cases.iter().find(|case| case.id == *id).expect("a case");
        let [found, expected] = engines.each_ref().map(|engine| {
            let reply = run(engine, request(&case.messages, None)).expect("the case is sound");
            reply.answer.token_ids
        });
        assert_eq!(found, expected, "{id}");
    }
}

#[test]
fn every_stage_of_random_weights_is_the_cpus() {
    let Some(device) = software_vulkan_for_test() else {
        return;
    };
    for (name, format) in [("bf16", None), ("NVFP4", Some(PackedFormat::NVFP4))] {
        let model = Drawn::shallow("omni-demo", 2, format);
        drawn::decoders(&model, &device).finish(&format!("decoders, {name}"));
        drawn::answer(&model, &device).finish(&format!("an answer, {name}"));
    }
    let model = Drawn::shallow("omni-demo", 2, None);
    drawn::towers(&model, &device).finish("encoders");
    drawn::code2wav(&model, &device).finish("code2wav");
}
