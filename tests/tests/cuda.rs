//! The trained demo model on an NVIDIA GPU: the CPU's answers, from a captured step as from one pass after another.
//!
//! Runs where `BURN_OMNI_CUDA=1` says that there is one; elsewhere it says that it did not.
#![allow(clippy::print_stdout, reason = "what was skipped, and how many differ")]

use std::path::Path;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use burn::tensor::{DType, Device};
use burn_omni::sampler::{Random, Sampler};
use burn_omni::{Engine, EngineConfig, KvDtype, Quantize, Request, Sampling, SpeechRequest};
use burn_omni_ops::decode::Place;
use burn_omni_ops::{KvFormat, PackedFormat};
use burn_omni_tests::demo::{Golden, answers, cases, goldens, parts, prompt, request};
use burn_omni_tests::drawn::{self, Drawn};
use burn_omni_tests::reply::run;
use burn_omni_tests::repository;
use burn_omni_tests::variants::Variant;

/// Cases that may be answered in other words than on the CPU.
const OTHER: usize = 1;
/// The same with keys and values of FP8.
const OTHER_IN_FP8: usize = 6;
/// The same with weights of 8 bits.
const OTHER_IN_EIGHT_BITS: usize = 2;
/// What a request may ask for.
const SAMPLED: Sampling = Sampling {
    temperature: 0.7,
    top_k: 20,
    top_p: 0.8,
    repetition_penalty: 1.05,
};

fn engine() -> Option<&'static Engine> {
    static ENGINE: LazyLock<Option<Engine>> = LazyLock::new(|| load(None, KvDtype::Auto));
    ENGINE.as_ref()
}

/// Held by the test that runs: steps cannot be captured while others use the device.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether there is an NVIDIA GPU; says so where nobody says that there is.
fn is_asked() -> bool {
    let asked = std::env::var("BURN_OMNI_CUDA").as_deref() == Ok("1");
    if !asked {
        println!("skipped: BURN_OMNI_CUDA=1 runs this on an NVIDIA GPU");
    }
    asked
}

fn load(quantize: Option<Quantize>, kv: KvDtype) -> Option<Engine> {
    load_from(&repository("assets/omni-demo"), quantize, kv)
}

fn load_from(dir: &Path, quantize: Option<Quantize>, kv: KvDtype) -> Option<Engine> {
    is_asked().then_some(())?;
    let config = EngineConfig::new(dir)
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
    let _alone = alone();
    let Some(engine) = engine() else {
        return;
    };
    let others = others(engine);
    println!("other texts: {others:?}");
    assert!(others.len() <= OTHER, "{others:?}");
}

#[test]
fn quantized_weights_answer_as_on_the_cpu() {
    let _alone = alone();
    let Some(engine) = load(Some(Quantize::Nvfp4), KvDtype::Auto) else {
        return;
    };
    let others = others(&engine);
    println!("other texts: {others:?}");
    assert!(others.len() <= OTHER, "{others:?}");
}

#[test]
fn weights_of_eight_bits_answer_from_captured_steps() {
    let _alone = alone();
    for variant in [Variant::Fp8, Variant::Fp8Blocks, Variant::Mxfp8] {
        let folder = tempfile::tempdir().expect("a folder for a while");
        let dir = folder.path().join("model");
        variant.write(&dir);
        let Some(engine) = load_from(&dir, None, KvDtype::Auto) else {
            return;
        };
        let others = others(&engine);
        println!("{variant:?}, other texts: {others:?}");
        assert!(others.len() <= OTHER_IN_EIGHT_BITS, "{others:?}");
        gives_the_tokens_of_passes(&engine);
    }
}

#[test]
fn a_captured_step_gives_the_tokens_of_passes() {
    let _alone = alone();
    if let Some(engine) = engine() {
        gives_the_tokens_of_passes(engine);
    }
}

#[test]
fn fp8_caches_answer_as_on_the_cpu() {
    let _alone = alone();
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
    let _alone = alone();
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

/// A golden answer, but drawn, the codes from many.
fn drawn(golden: &Golden, seed: u64) -> Request {
    let sampling = Sampling {
        temperature: 2.0,
        top_k: 50,
        top_p: 1.0,
        ..SAMPLED
    };
    let speech = SpeechRequest {
        voice: golden.speaker.clone(),
        sampling: Some(sampling),
        max_frames: Some(60),
        ..SpeechRequest::default()
    };
    let request = request(&golden.messages, None).sampling(SAMPLED);
    request.seed(seed).speech(speech)
}

#[test]
fn the_same_seed_speaks_the_same_codes_twice() {
    let _alone = alone();
    let Some(engine) = engine() else {
        return;
    };
    let goldens = goldens();
    let spoken = || goldens.iter().filter(|golden| golden.frames().is_some());
    let mut others = 0;
    for golden in spoken().take(4) {
        let speak = |seed| {
            let reply = run(engine, drawn(golden, seed)).expect("the case is sound");
            let speech = reply.answer.speech.expect("speech was asked for");
            (reply.answer.token_ids, speech.codes)
        };
        let first = speak(3);
        assert_eq!(first, speak(3), "{}", golden.id);
        others += usize::from(first != speak(4));
    }
    assert!(others > 0, "no draw depends on the seed");
}

#[test]
fn codes_are_drawn_as_the_host_draws_them() {
    let _alone = alone();
    let Some(engine) = engine() else {
        return;
    };
    let goldens = goldens();
    let (mut alike, mut all) = (0, 0);
    for golden in goldens.iter().filter(|golden| golden.frames().is_some()) {
        let codes = || {
            let reply = run(engine, drawn(golden, 3)).expect("the case is sound");
            reply.answer.speech.expect("speech was asked for").codes
        };
        let on_device = codes();
        // An answer that nobody reads keeps captured frames to itself.
        let long = drawn(golden, 9).min_tokens(400).max_tokens(400);
        let mut held = engine.generate(long).expect("the case is sound");
        held.next().expect("an event").expect("the case is sound");
        let on_host = codes();
        drop(held);
        let same = on_device.iter().zip(&on_host).take_while(|(a, b)| a == b);
        let same = same.count();
        println!("{}: {same} of {} frames", golden.id, on_host.len());
        alike += same;
        all += on_host.len();
    }
    // Passes round otherwise than captured ones, and what follows a draw that fell to the other side is another speech.
    assert!(alike * 2 > all, "{alike} of {all} frames");
}

#[test]
fn the_device_draws_what_the_host_draws_from_the_same_scores() {
    let _alone = alone();
    if engine().is_none() {
        return;
    }
    const TOKENS: usize = 120;
    let thinker = parts().thinker_on(&Device::cuda(0));
    let prompt = prompt(&cases()[0].messages);
    let at = &prompt.positions;
    let len = prompt.ids.len();
    for sampling in [
        SAMPLED,
        Sampling {
            temperature: 1.5,
            top_k: 0,
            top_p: 0.95,
            ..SAMPLED
        },
    ] {
        let captured = thinker.decoder(len + TOKENS + 1);
        let (mut state, mut decoder) = captured.expect("steps are captured");
        let rope = thinker.rope([&at.t, &at.h, &at.w]);
        let output = thinker.forward(&thinker.embed(&prompt), &rope, &mut state);
        let scores = output.logits.cast(DType::F32).into_data();
        let mut sampler = Sampler::new(sampling, Random::new(5, 0));
        sampler.observe(&prompt.ids);
        let scores = scores.try_to_vec().expect("scores are f32");
        let first = sampler.sample(scores, |_| true);
        let position = |row: usize| at.decoded(row);
        let choosing = sampler.choosing(Vec::new(), 0);
        let place = Place {
            token: first,
            len,
            position: position(len),
            left: TOKENS,
        };
        decoder.start(place, &choosing);
        let next = (0..TOKENS).map(|_| decoder.next_token());
        let tokens: Result<Vec<u32>, _> = next.collect();
        let tokens = tokens.expect("scores are finite");
        let mut others = 0;
        let mut last = first;
        for (row, token) in (len..).zip(tokens) {
            let scores = decoder.scores(last, row, position(row));
            let id = sampler.sample(scores.expect("the device works"), |_| true);
            others += usize::from(id != token);
            last = token;
        }
        println!("{sampling:?}: {others} of {TOKENS} tokens are others");
        assert!(others <= 1, "{others} of {TOKENS}");
    }
}

#[test]
fn spoken_answers_have_the_codes_of_the_cpu() {
    let _alone = alone();
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

/// How weights of the text decoder are stored.
const FORMATS: [(&str, Option<PackedFormat>); 3] = [
    ("NVFP4", Some(PackedFormat::NVFP4)),
    ("MXFP4", Some(PackedFormat::MXFP4)),
    ("bf16", None),
];
/// Layers of each stack of the release that are compared.
const LAYERS: usize = 3;

/// The release with few layers, on this GPU.
fn release(quantize: Option<PackedFormat>) -> Option<Drawn> {
    is_asked().then_some(())?;
    Some(Drawn::shallow("qwen3-omni-30b-a3b", LAYERS, quantize))
}

#[test]
fn every_half_of_a_layer_of_the_releases_size_is_the_cpus() {
    let _alone = alone();
    for (name, format) in FORMATS {
        let Some(model) = release(format) else {
            return;
        };
        let what = format!("decoders of the release's size, {name}");
        drawn::decoders(&model, &Device::cuda(0)).finish(&what);
    }
}

#[test]
fn every_captured_layer_of_the_releases_size_is_the_cpus() {
    let _alone = alone();
    for (name, format) in FORMATS {
        for cache in [KvFormat::Float(DType::BF16), KvFormat::E4m3] {
            let Some(model) = release(format) else {
                return;
            };
            let table = drawn::captured(&model, &Device::cuda(0), cache);
            let what = format!("captured layers of the release's size, {name}, {cache:?}");
            table.expect("steps are captured").finish(&what);
        }
    }
}

#[test]
fn an_answer_at_the_releases_size_is_the_cpus() {
    let _alone = alone();
    for (name, format) in FORMATS {
        let Some(model) = release(format) else {
            return;
        };
        let what = format!("an answer at the release's size, {name}");
        drawn::answer(&model, &Device::cuda(0)).finish(&what);
    }
}

#[test]
fn encoders_and_code2wav_of_the_releases_size_are_the_cpus() {
    let _alone = alone();
    let Some(model) = release(None) else {
        return;
    };
    drawn::towers(&model, &Device::cuda(0)).finish("encoders of the release's size");
    drawn::code2wav(&model, &Device::cuda(0)).finish("code2wav of the release's size");
}
