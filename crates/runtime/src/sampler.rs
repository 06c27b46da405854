//! Logits to a token, with the semantics and the order of transformers' processors: repetition penalty, suppression,
//! temperature, top-k, top-p, one draw.

mod random;

use burn_omni_ops::decode::Choosing;

pub use random::Random;

use crate::Error;

/// How tokens are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divisor of the logits; 0 chooses the largest logit and ignores the fields below but the penalty.
    pub temperature: f32,
    /// Only the `top_k` largest logits are candidates (more where the last ones are equal); 0 is all.
    pub top_k: usize,
    /// Only the smallest set of candidates whose probabilities reach `top_p` stays; 1 is all.
    pub top_p: f32,
    /// Logits of tokens that occurred are divided by this when positive and multiplied when negative; 1 is none.
    pub repetition_penalty: f32,
}

impl Sampling {
    /// The largest logit, always.
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        repetition_penalty: 1.0,
    };

    /// Checks every field.
    ///
    /// # Errors
    /// When a field is outside of its range.
    pub fn check(self) -> Result<Self, Error> {
        let rules = [
            (
                "temperature",
                self.temperature,
                "0 or more",
                self.temperature >= 0.0,
            ),
            (
                "top_p",
                self.top_p,
                "above 0 and at most 1",
                self.top_p > 0.0 && self.top_p <= 1.0,
            ),
            (
                "repetition_penalty",
                self.repetition_penalty,
                "above 0",
                self.repetition_penalty > 0.0,
            ),
        ];
        for (field, found, expected, holds) in rules {
            if !holds || !found.is_finite() {
                return Err(Error::BadSetting {
                    field,
                    expected: expected.into(),
                    found: found.to_string(),
                });
            }
        }
        Ok(self)
    }
}

/// Chooses the tokens of one stage of one request.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    random: Random,
    draws: u64,
    /// Tokens that occurred, for the penalty.
    seen: Vec<bool>,
}

impl Sampler {
    /// A sampler whose draws depend on the seed, the stage and their number alone.
    #[must_use]
    pub fn new(sampling: Sampling, random: Random) -> Self {
        Self {
            sampling,
            random,
            draws: 0,
            seen: Vec::new(),
        }
    }

    /// The same for a device that goes on from here, and does not choose `banned` tokens the next `bans` times.
    #[must_use]
    pub fn choosing(&self, banned: Vec<u32>, bans: usize) -> Choosing {
        let Sampling {
            temperature,
            top_k,
            top_p,
            repetition_penalty,
        } = self.sampling;
        let seen = (0..).zip(&self.seen).filter(|(_, seen)| **seen);
        Choosing {
            temperature,
            top_k,
            top_p,
            penalty: repetition_penalty,
            seed: self.random.seed(),
            stage: self.random.stage(),
            draws: self.draws,
            seen: seen.map(|(id, _)| id).collect(),
            banned,
            bans,
        }
    }

    /// Counts `ids` as having occurred.
    pub fn observe(&mut self, ids: &[u32]) {
        if self.sampling.repetition_penalty == 1.0 {
            return;
        }
        for id in ids {
            let id = *id as usize;
            if id >= self.seen.len() {
                self.seen.resize(id + 1, false);
            }
            self.seen[id] = true;
        }
    }

    /// The next token among those that `allowed` holds for; it counts as having occurred.
    pub fn sample(&mut self, mut logits: Vec<f32>, allowed: impl Fn(usize) -> bool) -> u32 {
        self.process(&mut logits, allowed);
        let id = if self.sampling.temperature == 0.0 {
            largest(&logits)
        } else {
            self.draw(&logits)
        };
        let id = u32::try_from(id).expect("vocabularies are below 2^32");
        self.observe(&[id]);
        id
    }

    /// What happens to logits before [`candidates`]: the penalty, then nothing stays of what is not `allowed`.
    pub fn process(&self, logits: &mut [f32], allowed: impl Fn(usize) -> bool) {
        self.penalize(logits);
        for (id, logit) in logits.iter_mut().enumerate() {
            if !allowed(id) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }

    fn penalize(&self, logits: &mut [f32]) {
        let penalty = self.sampling.repetition_penalty;
        for (logit, seen) in logits.iter_mut().zip(&self.seen) {
            if *seen {
                *logit = if *logit < 0.0 {
                    *logit * penalty
                } else {
                    *logit / penalty
                };
            }
        }
    }

    fn draw(&mut self, logits: &[f32]) -> usize {
        let candidates = candidates(logits, self.sampling);
        let uniform = self.random.uniform(self.draws);
        self.draws += 1;
        let total: f64 = candidates.iter().map(|(_, p)| f64::from(*p)).sum();
        let mut rest = uniform * total;
        for (id, p) in &candidates {
            rest -= f64::from(*p);
            if rest < 0.0 {
                return *id;
            }
        }
        candidates
            .last()
            .map_or_else(|| largest(logits), |(id, _)| *id)
    }
}

/// The first of the largest logits.
fn largest(logits: &[f32]) -> usize {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    best
}

/// The tokens that stay after temperature, top-k and top-p with their probabilities, in the order of their ids.
pub fn candidates(logits: &[f32], sampling: Sampling) -> Vec<(usize, f32)> {
    let threshold = top_k_threshold(logits, sampling.top_k);
    // Less the largest one first: a small temperature would make it infinite.
    let largest = logits[largest(logits)];
    let scale = |logit: f32| (logit - largest) / sampling.temperature;
    let mut kept: Vec<(usize, f32)> = logits
        .iter()
        .enumerate()
        .filter(|(_, logit)| **logit >= threshold && **logit > f32::NEG_INFINITY)
        .map(|(id, logit)| (id, scale(*logit)))
        .collect();
    softmax(&mut kept);
    if sampling.top_p < 1.0 {
        top_p(&mut kept, sampling.top_p);
    }
    kept
}

/// The `k`-th largest logit, below which none stays.
fn top_k_threshold(logits: &[f32], k: usize) -> f32 {
    if k == 0 || k >= logits.len() {
        return f32::NEG_INFINITY;
    }
    let mut sorted = logits.to_vec();
    let (_, threshold, _) = sorted.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    *threshold
}

/// Probabilities of scores, of which the largest is 0.
fn softmax(scores: &mut [(usize, f32)]) {
    scores.iter_mut().for_each(|(_, x)| *x = x.exp());
    let sum: f32 = scores.iter().map(|(_, x)| x).sum();
    scores.iter_mut().for_each(|(_, x)| *x /= sum);
}

/// Drops the least likely tokens while their probabilities together stay within `1 - p`; one token always stays.
fn top_p(kept: &mut Vec<(usize, f32)>, p: f32) {
    let mut ascending: Vec<usize> = (0..kept.len()).collect();
    ascending.sort_by(|a, b| kept[*a].1.total_cmp(&kept[*b].1));
    let mut cumulative = 0.0;
    let mut drop = vec![false; kept.len()];
    for i in ascending.iter().take(kept.len().saturating_sub(1)) {
        cumulative += kept[*i].1;
        if cumulative > 1.0 - p {
            break;
        }
        drop[*i] = true;
    }
    let mut index = 0;
    kept.retain(|_| {
        index += 1;
        !drop[index - 1]
    });
    let sum: f32 = kept.iter().map(|(_, x)| x).sum();
    kept.iter_mut().for_each(|(_, x)| *x /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(_: usize) -> bool {
        true
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest_allowed() {
        let mut sampler = Sampler::new(Sampling::GREEDY, Random::new(0, 0));
        assert_eq!(sampler.sample(vec![1.0, 3.0, 3.0, 2.0], any), 1);
        assert_eq!(sampler.sample(vec![1.0, 3.0, 3.0, 2.0], |id| id != 1), 2);
    }

    #[test]
    fn the_penalty_counts_a_token_once_and_also_when_greedy() {
        let sampling = Sampling {
            repetition_penalty: 2.0,
            ..Sampling::GREEDY
        };
        let mut sampler = Sampler::new(sampling, Random::new(0, 0));
        sampler.observe(&[0, 0]);
        assert_eq!(sampler.sample(vec![4.0, 2.1], any), 1);
        assert_eq!(sampler.sample(vec![4.0, 2.1], any), 0, "both were seen");
        assert_eq!(sampler.sample(vec![-1.0, -1.5, -1.9], any), 2);
    }

    #[test]
    fn equal_logits_at_the_border_of_top_k_all_stay() {
        let sampling = Sampling {
            temperature: 1.0,
            top_k: 2,
            ..Sampling::GREEDY
        };
        let ids: Vec<usize> = candidates(&[1.0, 2.0, 1.0, 0.0], sampling)
            .into_iter()
            .map(|(id, _)| id)
            .collect();
        assert_eq!(ids, [0, 1, 2]);
    }

    #[test]
    fn a_temperature_near_zero_takes_the_largest() {
        let sampling = Sampling {
            temperature: 1e-38,
            ..Sampling::GREEDY
        };
        let logits = [4.0, 20.0, -3.0, 19.9];
        let likely: Vec<_> = candidates(&logits, sampling)
            .into_iter()
            .filter(|(_, p)| *p > 0.0)
            .collect();
        assert_eq!(likely, [(1, 1.0)]);
    }

    #[test]
    fn top_p_keeps_at_least_one() {
        let sampling = Sampling {
            temperature: 1.0,
            top_p: 0.01,
            ..Sampling::GREEDY
        };
        assert_eq!(candidates(&[0.0, 5.0, 1.0], sampling), [(1, 1.0)]);
    }

    #[test]
    fn a_device_goes_on_where_the_host_is() {
        let sampling = Sampling {
            temperature: 1.0,
            top_k: 2,
            top_p: 0.5,
            repetition_penalty: 1.5,
        };
        let mut sampler = Sampler::new(sampling, Random::new(u64::MAX - 3, 2));
        sampler.observe(&[3]);
        let first = sampler.sample(vec![9.0, 0.0, 0.0, 0.0], any);
        assert_eq!(first, 0, "there is no other candidate");
        let choosing = sampler.choosing(vec![1], 4);
        let expected = Choosing {
            temperature: 1.0,
            top_k: 2,
            top_p: 0.5,
            penalty: 1.5,
            seed: u64::MAX - 3,
            stage: 2,
            draws: 1,
            seen: vec![0, 3],
            banned: vec![1],
            bans: 4,
        };
        assert_eq!(choosing, expected);
    }

    #[test]
    fn draws_follow_the_probabilities_and_the_seed() {
        let sampling = Sampling {
            temperature: 1.0,
            ..Sampling::GREEDY
        };
        let logits: Vec<f32> = [0.5_f32, 0.3, 0.2].iter().map(|p| p.ln()).collect();
        let draw = |seed| {
            let mut sampler = Sampler::new(sampling, Random::new(seed, 1));
            (0..20_000)
                .map(|_| sampler.sample(logits.clone(), any))
                .collect::<Vec<_>>()
        };
        let first = draw(7);
        for (id, p) in [0.5, 0.3, 0.2].into_iter().enumerate() {
            let share =
                first.iter().filter(|x| **x as usize == id).count() as f64 / first.len() as f64;
            assert!(
                (share - p).abs() < 0.015,
                "token {id}: {share} instead of {p}"
            );
        }
        assert_eq!(first, draw(7));
        assert_ne!(first, draw(8));
    }
}
