//! Penalty, suppression, temperature, top-k and top-p, against transformers' processors.

use burn_omni::Sampling;
use burn_omni::sampler::{Random, Sampler, candidates};
use burn_omni_tests::tiny::media::mix;
use burn_omni_tests::{read, repository};
use serde::Deserialize;

#[derive(Deserialize)]
struct File {
    width: u32,
    history: Vec<u32>,
    first: Vec<f32>,
    cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
struct Case {
    vector: u32,
    penalty: f32,
    temperature: f32,
    top_k: usize,
    top_p: f32,
    suppress: Vec<usize>,
    kept: Vec<usize>,
    probabilities: Vec<f32>,
}

impl Case {
    fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            repetition_penalty: self.penalty,
        }
    }

    /// A sampler that has seen the history.
    fn sampler(&self, sampling: Sampling, history: &[u32]) -> Sampler {
        let mut sampler = Sampler::new(sampling, Random::new(u64::from(self.vector), 0));
        sampler.observe(history);
        sampler
    }

    fn allowed(&self, id: usize) -> bool {
        !self.suppress.contains(&id)
    }
}

fn file() -> File {
    let file: File = serde_json::from_str(&read(&repository("tests/golden/tiny/sampling.json")))
        .expect("sampling.json has this shape");
    assert_eq!(file.cases.len(), 33);
    assert_eq!(scores(0, file.width)[..file.first.len()], file.first);
    file
}

/// Score vectors made of integers: the rule of `sampling.py`.
fn scores(vector: u32, width: u32) -> Vec<f32> {
    let score = |i| (f64::from(mix(vector, i) >> 16) - 32_768.0) / 8192.0;
    (0..width).map(|i| score(i) as f32).collect()
}

#[test]
fn the_candidates_and_their_probabilities_are_the_references() {
    let file = file();
    let mut largest = 0.0_f32;
    for case in &file.cases {
        let mut logits = scores(case.vector, file.width);
        let sampler = case.sampler(case.sampling(), &file.history);
        sampler.process(&mut logits, |id| case.allowed(id));
        let (ids, shares): (Vec<_>, Vec<_>) =
            candidates(&logits, case.sampling()).into_iter().unzip();
        assert_eq!(ids, case.kept, "{case:?}");
        for (ours, golden) in shares.iter().zip(&case.probabilities) {
            let error = (ours - golden).abs();
            largest = largest.max(error);
            assert!(error < 1e-6, "{ours} instead of {golden} in {case:?}");
        }
    }
    println!("sampling: largest error of a probability {largest:.1e}");
}

#[test]
fn draws_stay_among_the_candidates_and_reach_the_likely_ones() {
    let file = file();
    for case in &file.cases {
        let sampling = case.sampling();
        let mut drawn = vec![0_u32; file.width as usize];
        for seed in 0..400 {
            let mut sampler = Sampler::new(sampling, Random::new(seed, 1));
            sampler.observe(&file.history);
            let id = sampler.sample(scores(case.vector, file.width), |id| case.allowed(id));
            drawn[id as usize] += 1;
        }
        for (id, count) in drawn.iter().enumerate() {
            match case.kept.iter().position(|kept| *kept == id) {
                None => assert_eq!(*count, 0, "{id} was dropped in {case:?}"),
                Some(i) => {
                    let share = f64::from(*count) / 400.0;
                    let expected = f64::from(case.probabilities[i]);
                    // Five standard deviations of 400 draws.
                    let slack = 5.0 * (expected * (1.0 - expected) / 400.0).sqrt() + 1e-3;
                    let close = (share - expected).abs() < slack;
                    assert!(close, "{id}: {share} of {expected} in {case:?}");
                }
            }
        }
    }
}

#[test]
fn temperature_zero_takes_the_likeliest_candidate() {
    let file = file();
    for case in &file.cases {
        let greedy = Sampling {
            temperature: 0.0,
            ..case.sampling()
        };
        let mut sampler = case.sampler(greedy, &file.history);
        let id = sampler.sample(scores(case.vector, file.width), |id| case.allowed(id));
        let likeliest = (0..case.kept.len())
            .max_by(|a, b| case.probabilities[*a].total_cmp(&case.probabilities[*b]))
            .expect("one candidate always stays");
        assert_eq!(id as usize, case.kept[likeliest], "{case:?}");
    }
}
