//! Code2wav with the trained demo model against the reference's waves, and against itself at other cuts.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod common;

use burn_omni_model::code2wav::{Code2Wav, CodesError};
use common::{Demo, assert_close, spoken};

/// Frames of codes from a fixed stream.
fn random_frames(count: usize, groups: usize, codebook: u32) -> Vec<Vec<u32>> {
    let mut state = 7_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % codebook
    };
    (0..count)
        .map(|_| (0..groups).map(|_| next()).collect())
        .collect()
}

fn pushed(code2wav: &Code2Wav, frames: &[Vec<u32>], cuts: impl Iterator<Item = usize>) -> Vec<f32> {
    let mut state = code2wav.state();
    let (mut samples, mut rest) = (Vec::new(), frames);
    for cut in cuts {
        let (now, later) = rest.split_at(cut.min(rest.len()));
        samples.extend(code2wav.push(&mut state, now).unwrap());
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    samples
}

#[test]
fn golden_codes_become_the_golden_waves() {
    let code2wav = Demo::open().code2wav();
    for case in spoken() {
        let found = code2wav.decode(&case.frames()).unwrap();
        let expected = case.wave();
        assert_eq!(found.len(), expected.len(), "{}: samples", case.id);
        let error = |(a, b): (&f32, &f32)| (a - b).abs();
        let largest = found.iter().zip(&expected).map(error).fold(0.0, f32::max);
        println!("{}: {largest:.1e}", case.id);
        assert!(largest <= 1e-4, "{}: {largest}", case.id);
    }
}

#[test]
fn a_stream_is_the_same_at_any_cut() {
    let code2wav = Demo::open().code2wav();
    // More than a cache has room for.
    let frames = random_frames(150, 16, 128);
    let whole = code2wav.decode(&frames).unwrap();
    assert_eq!(whole.len(), 150 * 1920 - 555);
    for cut in [1, 2, 3, 7, 25, 64, 150] {
        let found = pushed(&code2wav, &frames, std::iter::repeat(cut));
        assert_close(&format!("cuts of {cut}"), &found, &whole, 1e-5);
    }
    let uneven = [1, 5, 1, 13, 2, 30, 4, 9, 20, 1, 64].into_iter();
    assert_close(
        "uneven cuts",
        &pushed(&code2wav, &frames, uneven),
        &whole,
        1e-5,
    );
}

#[test]
fn chunks_of_the_reference_are_one_stream_until_its_first_cut() {
    let code2wav = Demo::open().code2wav();
    let frames = random_frames(310, 16, 128);
    let one = code2wav.decode(&frames[..300]).unwrap();
    let chunked = code2wav.chunked_decode(&frames[..300], 300, 25).unwrap();
    assert_close("300 frames", &chunked, &one, 1e-5);
    let chunked = code2wav.chunked_decode(&frames, 300, 25).unwrap();
    assert_eq!(chunked.len(), 310 * 1920 - 2 * 555);
    assert_close("the first chunk", &chunked[..one.len()], &one, 1e-5);
}

#[test]
fn codes_of_another_model_are_errors_and_leave_the_state_alone() {
    let code2wav = Demo::open().code2wav();
    let frames = random_frames(4, 16, 128);
    let mut state = code2wav.state();
    let mut samples = code2wav.push(&mut state, &frames[..2]).unwrap();
    let mut bad = frames[2..].to_vec();
    bad[1][3] = 128;
    let error = code2wav.push(&mut state, &bad).unwrap_err();
    let expected = CodesError::Code {
        frame: 1,
        group: 3,
        code: 128,
        codebook_size: 128,
    };
    assert_eq!(error, expected);
    bad[1].truncate(3);
    let error = code2wav.push(&mut state, &bad).unwrap_err();
    assert_eq!(error.to_string(), "frame 1 has 3 codes, expected 16");
    samples.extend(code2wav.push(&mut state, &frames[2..]).unwrap());
    let whole = code2wav.decode(&frames).unwrap();
    assert_close("after errors", &samples, &whole, 1e-5);
    assert_eq!(code2wav.decode(&[]).unwrap(), [0.0; 0]);
}
