//! What an answer leaves to the next turn of its conversation: the rows of the thinker and of the talker that both prompts
//! begin with.
//!
//! Rows are the same when token, position and, for media, the features are. In the talker only the user's turns can be:
//! its reply begins anew in every turn, and earlier replies are not heard (docs/spec/talker-code2wav.md B.8).

use std::sync::Arc;

use burn::tensor::{Tensor, s};
use burn_omni_model::processor::media::{LogMel, Patches};
use burn_omni_model::processor::{Medium, Positions, Prompt};
use burn_omni_model::talker::{Heard, TalkerState, Turns};
use burn_omni_model::thinker::TextState;

use crate::budget::Rows;

/// What an answer leaves.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) thinker: KeptThinker,
    pub(crate) talker: KeptTalker,
}

impl Kept {
    /// Rows of caches that are its own: those that there is room for.
    pub(crate) fn rows(&self) -> Rows {
        let thinker = self.thinker.state.as_ref();
        let talker = self.talker.state.as_ref();
        let accepted = self.thinker.accepted.iter();
        Rows {
            thinker: thinker.map_or(0, TextState::capacity),
            talker: talker.map_or(0, TalkerState::capacity),
            accepted: accepted.map(|rows| rows.dims()[0]).sum(),
        }
    }
}

/// Rows of the thinker.
#[derive(Debug, Default)]
pub(crate) struct KeptThinker {
    prompt: Arc<Prompt>,
    /// The tokens whose rows are kept: those of the prompt, and those of the answer that passed.
    ids: Vec<u32>,
    /// Accepted hidden rows of the first of them, where media or the talker made them worth keeping: `[rows, hidden]` each.
    accepted: Vec<Tensor<2>>,
    /// The state, or what shows that the captured one is as it was left.
    pub(crate) state: Option<TextState>,
    pub(crate) ticket: Option<u64>,
}

/// Rows of the talker: those of the user's turns.
#[derive(Debug, Default)]
pub(crate) struct KeptTalker {
    prompt: Arc<Prompt>,
    user: Vec<(usize, Heard)>,
    positions: Positions,
    pub(crate) state: Option<TalkerState>,
    pub(crate) ticket: Option<u64>,
}

impl KeptThinker {
    /// Number of rows that a prompt begins with and that are kept; it always has one more.
    pub(crate) fn common(&self, prompt: &Prompt) -> usize {
        common((&self.prompt, &self.ids), prompt)
    }

    /// From now on the rows are those of this prompt, `rows` of which are kept.
    pub(crate) fn begin(&mut self, prompt: Arc<Prompt>, rows: usize) {
        self.ids.clear();
        self.ids.extend(&prompt.ids[..rows]);
        if rows == 0 {
            self.accepted.clear();
        } else if !self.accepted.is_empty() {
            let accepted = Tensor::cat(std::mem::take(&mut self.accepted), 0);
            let [known, _] = accepted.dims();
            self.accepted = vec![accepted.slice(s![..known.min(rows), ..])];
        }
        self.prompt = prompt;
    }

    /// Rows passed behind those before; `accepted` are theirs.
    pub(crate) fn passed(&mut self, ids: &[u32], accepted: Option<Tensor<2>>) {
        if let Some(accepted) = accepted {
            self.pad(&accepted);
            self.accepted.push(accepted);
        }
        self.ids.extend(ids);
    }

    /// Rows of answers have no accepted rows, and need none.
    fn pad(&mut self, like: &Tensor<2>) {
        let known: usize = self.accepted.iter().map(|rows| rows.dims()[0]).sum();
        let missing = self.ids.len() - known;
        if missing > 0 {
            let [_, hidden] = like.dims();
            let options = (&like.device(), like.dtype());
            self.accepted
                .push(Tensor::zeros([missing, hidden], options));
        }
    }

    /// Accepted hidden rows of the whole prompt, `[prompt, hidden]`; nothing where none were kept.
    pub(crate) fn accepted(&self) -> Option<Tensor<2>> {
        (!self.accepted.is_empty()).then(|| Tensor::cat(self.accepted.clone(), 0))
    }

    /// The state stays with its rows.
    pub(crate) fn leave(&mut self, state: Option<TextState>, ticket: Option<u64>) {
        if let Some(state) = &state {
            self.ids.truncate(state.len());
        }
        (self.state, self.ticket) = (state, ticket);
    }
}

impl KeptTalker {
    /// Number of rows of the user's turns that the prompt begins with and that are kept.
    pub(crate) fn common(&self, prompt: &Prompt, turns: &Turns, positions: &Positions) -> usize {
        let rows = common((&self.prompt, &self.prompt.ids), prompt);
        let same = |i: &usize| {
            let (row, _) = turns.user()[*i];
            row < rows
                && self.user[*i] == turns.user()[*i]
                && place(&self.positions, *i) == place(positions, *i)
        };
        let most = self.user.len().min(turns.user().len());
        (0..most).take_while(same).count()
    }

    /// From now on the rows are those of this prompt.
    pub(crate) fn begin(&mut self, prompt: Arc<Prompt>, turns: &Turns, positions: Positions) {
        self.prompt = prompt;
        self.user = turns.user().to_vec();
        self.positions = positions;
    }
}

/// The position of a row on all axes.
fn place(positions: &Positions, row: usize) -> [f32; 3] {
    let axes = [&positions.t, &positions.h, &positions.w];
    match axes[0].len() {
        rows if row < rows => axes.map(|axis| axis[row]),
        _ => [positions.decoded(row); 3],
    }
}

/// Number of rows that a prompt has in common with an older one and what followed it, in whole media; the last row of the
/// prompt is none of them.
fn common((old, ids): (&Prompt, &[u32]), new: &Prompt) -> usize {
    let most = ids.len().min(new.ids.len().saturating_sub(1));
    let same = |row: &usize| {
        ids[*row] == new.ids[*row] && place(&old.positions, *row) == place(&new.positions, *row)
    };
    let rows = (0..most).take_while(same).count();
    for (i, span) in new.spans.iter().enumerate() {
        if span.range.start >= rows {
            break;
        }
        let same = old.spans.get(i).is_some_and(|other| {
            other.range == span.range
                && old.media[other.medium] == new.media[span.medium]
                && same_features(features(old, other.medium), features(new, span.medium))
        });
        if !same || span.range.end > rows {
            return span.range.start;
        }
    }
    rows
}

/// Media of each kind of features before a medium: clips, pictures, films.
fn before(prompt: &Prompt, medium: usize) -> [usize; 3] {
    let mut counts = [0; 3];
    for medium in &prompt.media[..medium] {
        let kinds = kinds(medium);
        for (count, has) in counts.iter_mut().zip(kinds) {
            *count += usize::from(has);
        }
    }
    counts
}

/// Which features a medium has.
fn kinds(medium: &Medium) -> [bool; 3] {
    match medium {
        Medium::Audio { .. } => [true, false, false],
        Medium::Image { .. } => [false, true, false],
        Medium::Video { audio_tokens, .. } => [audio_tokens.is_some(), false, true],
    }
}

/// Log-mel and patches of a medium.
type Features<'a> = (Option<&'a LogMel>, [Option<&'a Patches>; 2]);

/// Whether two media have the same features; those of a medium that was kept are shared, and need no look.
fn same_features(some: Features<'_>, others: Features<'_>) -> bool {
    let shared = places(some) == places(others);
    shared || some == others
}

/// Where the features of a medium are in memory.
fn places((mel, patches): Features<'_>) -> [Option<*const [f32]>; 3] {
    let [picture, film] = patches.map(|patches| patches.map(|patches| Arc::as_ptr(&patches.data)));
    [mel.map(|mel| Arc::as_ptr(&mel.data)), picture, film]
}

/// The features of a medium.
fn features(prompt: &Prompt, medium: usize) -> Features<'_> {
    let [clips, pictures, films] = before(prompt, medium);
    let [clip, picture, film] = kinds(&prompt.media[medium]);
    (
        prompt.audio.get(clips).filter(|_| clip),
        [
            prompt.images.get(pictures).filter(|_| picture),
            prompt.videos.get(films).filter(|_| film),
        ],
    )
}

/// What a prompt has behind its first `rows`, for the encoders: no medium is cut.
pub(crate) fn rest(prompt: &Prompt, rows: usize) -> Prompt {
    let passed = prompt.spans.iter().filter(|span| span.range.start < rows);
    let passed = passed.map(|span| kinds(&prompt.media[span.medium]));
    let [clips, pictures, films] = passed.fold([0; 3], |counts, kinds| {
        std::array::from_fn(|i| counts[i] + usize::from(kinds[i]))
    });
    Prompt {
        ids: prompt.ids[rows..].to_vec(),
        audio: prompt.audio[clips..].to_vec(),
        images: prompt.images[pictures..].to_vec(),
        videos: prompt.videos[films..].to_vec(),
        ..Prompt::default()
    }
}

#[cfg(test)]
#[path = "kept_tests.rs"]
mod tests;
