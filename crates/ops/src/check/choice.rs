//! Tokens that the device chooses against those of the same rules in f64.

use burn::tensor::Tensor;

use super::Bench;
use crate::decode::{Choosing, by_rules, chosen};

/// Tokens behind one another.
const TOKENS: usize = 12;

/// All that was chosen must be the same.
pub(super) fn choice(bench: &mut Bench<'_>) {
    for vocabulary in [70, 2048, 152_064] {
        let flat: Vec<f32> = (0..vocabulary).map(|_| bench.random.number()).collect();
        let scores: Vec<f32> = flat.iter().map(|x| 4.0 * x + 12.0 * x.powi(31)).collect();
        for (temperature, top_k, top_p) in [
            (0.0, 0, 1.0),
            (0.7, 20, 0.8),
            (0.9, 50, 1.0),
            (1.3, 0, 0.9),
            (1.0, 0, 1.0),
        ] {
            let choosing = Choosing {
                temperature,
                top_k,
                top_p,
                penalty: 1.05,
                seed: 0x0123_4567_89AB_CDEF,
                stage: 1,
                seen: (0..vocabulary as u32).step_by(3).collect(),
                banned: (0..vocabulary as u32).step_by(7).collect(),
                bans: TOKENS / 2,
                ..Choosing::GREEDY
            };
            let found = Tensor::from_floats(scores.as_slice(), bench.device);
            let found = chosen(found, &choosing, TOKENS);
            if found.is_none() || found != by_rules(&scores, choosing, TOKENS) {
                bench.largest = f32::INFINITY;
            }
        }
    }
}
