//! Speech as it is made against speech made at once: the same text, codes and samples, however it is cut.

use burn_omni::{Event, Request, SpeechRequest};
use burn_omni_tests::compare::furthest;
use burn_omni_tests::demo::{engine, goldens, parts, request};
use burn_omni_tests::reply::run;
use burn_omni_tests::tiny;

/// Frames of the first packet and of the largest.
const CHUNKINGS: [[usize; 2]; 7] = [
    [1, 1],
    [2, 2],
    [3, 3],
    [7, 7],
    [25, 25],
    [1, 25],
    [1000, 1000],
];
/// Largest difference of a sample.
const SAMPLE: f32 = 1e-5;

fn in_packets(
    request: Request,
    speech: &SpeechRequest,
    [first_chunk, chunk]: [usize; 2],
) -> Request {
    request.speech(SpeechRequest {
        first_chunk,
        chunk,
        ..speech.clone()
    })
}

#[test]
fn a_stream_is_the_reference_decoded_at_once() {
    let spoken: Vec<_> = goldens()
        .into_iter()
        .filter(|golden| golden.frames().is_some())
        .collect();
    for golden in spoken.iter().step_by(4) {
        let frames = golden.frames().expect("it was spoken");
        let whole = parts()
            .code2wav()
            .decode(&frames)
            .expect("codes of the model");
        let speech = SpeechRequest {
            voice: golden.speaker.clone(),
            temperature: Some(0.0),
            max_frames: Some(120),
            ..SpeechRequest::default()
        };
        for chunking in CHUNKINGS {
            let asked = in_packets(request(&golden.messages, None), &speech, chunking);
            let reply = run(engine(), asked).expect("the case is sound");
            let what = format!("{} in packets of {chunking:?}", golden.id);
            assert_eq!(reply.answer.text, golden.text, "{what}");
            let codes = reply.answer.speech.expect("speech was asked for").codes;
            assert_eq!(codes, frames, "{what}");
            assert_eq!(reply.samples.len(), whole.len(), "{what}");
            let error = furthest(&reply.samples, &whole);
            assert!(error < SAMPLE, "{what}: {error}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_speech_in_any_packets() {
    let case = &tiny::golden().cases["text"];
    let speech = SpeechRequest {
        temperature: Some(0.9),
        max_frames: Some(40),
        ..SpeechRequest::default()
    };
    let spoken = |chunking| {
        let asked = in_packets(case.text_request(12).seed(3), &speech, chunking);
        let reply = run(tiny::engine(), asked).expect("the case is sound");
        (
            reply.answer.speech.expect("speech was asked for").codes,
            reply.samples,
        )
    };
    let (codes, samples) = spoken([1000, 1000]);
    assert!(codes.len() > 20, "{} frames", codes.len());
    for chunking in CHUNKINGS {
        let (other, cut) = spoken(chunking);
        assert_eq!(codes, other, "packets of {chunking:?}");
        let error = furthest(&samples, &cut);
        assert!(error < SAMPLE, "packets of {chunking:?}: {error}");
    }
}

#[test]
fn packets_begin_small_and_grow() {
    let case = &tiny::golden().cases["text"];
    let speech = SpeechRequest {
        temperature: Some(0.9),
        max_frames: Some(21),
        ..SpeechRequest::default()
    };
    let frame = tiny::parts().code2wav().samples_per_frame();
    let packets = |chunking| -> Vec<usize> {
        let asked = in_packets(case.text_request(12).seed(3), &speech, chunking);
        let events = tiny::engine()
            .generate(asked)
            .expect("the request is sound");
        let packets = events.filter_map(|event| match event.expect("nothing fails") {
            Event::Audio(samples) => Some(samples.len().div_ceil(frame)),
            _ => None,
        });
        packets.collect()
    };
    assert_eq!(packets([1, 8]), [1, 2, 4, 8, 6]);
    assert_eq!(packets([4, 3]), [4, 3, 3, 3, 3, 3, 2]);
    assert_eq!(packets([40, 1]), [21]);
}
