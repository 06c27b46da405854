//! The schedule on a device whose units of work take exactly as long as it is told.

use super::*;

const MS: f64 = 1e-3;
/// What the release takes on one GPU: a step of the thinker, a frame of the talker, a frame of code2wav.
const COSTS: [f64; 3] = [1.9 * MS, 3.1 * MS, 1.2 * MS];

/// One spoken answer on a device of its own.
struct Simulation {
    costs: [f64; 3],
    tokens: usize,
    frames: usize,
    first_chunk: usize,
    chunk: usize,
}

/// What came out of it.
#[derive(Debug)]
struct Outcome {
    /// When the first packet was given out.
    first: f64,
    /// Tokens a second while the speech was made, as a share of those of the thinker alone.
    share: f64,
    /// Frames that the player had left when it had fewest.
    margin: f64,
    total: f64,
}

/// The one answer.
fn candidate(stage: Stage, since: Duration) -> Candidate {
    Candidate {
        answer: 1,
        stage,
        since,
    }
}

impl Simulation {
    fn run(&self) -> Outcome {
        let mut schedule = Schedule::default();
        schedule.speak(1, self.first_chunk);
        let (mut now, mut said, mut made, mut given) = (0.0, 0, 0, 0);
        let (mut packet, mut margin) = (self.first_chunk, f64::INFINITY);
        let mut first = None;
        let (mut thought_until, mut said_at_first) = (0.0, 0);
        while given < self.frames {
            let ready = (made - given) >= packet || (made == self.frames && made > given);
            // A frame takes the token of its number, as long as there are any.
            let heard = made < said || said == self.tokens;
            let wants = [
                (Stage::Thinker, said < self.tokens),
                (Stage::Talker, made < self.frames && heard),
                (Stage::Code2Wav, ready),
            ];
            let at = Duration::from_secs_f64(now);
            let wanting = wants.iter().filter(|(_, wants)| *wants);
            let candidates = wanting.map(|(stage, _)| (*stage, candidate(*stage, at)));
            let stage = schedule.choose(candidates, at).expect("somebody wants it");
            let frames = match stage {
                Stage::Thinker => 0,
                Stage::Talker => 1,
                Stage::Code2Wav => (made - given).min(packet),
            };
            let took = self.costs[stage as usize] * frames.max(1) as f64;
            now += took;
            let thinking = said < self.tokens;
            schedule.did(
                candidate(stage, at),
                Duration::from_secs_f64(took),
                frames,
                thinking,
            );
            match stage {
                Stage::Thinker => {
                    said += 1;
                    thought_until = now;
                }
                Stage::Talker => made += 1,
                Stage::Code2Wav => {
                    if let Some(first) = first {
                        let played = (now - first) / FRAME.as_secs_f64();
                        margin = f64::min(margin, given as f64 - played);
                    } else {
                        (first, said_at_first) = (Some(now), said);
                    }
                    given += frames;
                    packet = (2 * packet).min(self.chunk);
                    let at = Duration::from_secs_f64(now);
                    schedule.gave(1, frames, packet, at);
                }
            }
        }
        let first = first.expect("something was given out");
        let tokens = (said - said_at_first) as f64;
        Outcome {
            first,
            share: tokens * self.costs[0] / (thought_until - first),
            margin,
            total: now,
        }
    }
}

fn release(first_chunk: usize, chunk: usize) -> Simulation {
    Simulation {
        costs: COSTS,
        tokens: 300,
        frames: 200,
        first_chunk,
        chunk,
    }
}

#[test]
fn the_thinker_keeps_its_share_and_the_player_never_runs_dry() {
    for (first_chunk, chunk) in [(1, 1), (1, 25), (2, 8), (4, 25), (4, 100), (25, 25)] {
        let outcome = release(first_chunk, chunk).run();
        println!("packets of {first_chunk} to {chunk} frames: {outcome:?}");
        assert!(outcome.share >= 0.6, "{outcome:?}");
        assert!(outcome.margin >= 0.0, "{outcome:?}");
    }
}

#[test]
fn nothing_comes_before_the_way_to_the_first_packet() {
    let [thinker, talker, code2wav] = COSTS;
    for first_chunk in [1, 4, 9] {
        let outcome = release(first_chunk, 25).run();
        // As many tokens as frames, and nothing that is not needed.
        let least = first_chunk as f64 * (thinker + talker + code2wav);
        assert!((outcome.first - least).abs() < 1e-9, "{outcome:?} {least}");
    }
}

#[test]
fn the_device_is_never_idle() {
    let simulation = release(4, 25);
    let [thinker, talker, code2wav] = COSTS;
    let work = simulation.tokens as f64 * thinker + 200.0 * (talker + code2wav);
    assert!((simulation.run().total - work).abs() < 1e-6);
}

#[test]
fn on_a_slow_device_sound_goes_before_the_share() {
    // A frame takes 55 of its 80 ms: what is left is less than the thinker's share.
    let slow = Simulation {
        costs: [20.0 * MS, 45.0 * MS, 10.0 * MS],
        tokens: 100,
        ..release(4, 4)
    };
    let outcome = slow.run();
    println!("{outcome:?}");
    assert!(outcome.margin >= 0.0, "{outcome:?}");
    assert!(outcome.share < 0.6, "{outcome:?}");
}

#[test]
fn the_answer_whose_player_runs_dry_first_comes_first() {
    let mut schedule = Schedule::default();
    let at = Duration::from_millis;
    for (answer, given) in [(1, at(0)), (2, at(20))] {
        schedule.speak(answer, 1);
        schedule.gave(answer, 1, 1, given);
    }
    let candidate = |answer, stage| Candidate {
        answer,
        stage,
        since: at(60),
    };
    let all = [
        (0, candidate(3, Stage::Thinker)),
        (1, candidate(2, Stage::Talker)),
        (2, candidate(1, Stage::Talker)),
    ];
    assert_eq!(schedule.choose(all.into_iter(), at(70)), Some(2));
    // One that was not heard yet goes before those that have time, and behind those that have none.
    schedule.speak(4, 1);
    let new = [(3, candidate(4, Stage::Talker))];
    let chosen = schedule.choose(all.into_iter().chain(new), at(70));
    assert_eq!(chosen, Some(2));
    schedule.gave(1, 50, 1, at(71));
    schedule.gave(2, 50, 1, at(71));
    let chosen = schedule.choose(all.into_iter().chain(new), at(72));
    assert_eq!(chosen, Some(3));
}

#[test]
fn a_speech_whose_reader_paused_owes_nothing_for_it() {
    let mut schedule = Schedule::default();
    let at = Duration::from_millis;
    for answer in [1, 2] {
        schedule.speak(answer, 1);
    }
    schedule.gave(1, 1, 1, at(0));
    // Nobody read for a minute, then the sound goes on, a second of it at once.
    schedule.gave(1, 12, 1, at(60_000));
    schedule.gave(2, 1, 1, at(60_000));
    let candidate = |answer| Candidate {
        answer,
        stage: Stage::Talker,
        since: at(60_000),
    };
    let all = [(1, candidate(1)), (2, candidate(2))];
    assert_eq!(schedule.choose(all.into_iter(), at(60_050)), Some(2));
}
