//! Tokens that the device chooses against the same rules in f64, on a software adapter through WGSL.
//! `cargo test --release -p burn-omni-kernels --features wgpu --test choose`

mod adapter;

use burn_omni_kernels::Buffer;
use burn_omni_kernels::choose::{Chooser, Choosing, Chosen, rules};
use burn_omni_kernels::control::{Control, RING, TOKENS};
use cubecl::prelude::*;

use adapter::{Random, client};

/// How far a draw, or a share, may be from a limit for f32 to fall to the other side.
const NEAR: f64 = 2e-5;

/// A chooser and what it writes to.
struct Device {
    client: Client,
    chooser: Chooser,
    codes: Buffer,
}

impl Device {
    fn new(client: &Client, vocabulary: usize) -> Self {
        Self {
            chooser: Chooser::new(client, vocabulary),
            codes: Buffer::numbers(client, &[7; 3]),
            client: client.clone(),
        }
    }

    /// The next token of these scores.
    fn next(&self, scores: &[f32]) -> u32 {
        let scores = Buffer::of(&self.client, scores);
        let to = Chosen::Code(&self.codes, 1);
        self.chooser.launch(&self.client, &scores, to);
        let codes = numbers(&self.client, &self.codes);
        assert_eq!([codes[0], codes[2]], [7, 7], "others stay");
        codes[1]
    }
}

fn numbers(client: &Client, buffer: &Buffer) -> Vec<u32> {
    let bytes = client.read_one(buffer.handle.clone());
    u32::from_bytes(&bytes.expect("the launches worked")).to_vec()
}

/// The rules, and how far they have come.
struct Rules {
    choosing: Choosing,
    chosen: u32,
}

impl Rules {
    /// The next token, when the draw and the share of `top_p` are shifted by so much.
    fn next(&self, scores: &[f32], shifts: [f64; 2]) -> u32 {
        rules::next(scores, &self.choosing, self.chosen, shifts)
    }

    /// A choice that the device made must be one of these rules, or of those next to them; whether it is the former.
    #[track_caller]
    fn meet(&mut self, scores: &[f32], found: u32, what: &str) -> bool {
        let exact = self.next(scores, [0.0; 2]);
        let shifts = [-NEAR, 0.0, NEAR];
        let near = |a: f64| shifts.map(|b| self.next(scores, [a, b])).contains(&found);
        assert!(
            found == exact || shifts.into_iter().any(near),
            "{what}: {found} instead of {exact}"
        );
        self.choosing.seen.push(found);
        self.choosing.draws += u64::from(self.choosing.temperature != 0.0);
        self.chosen += 1;
        found == exact
    }
}

/// Scores of which few are large, as a model has them.
fn scores(random: &mut Random, vocabulary: usize) -> Vec<f32> {
    let mut score = || {
        let flat = random.number();
        4.0 * flat + 12.0 * flat.powi(31)
    };
    (0..vocabulary).map(|_| score()).collect()
}

fn sampled(temperature: f32, top_k: u32, top_p: f32) -> Choosing {
    Choosing {
        temperature,
        top_k,
        top_p,
        penalty: 1.05,
        seed: [17, 4],
        stage: 2,
        draws: 0xFFFF_FFFE,
        ..Choosing::GREEDY
    }
}

/// Chooses some tokens in every way; a draw next to a limit may fall to its other side.
fn every_way(vocabulary: usize, steps: usize) {
    let Some(client) = client() else { return };
    let device = Device::new(&client, vocabulary);
    let mut random = Random(vocabulary as u64);
    let mut exact = 0;
    let mut all = 0;
    for top_k in [0, 1, 20, 50] {
        for top_p in [1.0, 0.8, 0.01] {
            for temperature in [0.0, 0.7, 1.3] {
                let choosing = Choosing {
                    seen: (0..vocabulary as u32).step_by(3).collect(),
                    ..sampled(temperature, top_k, top_p)
                };
                device.chooser.start(&client, &choosing);
                let mut rules = Rules {
                    choosing,
                    chosen: 0,
                };
                for step in 0..steps {
                    let scores = scores(&mut random, vocabulary);
                    let what = format!("top_k {top_k}, top_p {top_p}, {temperature}, step {step}");
                    let found = device.next(&scores);
                    exact += usize::from(rules.meet(&scores, found, &what));
                    all += 1;
                }
            }
        }
    }
    println!("{exact} of {all} choices are those of f64");
    assert!(exact * 50 >= all * 49, "{exact} of {all}");
}

#[test]
fn tokens_of_a_large_vocabulary_are_chosen_by_the_rules() {
    every_way(152_064, 2);
}

#[test]
fn codes_are_chosen_by_the_rules() {
    every_way(2048, 8);
    every_way(3072, 8);
    every_way(70, 8);
}

#[test]
fn equal_scores_are_kept_and_dropped_by_the_rules() {
    let Some(client) = client() else { return };
    for vocabulary in [96, 5000] {
        let device = Device::new(&client, vocabulary);
        for (top_k, top_p) in [(0, 1.0), (0, 0.55), (3, 1.0), (40, 0.55), (2, 0.01)] {
            for plateau in [1, 7, vocabulary] {
                let choosing = sampled(1.0, top_k, top_p);
                device.chooser.start(&client, &choosing);
                let mut rules = Rules {
                    choosing,
                    chosen: 0,
                };
                for step in 0..6 {
                    let scores: Vec<f32> = (0..vocabulary)
                        .map(|id| {
                            if id * 31 % vocabulary < plateau {
                                2.0
                            } else {
                                1.5
                            }
                        })
                        .collect();
                    let what =
                        format!("{plateau} of {vocabulary}, top_k {top_k}, top_p {top_p}, {step}");
                    rules.meet(&scores, device.next(&scores), &what);
                }
            }
        }
    }
}

#[test]
fn banned_tokens_are_not_chosen_until_they_are_free() {
    let Some(client) = client() else { return };
    for vocabulary in [2048, 9000] {
        let device = Device::new(&client, vocabulary);
        let scores: Vec<f32> = (0..vocabulary).map(|id| -(id as f32)).collect();
        for choosing in [Choosing::GREEDY, sampled(0.1, 20, 0.9)] {
            let choosing = Choosing {
                banned: (0..vocabulary as u32).filter(|id| *id != 1234).collect(),
                bans: 2,
                ..choosing
            };
            device.chooser.start(&client, &choosing);
            let found: Vec<u32> = (0..3).map(|_| device.next(&scores)).collect();
            assert_eq!(found, [1234, 1234, 0]);
        }
    }
}

#[test]
fn scores_that_are_not_finite_are_told() {
    let Some(client) = client() else { return };
    for vocabulary in [2048, 9000] {
        let device = Device::new(&client, vocabulary);
        for choosing in [
            Choosing::GREEDY,
            sampled(1.0, 50, 0.8),
            sampled(1.0, 0, 1.0),
        ] {
            for wrong in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut random = Random(3);
                let mut scores = scores(&mut random, vocabulary);
                let choosing = Choosing {
                    banned: vec![2000],
                    ..choosing.clone()
                };
                device.chooser.start(&client, &choosing);
                assert!(device.next(&scores) < vocabulary as u32);
                scores[2000] = wrong;
                assert_eq!(
                    device.next(&scores),
                    u32::MAX,
                    "{wrong} is banned, and told"
                );
            }
        }
    }
}

#[test]
fn a_token_moves_on_to_the_next_position() {
    let Some(client) = client() else { return };
    let chooser = Chooser::new(&client, 100);
    let control = Control::new(&client);
    control.start(&client, 5, 40, 7.0);
    let mut scores = vec![0.0_f32; 100];
    scores[33] = 1.0;
    for _ in 0..=RING {
        chooser.launch(
            &client,
            &Buffer::of(&client, &scores),
            Chosen::Token(&control),
        );
    }
    scores[44] = f32::NAN;
    chooser.launch(
        &client,
        &Buffer::of(&client, &scores),
        Chosen::Token(&control),
    );
    let words = numbers(&client, &control.0);
    let steps = RING as u32 + 2;
    let moved = [0, 40 + steps, (7.0 + steps as f32).to_bits(), steps];
    assert_eq!(words[..TOKENS], moved, "what is no token becomes the first");
    assert_eq!(words[TOKENS..TOKENS + 3], [33, u32::MAX, 33]);
}
