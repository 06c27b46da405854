//! Who uses a shared device next: the sound that is due, then the way to the first sound, else the thinker and the speech
//! in shares.
//!
//! A player that begins at the first packet needs a frame every 80 ms from then on. What was given out beyond that is its
//! lead, and the lead less the work that the next packet still costs is the slack. While there is slack the thinker has
//! [`SHARE`] of the device: a frame of speech takes a few milliseconds, so a small part keeps the lead growing, and text
//! that is early is of more use than sound that is. What the thinker did not get when sound was due, it gets later.

use std::collections::BTreeMap;
use std::time::Duration;

/// Sound of a frame.
pub(crate) const FRAME: Duration = Duration::from_millis(80);
/// The thinker's part of a device that it shares with speech: some more than the 60 % that it is promised, for what is not
/// counted as anybody's time.
const SHARE: f64 = 2.0 / 3.0;
/// Sound is due when its slack is below a frame: a token of the thinker, or
/// the rows of a prompt that pass at once beside a speech, which cannot be interrupted, take less.
const RESERVE: f64 = 0.08;
/// Most seconds that the thinker gets back, and most that it is ahead.
const DEBT: [f64; 2] = [-0.02, 0.5];
/// Part of a new measurement in an estimate.
const NEW: f64 = 0.25;

/// One of the three loops of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Stage {
    /// Prompt to tokens.
    Thinker,
    /// Tokens to frames of codes, with the code predictor.
    Talker,
    /// Frames to samples.
    Code2Wav,
}

impl Stage {
    /// The name in errors.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Thinker => "the thinker",
            Self::Talker => "the talker",
            Self::Code2Wav => "code2wav",
        }
    }
}

/// A loop that wants the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    /// Number of the answer.
    pub(crate) answer: u64,
    pub(crate) stage: Stage,
    /// Since when it wants it.
    pub(crate) since: Duration,
}

/// What is known of the answers that are made, in times since any fixed moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schedule {
    /// Those that are spoken.
    speeches: BTreeMap<u64, Speech>,
    /// Seconds of the device that the thinker has still to get.
    debt: f64,
}

/// Speech in the making.
#[derive(Clone, Debug, Default)]
struct Speech {
    /// When its first packet was given out.
    first: Option<Duration>,
    /// Frames that the talker made, and those that were given out as samples.
    made: usize,
    given: usize,
    /// Frames of the next packet.
    packet: usize,
    /// Seconds of a frame in talker and code predictor, and in code2wav.
    talker: f64,
    code2wav: f64,
}

impl Speech {
    /// Seconds that the next packet can wait.
    fn slack(&self, now: Duration) -> Option<f64> {
        let played = now.checked_sub(self.first?)?.as_secs_f64();
        let lead = self.given as f64 * FRAME.as_secs_f64() - played;
        let missing = self.packet.saturating_sub(self.made - self.given);
        let work = missing as f64 * self.talker + self.packet as f64 * self.code2wav;
        Some(lead - work)
    }
}

/// How urgent a unit of work is; the smallest is done first.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
struct Rank {
    class: u8,
    slack: f64,
    /// From the end of the way to sound to its begin.
    stage: u8,
    since: Duration,
}

impl Schedule {
    /// An answer that is spoken begins, with so many frames in its first packet.
    pub(crate) fn speak(&mut self, answer: u64, packet: usize) {
        let speech = Speech {
            packet,
            ..Speech::default()
        };
        self.speeches.insert(answer, speech);
    }

    /// An answer is over.
    pub(crate) fn end(&mut self, answer: u64) {
        self.speeches.remove(&answer);
    }

    /// Samples of `frames` were given out; the next packet has `packet` frames.
    pub(crate) fn gave(&mut self, answer: u64, frames: usize, packet: usize, now: Duration) {
        if let Some(speech) = self.speeches.get_mut(&answer) {
            // A player that ran dry goes on from here: what it missed is no debt.
            let played = FRAME * u32::try_from(speech.given).unwrap_or(u32::MAX);
            let latest = now.saturating_sub(played);
            speech.first = Some(speech.first.map_or(now, |first| first.max(latest)));
            speech.given += frames;
            speech.packet = packet;
        }
    }

    /// Whether somebody listens.
    pub(crate) fn is_heard(&self) -> bool {
        let mut speeches = self.speeches.values();
        speeches.any(|speech| speech.first.is_some())
    }

    /// A unit of work of this loop took so long, with so many frames in it; `thinking` says whether a thinker wanted the
    /// device meanwhile.
    pub(crate) fn did(&mut self, who: Candidate, took: Duration, frames: usize, thinking: bool) {
        let seconds = took.as_secs_f64();
        let speech = self.speeches.get_mut(&who.answer);
        let shared = match (who.stage, speech) {
            (Stage::Thinker, _) => SHARE - 1.0,
            (_, None) => 0.0,
            (stage, Some(speech)) => {
                let estimate = match stage {
                    Stage::Talker => &mut speech.talker,
                    _ => &mut speech.code2wav,
                };
                if frames > 0 {
                    let each = seconds / frames as f64;
                    let known = *estimate > 0.0;
                    *estimate += if known {
                        NEW * (each - *estimate)
                    } else {
                        each
                    };
                }
                if stage == Stage::Talker {
                    speech.made += frames;
                }
                // The way to the first packet is not shared.
                let counts = thinking && speech.first.is_some();
                if counts { SHARE } else { 0.0 }
            }
        };
        self.debt = (self.debt + shared * seconds).clamp(DEBT[0], DEBT[1]);
    }

    /// Whose turn it is.
    pub(crate) fn choose<K: Copy>(
        &self,
        candidates: impl Iterator<Item = (K, Candidate)>,
        now: Duration,
    ) -> Option<K> {
        let ranked = candidates.map(|(key, candidate)| (key, self.rank(candidate, now)));
        let least = |a: &(K, Rank), b: &(K, Rank)| {
            let order = a.1.partial_cmp(&b.1);
            order.unwrap_or(std::cmp::Ordering::Equal)
        };
        ranked.min_by(least).map(|(key, _)| key)
    }

    fn rank(&self, candidate: Candidate, now: Duration) -> Rank {
        let thinks = candidate.stage == Stage::Thinker;
        let speech = self.speeches.get(&candidate.answer);
        let slack = speech.and_then(|speech| speech.slack(now));
        let unheard = speech.is_some_and(|speech| speech.first.is_none());
        let thinker_first = self.debt >= 0.0;
        let class = match (thinks, unheard) {
            (false, false) if slack.is_some_and(|slack| slack < RESERVE) => 0,
            (false, true) => 1,
            (true, true) => 2,
            (thinks, false) if thinks == thinker_first => 3,
            _ => 4,
        };
        Rank {
            class,
            slack: if class == 0 {
                slack.unwrap_or(0.0)
            } else {
                0.0
            },
            stage: match candidate.stage {
                Stage::Code2Wav => 0,
                Stage::Talker => 1,
                Stage::Thinker => 2,
            },
            since: candidate.since,
        }
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
