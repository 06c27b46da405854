//! The trained demo model on an NVIDIA GPU: the CPU's answers, from a captured step as from one pass after another.
//!
//! Runs where `BURN_OMNI_CUDA=1` says that there is one; elsewhere it says that it did not.

use std::sync::LazyLock;

use burn::tensor::Device;
use burn_omni::{Engine, EngineConfig, KvDtype, Quantize, Request, Sampling};
use burn_omni_tests::demo::{answers, cases, goldens, request};
use burn_omni_tests::reply::run;
use burn_omni_tests::repository;

/// Cases that may be answered in other words than on the CPU.
const OTHER: usize = 1;
/// The same with keys and values of FP8.
const OTHER_IN_FP8: usize = 6;

fn engine() -> Option<&'static Engine> {
    static ENGINE: LazyLock<Option<Engine>> = LazyLock::new(|| load(None, KvDtype::Auto));
    ENGINE.as_ref()
}

fn load(quantize: Option<Quantize>, kv: KvDtype) -> Option<Engine> {
    if std::env::var("BURN_OMNI_CUDA").as_deref() != Ok("1") {
        println!("skipped: BURN_OMNI_CUDA=1 runs this on an NVIDIA GPU");
        return None;
    }
    let config = EngineConfig::new(repository("assets/omni-demo"))
        .device(Device::cuda(0))
        .quantize(quantize)
        .kv_dtype(kv);
    let engine = Engine::load(config).expect("the demo model loads");
    assert!(engine.is_captured(), "steps are captured");
    Some(engine)
}

/// The ids of the cases whose text is not the reference's.
fn others(engine: &Engine) -> Vec<String> {
    let golden = answers();
    let other = cases().into_iter().filter(|case| {
        let reply = run(engine, request(&case.messages, None)).expect("the case is sound");
        reply.answer.text != golden[&case.id]
    });
    other.map(|case| case.id).collect()
}

#[test]
fn the_cases_are_answered_as_on_the_cpu() {
    let Some(engine) = engine() else {
        return;
    };
    let others = others(engine);
    println!("other texts: {others:?}");
    assert!(others.len() <= OTHER, "{others:?}");
}

#[test]
fn quantized_weights_answer_as_on_the_cpu() {
    let Some(engine) = load(Some(Quantize::Nvfp4), KvDtype::Auto) else {
        return;
    };
    let others = others(&engine);
    println!("other texts: {others:?}");
    assert!(others.len() <= OTHER, "{others:?}");
}

#[test]
fn a_captured_step_gives_the_tokens_of_passes() {
    if let Some(engine) = engine() {
        gives_the_tokens_of_passes(engine);
    }
}

#[test]
fn fp8_caches_answer_as_on_the_cpu() {
    let Some(engine) = load(None, KvDtype::Fp8) else {
        return;
    };
    let others = others(&engine);
    println!("other texts: {others:?}");
    assert!(others.len() <= OTHER_IN_FP8, "{others:?}");
    gives_the_tokens_of_passes(&engine);
}

#[track_caller]
fn gives_the_tokens_of_passes(engine: &Engine) {
    for case in cases().iter().step_by(9) {
        let captured = run(engine, request(&case.messages, None)).expect("the case is sound");
        // An answer that nobody reads keeps the captured step to itself.
        let long = request(&case.messages, None)
            .min_tokens(400)
            .max_tokens(400);
        let mut held = engine.generate(long).expect("the case is sound");
        held.next().expect("an event").expect("the case is sound");
        let passed = run(engine, request(&case.messages, None)).expect("the case is sound");
        drop(held);
        assert_eq!(
            captured.answer.token_ids, passed.answer.token_ids,
            "{}",
            case.id
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_tokens_twice() {
    let Some(engine) = engine() else {
        return;
    };
    let drawn = |seed: u64| -> Request {
        let sampling = Sampling {
            temperature: 1.5,
            ..Sampling::GREEDY
        };
        let request = request(&cases()[0].messages, None).sampling(sampling);
        request.seed(seed).min_tokens(60).max_tokens(60)
    };
    let ids = |seed| {
        run(engine, drawn(seed))
            .expect("the case is sound")
            .answer
            .token_ids
    };
    assert_eq!(ids(3), ids(3));
    assert_ne!(ids(3), ids(4));
}

#[test]
fn spoken_answers_have_the_codes_of_the_cpu() {
    let Some(engine) = engine() else {
        return;
    };
    for golden in goldens().iter().filter(|golden| golden.frames().is_some()) {
        let voice = golden.speaker.as_deref();
        let reply = run(engine, request(&golden.messages, voice)).expect("the case is sound");
        let speech = reply.answer.speech.expect("speech was asked for");
        let frames = golden.frames().expect("it was spoken");
        let timings = &reply.answer.timings;
        println!(
            "{}: talker {:.2} ms a frame, code2wav {:.2} ms a frame",
            golden.id,
            timings.talker.as_secs_f64() * 1e3 / frames.len() as f64,
            timings.code2wav.as_secs_f64() * 1e3 / frames.len() as f64
        );
        let alike = speech.codes.iter().zip(&frames).take_while(|(a, b)| a == b);
        println!(
            "{}: {} of {} frames",
            golden.id,
            alike.count(),
            frames.len()
        );
        assert_eq!(reply.answer.text, golden.text, "{}", golden.id);
        assert_eq!(speech.codes, frames, "{}", golden.id);
    }
}
