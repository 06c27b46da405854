//! Codes to samples, stage by stage, against the reference.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use burn_omni_model::code2wav::Code2Wav;
use burn_omni_tests::compare::Comparison;
use burn_omni_tests::tiny::{golden, media, parts};

/// Seed of the codes: the rule of `code2wav.py`.
const SEED: u32 = 77;

/// Frames of codes made of integers.
fn codes(frames: usize) -> Vec<Vec<u32>> {
    let code2wav = parts().config.code2wav.as_ref();
    let config = code2wav.expect("the tiny model can speak");
    let (groups, size) = (config.num_quantizers, config.codebook_size);
    let numbers: Vec<u32> = (0..)
        .take(frames * groups)
        .map(|n| media::mix(SEED, n) % u32::try_from(size).expect("codebooks are small"))
        .collect();
    numbers.chunks(groups).map(<[u32]>::to_vec).collect()
}

/// The rows that leave every stage, and the wave.
fn decode(model: &Code2Wav, frames: &[Vec<u32>]) -> (BTreeMap<String, Tensor<2>>, Vec<f32>) {
    let mut parts: BTreeMap<String, Vec<Tensor<2>>> = BTreeMap::new();
    let wave = model.push_with(&mut model.state(), frames, &mut |stage, x| {
        parts.entry(stage.to_owned()).or_default().push(x.clone());
    });
    let whole = |(stage, parts)| (stage, Tensor::cat(parts, 0));
    (
        parts.into_iter().map(whole).collect(),
        wave.expect("the codes are the model's"),
    )
}

#[test]
fn every_stage_and_the_wave_are_the_references() {
    let mut compared = Comparison::new(&golden().tensors);
    assert_eq!(golden().waves.len(), 5);
    for (name, facts) in &golden().waves {
        let (stages, wave) = decode(parts().code2wav(), &codes(facts.frames));
        let what = format!("{name}: samples");
        compared.equal(&what, &wave.len(), &facts.samples);
        for (stage, rows) in &facts.rows {
            match stages.get(stage) {
                Some(x) => compared.rows(name, stage, x.clone(), rows),
                None => compared.equal(&format!("{name}/{stage} is there"), &false, &true),
            }
        }
        compared.wave(name, "wav", &wave);
        let clamped = wave.iter().filter(|x| x.abs() >= 1.0).count();
        // A sample at the edge may fall on either side of it.
        let close = clamped.abs_diff(facts.clamped) <= 2;
        let what = format!(
            "{name}: {clamped} samples are clamped, golden {}",
            facts.clamped
        );
        compared.equal(&what, &close, &true);
        if let Some(samples) = facts.chunked_samples {
            let chunked = parts()
                .code2wav()
                .chunked_decode(&codes(facts.frames), 300, 25);
            let chunked = chunked.expect("the codes are the model's");
            let what = format!("{name}: chunked samples");
            compared.equal(&what, &chunked.len(), &samples);
            compared.wave(name, "chunked", &chunked);
        }
        compared.covers(name, "");
    }
    compared.finish("code2wav");
}

#[test]
fn a_stream_cut_anywhere_is_the_same_wave() {
    let model = parts().code2wav();
    let frames = codes(700);
    let whole = model.decode(&frames).expect("the codes are the model's");
    for cut in [1, 2, 3, 7, 25, 64, 700] {
        let mut state = model.state();
        let parts: Vec<f32> = frames
            .chunks(cut)
            .flat_map(|frames| model.push(&mut state, frames).expect("the same codes"))
            .collect();
        assert_eq!(parts.len(), whole.len(), "{cut} frames at a time");
        let pairs = parts.iter().zip(&whole);
        let error = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("{cut} frames at a time: {error:.1e}");
        assert!(error < 1e-5, "{cut} frames at a time: {error}");
    }
}
