//! The engine as a library: the same answer every time, several at once, ended early, and refused with a reason.
#![allow(clippy::print_stdout, reason = "helpers of tests are tests too")]

use std::time::{Duration, Instant};

use burn_omni::{
    Engine, EngineConfig, Error, Event, FinishReason, Request, Sampling, SpeechRequest,
};
use burn_omni_tests::parts::device;
use burn_omni_tests::reply::{Reply, run};
use burn_omni_tests::tiny::{engine, folder, golden};

/// How long a dropped stream may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// A spoken case whose tokens and codes are all drawn.
fn drawn(name: &str, seed: u64) -> Request {
    let sampling = Sampling {
        temperature: 1.0,
        top_k: 50,
        top_p: 0.95,
        repetition_penalty: 1.05,
    };
    golden().cases[name]
        .text_request(10)
        .sampling(sampling)
        .seed(seed)
        .speech(SpeechRequest {
            voice: Some("ethan".into()),
            sampling: Some(sampling),
            max_frames: Some(8),
            ..SpeechRequest::default()
        })
}

fn reply(request: Request) -> Reply {
    run(engine(), request).expect("the request is sound")
}

/// Tokens, codes and the bits of all samples.
fn content(reply: &Reply) -> (Vec<u32>, Vec<Vec<u32>>, Vec<u32>) {
    let speech = reply.answer.speech.as_ref().expect("speech was asked for");
    let samples = reply.samples.iter().map(|x| x.to_bits()).collect();
    (
        reply.answer.token_ids.clone(),
        speech.codes.clone(),
        samples,
    )
}

#[test]
fn the_same_seed_gives_the_same_answer_and_another_seed_another() {
    let first = content(&reply(drawn("image-audio", 7)));
    assert!(!first.1.is_empty(), "something was said");
    assert_eq!(first, content(&reply(drawn("image-audio", 7))));
    let other = content(&reply(drawn("image-audio", 8)));
    assert_ne!(first.0, other.0, "tokens");
    assert_ne!(first.1, other.1, "codes");
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let digests = ["1", "2", "3"].map(|threads| {
        let output = std::process::Command::new(std::env::current_exe().expect("a test binary"))
            .args(["--exact", "digest_of_an_answer", "--ignored", "--nocapture"])
            .env("RAYON_NUM_THREADS", threads)
            .output()
            .expect("a test binary runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let digest = text.lines().find_map(|line| line.split("digest ").nth(1));
        digest
            .map(str::to_owned)
            .unwrap_or_else(|| panic!("no digest:\n{text}"))
    });
    assert_eq!(digests[0], digests[1], "1 and 2 threads");
    assert_eq!(digests[0], digests[2], "1 and 3 threads");
}

#[test]
#[ignore = "a part of the test above, run with a number of threads"]
fn digest_of_an_answer() {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let (mut hasher, mut frames) = (DefaultHasher::new(), 0);
    for (name, seed) in [
        ("video-image", 1),
        ("video-image", 2),
        ("audio", 1),
        ("audio", 2),
    ] {
        let content = content(&reply(drawn(name, seed)));
        frames += content.1.len();
        content.hash(&mut hasher);
    }
    assert!(frames > 0, "something was said");
    println!("digest {:016x}", hasher.finish());
}

#[test]
fn two_conversations_at_once_do_not_disturb_one_another() {
    let names = ["turns", "image-two"];
    let alone = names.map(|name| content(&reply(drawn(name, 1))));
    let together = std::thread::scope(|scope| {
        let started = names.map(|name| scope.spawn(move || content(&reply(drawn(name, 1)))));
        started.map(|thread| thread.join().expect("it answers"))
    });
    assert_eq!(alone, together);
}

#[test]
fn the_size_of_the_packets_does_not_change_the_speech() {
    let case = &golden().cases["text"];
    let spoken = |first_chunk, chunk| {
        let request = case.text_request(12).speech(SpeechRequest {
            voice: case.speak.clone(),
            temperature: Some(0.0),
            max_frames: Some(40),
            first_chunk,
            chunk,
            ..SpeechRequest::default()
        });
        reply(request)
    };
    let whole = spoken(40, 40);
    for (first_chunk, chunk) in [(1, 1), (1, 3), (4, 25), (7, 2)] {
        let parts = spoken(first_chunk, chunk);
        assert_eq!(content(&whole).1, content(&parts).1);
        assert_eq!(whole.samples.len(), parts.samples.len());
        let pairs = whole.samples.iter().zip(&parts.samples);
        let error = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("packets of {first_chunk} and {chunk} frames: {error:.1e}");
        assert!(
            error < 1e-5,
            "packets of {first_chunk} and {chunk} frames: {error}"
        );
    }
}

#[test]
fn a_dropped_stream_ends_at_once_and_the_engine_goes_on() {
    let endless = || golden().cases["text"].text_request(7_000);
    let before = reply(drawn("text", 2));

    let unread = engine().generate(endless()).expect("the request is sound");
    ends_soon(move || drop(unread), "before the first event");

    let mut stream = engine().generate(endless()).expect("the request is sound");
    assert!(matches!(stream.next(), Some(Ok(Event::Text(_)))));
    ends_soon(move || drop(stream), "within the text");

    let speech = SpeechRequest {
        temperature: Some(1.0),
        max_frames: Some(4_000),
        first_chunk: 1,
        chunk: 1,
        ..SpeechRequest::default()
    };
    let spoken = golden().cases["text"].text_request(12).speech(speech);
    let mut stream = engine().generate(spoken).expect("the request is sound");
    let heard = stream.find(|event| matches!(event, Ok(Event::Audio(_))));
    assert!(heard.is_some(), "it speaks");
    ends_soon(move || drop(stream), "within the speech");

    assert_eq!(content(&before), content(&reply(drawn("text", 2))));
}

fn ends_soon(end: impl FnOnce(), when: &str) {
    let start = Instant::now();
    end();
    let took = start.elapsed();
    println!("dropped {when}: {took:.1?}");
    assert!(took < PATIENCE, "{when}: {took:?}");
}

/// A tiny engine with a short context.
fn small(context: usize) -> Engine {
    let dir = folder();
    let config = EngineConfig::new(dir.path()).device(device());
    Engine::load(config.max_context(context).speech(false)).expect("the engine loads")
}

#[test]
fn a_prompt_longer_than_the_context_is_refused_with_both_lengths() {
    let case = &golden().cases["text"];
    let length = case.facts.prompt_ids.len();
    let engine = small(length);
    let error = run(&engine, case.text_request(12)).expect_err("no room for an answer");
    let Error::PromptTooLong { prompt, context } = error else {
        panic!("{error}");
    };
    assert_eq!([prompt, context], [length; 2]);
    assert!(error.hint().is_some());

    // A shorter conversation still has room.
    let short = run(&engine, golden().cases["text-stop"].text_request(3)).expect("it fits");
    assert_eq!(
        short.answer.token_ids,
        golden().cases["text-stop"].facts.output_ids[..3]
    );
}

#[test]
fn an_answer_ends_where_the_context_does() {
    let case = &golden().cases["text"];
    let engine = small(case.facts.prompt_ids.len() + 3);
    let answer = run(&engine, case.text_request(12))
        .expect("three tokens fit")
        .answer;
    assert_eq!(answer.token_ids, case.facts.output_ids[..3]);
    assert_eq!(answer.finish_reason, FinishReason::Length);
}

#[test]
fn what_a_model_cannot_do_is_refused_before_any_work() {
    let refused = |engine: &Engine, request: Request| match engine.generate(request) {
        Ok(_) => panic!("it was accepted"),
        Err(error) => error,
    };
    let hello = || Request::new().user([burn_omni::Content::text("Hello!")]);
    let unknown = refused(engine(), hello().speak("nobody"));
    assert!(matches!(&unknown, Error::UnknownVoice { voices, .. } if voices.len() == 3));
    let mute = refused(&small(64), hello().speak("ethan"));
    assert!(matches!(mute, Error::CannotSpeak { .. }), "{mute}");
    assert!(matches!(
        refused(engine(), Request::new()),
        Error::EmptyRequest
    ));
    for (field, request) in [
        ("max_tokens", hello().max_tokens(0)),
        (
            "top_p",
            hello().sampling(Sampling {
                top_p: 0.0,
                ..Sampling::GREEDY
            }),
        ),
        (
            "chunk",
            hello().speech(SpeechRequest {
                chunk: 0,
                ..SpeechRequest::default()
            }),
        ),
    ] {
        let error = refused(engine(), request);
        assert!(
            matches!(&error, Error::BadSetting { field: found, .. } if *found == field),
            "{error}"
        );
    }
}
