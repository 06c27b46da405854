//! The rules of a choice on the host, in f64: what devices that choose are held to.

use super::Choosing;

/// The next token of these scores, of which `chosen` were chosen before, where the draw and the share of `top_p` are off by
/// so much: a device that rounds may fall to either side of a limit.
///
/// # Panics
/// When there are no scores.
#[must_use]
pub fn next(scores: &[f32], choosing: &Choosing, chosen: u32, [draw, share]: [f64; 2]) -> u32 {
    let scores = processed(scores, choosing, chosen);
    let mut descending: Vec<u32> = (0..).zip(&scores).map(|(id, _)| id).collect();
    let score = |id: u32| scores[id as usize];
    // Of equals the higher number is first here, and so the last to be dropped.
    descending.sort_by(|a, b| score(*b).total_cmp(&score(*a)).then(b.cmp(a)));
    let largest = score(descending[0]);
    if choosing.temperature == 0.0 {
        let mut equals = descending.iter().filter(|id| score(**id) == largest);
        return *equals.next_back().expect("the largest is one of them");
    }
    let count = match choosing.top_k as usize {
        0 => scores.len(),
        count => count.min(scores.len()),
    };
    let last = score(descending[count - 1]);
    descending.retain(|id| score(*id) >= last && score(*id) > f64::NEG_INFINITY);
    let weight = |id: &u32| ((score(*id) - largest) / f64::from(choosing.temperature)).exp();
    let total: f64 = descending.iter().map(weight).sum();
    let budget = (1.0 - f64::from(choosing.top_p) + share) * total;
    let mut dropped = 0.0;
    while choosing.top_p < 1.0 && descending.len() > 1 {
        dropped += weight(&descending[descending.len() - 1]);
        if dropped > budget {
            break;
        }
        descending.pop();
    }
    descending.sort_unstable();
    let total: f64 = descending.iter().map(weight).sum();
    let mut rest = (uniform(choosing) + draw) * total;
    for id in &descending {
        rest -= weight(id);
        if rest < 0.0 {
            return *id;
        }
    }
    descending[descending.len() - 1]
}

/// Scores behind penalty and bans. The penalty is formed in f32, as everywhere.
fn processed(scores: &[f32], choosing: &Choosing, chosen: u32) -> Vec<f64> {
    let mut processed: Vec<f64> = scores.iter().map(|score| f64::from(*score)).collect();
    for id in &choosing.seen {
        let id = *id as usize;
        processed[id] = f64::from(match scores[id] {
            score if score < 0.0 => score * choosing.penalty,
            score => score / choosing.penalty,
        });
    }
    for id in choosing.banned.iter().filter(|_| chosen < choosing.bans) {
        processed[*id as usize] = f64::NEG_INFINITY;
    }
    processed
}

/// Number `draws` of Philox 4x32-10 (Salmon et al., 2011), with 53 bits.
fn uniform(choosing: &Choosing) -> f64 {
    let low = |x: u64| (x & u64::from(u32::MAX)) as u32;
    let halves = |x: u64| [low(x), low(x >> 32)];
    let (mut key, draws) = (choosing.seed, halves(choosing.draws));
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
