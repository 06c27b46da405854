//! Tokens that the device chooses against those of the same rules in f64.

use burn::tensor::Tensor;

use super::Bench;
use crate::decode::{Choosing, chosen};

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
            if found != Some(expected(&scores, choosing)) {
                bench.largest = f32::INFINITY;
            }
        }
    }
}

/// The tokens of the rules.
fn expected(scores: &[f32], mut choosing: Choosing) -> Vec<u32> {
    let tokens = (0..TOKENS).map(|_| {
        let id = next(scores, &choosing);
        choosing.seen.push(id as u32);
        choosing.draws += 1;
        choosing.bans = choosing.bans.saturating_sub(1);
        id as u32
    });
    tokens.collect()
}

fn next(scores: &[f32], choosing: &Choosing) -> usize {
    let mut left = scores.to_vec();
    let mut seen = choosing.seen.clone();
    seen.sort_unstable();
    seen.dedup();
    for id in seen {
        let score = &mut left[id as usize];
        *score = match *score {
            score if score < 0.0 => score * choosing.penalty,
            score => score / choosing.penalty,
        };
    }
    for id in choosing.banned.iter().filter(|_| choosing.bans > 0) {
        left[*id as usize] = f32::NEG_INFINITY;
    }
    let mut order: Vec<usize> = (0..left.len()).collect();
    // The largest first, and of equals the last: that is the order in which they stay.
    order.sort_by(|a, b| left[*b].total_cmp(&left[*a]).then(b.cmp(a)));
    let largest = left[order[0]];
    if choosing.temperature == 0.0 {
        return left.iter().position(|score| *score == largest).unwrap_or(0);
    }
    if let Some(last) = choosing.top_k.checked_sub(1) {
        let last = left[order[last.min(order.len() - 1)]];
        order.retain(|id| left[*id] >= last);
    }
    let weight = |id: &usize| {
        let score = f64::from(left[*id]) - f64::from(largest);
        (score / f64::from(choosing.temperature)).exp()
    };
    let total: f64 = order.iter().map(weight).sum();
    let mut dropped = 0.0;
    while choosing.top_p < 1.0 && order.len() > 1 {
        dropped += weight(&order[order.len() - 1]);
        if dropped > (1.0 - f64::from(choosing.top_p)) * total {
            break;
        }
        order.pop();
    }
    order.sort_unstable();
    let total: f64 = order.iter().map(weight).sum();
    let mut rest = uniform(choosing) * total;
    for id in &order {
        rest -= weight(id);
        if rest < 0.0 {
            return *id;
        }
    }
    order[order.len() - 1]
}

/// Philox 4x32-10 (Salmon et al., 2011), 53 bits.
fn uniform(choosing: &Choosing) -> f64 {
    let low = |x: u64| (x & u64::from(u32::MAX)) as u32;
    let halves = |x: u64| [low(x), low(x >> 32)];
    let [mut key, draws] = [choosing.seed, choosing.draws].map(halves);
    let mut counter = [draws[0], draws[1], choosing.stage, 0];
    for _ in 0..10 {
        let [a, a_high] = halves(0xD251_1F53 * u64::from(counter[0]));
        let [b, b_high] = halves(0xCD9E_8D57 * u64::from(counter[2]));
        counter = [
            b_high ^ counter[1] ^ key[0],
            b,
            a_high ^ counter[3] ^ key[1],
            a,
        ];
        key = [
            key[0].wrapping_add(0x9E37_79B9),
            key[1].wrapping_add(0xBB67_AE85),
        ];
    }
    let bits = (u64::from(counter[0]) << 32 | u64::from(counter[1])) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}
