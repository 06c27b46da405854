//! Positions of a prompt's tokens on the axes of M-RoPE: time, height, width.

use crate::processor::medium::MediaQueue;
use crate::processor::{MediaKind, Medium, SpecialTokens, TextError};

/// Positions of every token of one sequence. They are real numbers: a film's steps in time need not
/// be whole.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Positions {
    /// Time. `[seq]`
    pub t: Vec<f32>,
    /// Height. `[seq]`
    pub h: Vec<f32>,
    /// Width. `[seq]`
    pub w: Vec<f32>,
    /// Greatest position + 1 − `seq`: what a token decoded later is ahead of its index.
    pub delta: f32,
}

impl Positions {
    /// Position, on all axes, of the token at `index` of the whole sequence, behind the prompt.
    pub fn decoded(&self, index: usize) -> f32 {
        index as f32 + self.delta
    }

    /// Tokens that have a position.
    pub fn len(&self) -> usize {
        self.t.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.t.is_empty()
    }
}

/// Positions of `ids`, whose media are `media` in order of appearance (spec B.4, `get_rope_index`
/// of the reference for one sequence without padding). The thinker gives its expanded prompt, the
/// talker its own ids with the media of the user's turns (spec B.7 of the talker).
///
/// Start and end tokens are found as in the reference: a vision start followed by an image or video
/// pad opens a picture or film, followed by an audio start a film with sound, and an audio start
/// followed by an audio pad a clip. Any other start token is text.
pub fn positions(
    ids: &[u32],
    media: &[Medium],
    tokens: &SpecialTokens,
) -> Result<Positions, TextError> {
    let mut layout = Layout {
        ids,
        tokens,
        media: MediaQueue::new(media),
        out: Positions::default(),
        next: 0.0,
    };
    let mut index = 0;
    let mut text_start = 0;
    while index < ids.len() {
        let Some(opening) = layout.opening(index) else {
            index += 1;
            continue;
        };
        layout.run(index - text_start);
        layout.run(opening.marks);
        let payload = index + opening.marks;
        let end = layout.payload_end(payload, opening);
        layout.payload(payload..end, opening)?;
        let closing = opening.marks.min(ids.len() - end);
        layout.run(closing);
        index = end + closing;
        text_start = index;
    }
    layout.run(ids.len() - text_start);
    layout.media.check_all_taken()?;
    let mut out = layout.out;
    let greatest = [&out.t, &out.h, &out.w]
        .into_iter()
        .flatten()
        .fold(-1.0_f32, |a, b| a.max(*b));
    out.delta = greatest + 1.0 - ids.len() as f32;
    Ok(out)
}

/// What a start token opens, and how many start (and as many end) tokens enclose it.
#[derive(Clone, Copy, PartialEq)]
struct Opening {
    kind: MediaKind,
    with_sound: bool,
    marks: usize,
}

struct Layout<'a> {
    ids: &'a [u32],
    tokens: &'a SpecialTokens,
    media: MediaQueue<'a>,
    out: Positions,
    /// Position of the next token: that of the last block's greatest + 1, on any axis.
    next: f32,
}

impl Layout<'_> {
    fn opening(&self, index: usize) -> Option<Opening> {
        let follows = |offset: usize, id: u32| self.ids.get(index + offset) == Some(&id);
        let tokens = self.tokens;
        let plain = |kind| {
            Some(Opening {
                kind,
                with_sound: false,
                marks: 1,
            })
        };
        if self.ids[index] == tokens.audio_start && follows(1, tokens.audio) {
            return plain(MediaKind::Audio);
        }
        if self.ids[index] != tokens.vision_start {
            return None;
        }
        if follows(1, tokens.image) {
            return plain(MediaKind::Image);
        }
        if follows(1, tokens.video) {
            return plain(MediaKind::Video);
        }
        let with_sound = follows(1, tokens.audio_start)
            && (follows(2, tokens.video) || follows(2, tokens.audio));
        with_sound.then_some(Opening {
            kind: MediaKind::Video,
            with_sound,
            marks: 2,
        })
    }

    /// End of the run of pads that begins at `start`.
    fn payload_end(&self, start: usize, opening: Opening) -> usize {
        let tokens = self.tokens;
        let run = self.ids[start..]
            .iter()
            .take_while(|id| match opening.kind {
                MediaKind::Audio => **id == tokens.audio,
                MediaKind::Image => **id == tokens.image,
                MediaKind::Video => {
                    **id == tokens.video || (opening.with_sound && **id == tokens.audio)
                }
            });
        start + run.count()
    }

    /// One token after another, each position counted from the run's first as in the reference: the
    /// sums of fractional positions round differently otherwise.
    fn run(&mut self, length: usize) {
        let first = self.next;
        for offset in 0..length {
            self.push([first + offset as f32; 3]);
        }
        if length > 0 {
            self.next = first + (length - 1) as f32 + 1.0;
        }
    }

    fn push(&mut self, [t, h, w]: [f32; 3]) {
        self.out.t.push(t);
        self.out.h.push(h);
        self.out.w.push(w);
    }

    fn payload(
        &mut self,
        range: std::ops::Range<usize>,
        opening: Opening,
    ) -> Result<(), TextError> {
        let ids = &self.ids[range.clone()];
        let merge = self.tokens.spatial_merge_size;
        let count = |id: u32| ids.iter().filter(|other| **other == id).count();
        let check = |kind, expected, found| {
            if expected == found {
                Ok(())
            } else {
                Err(TextError::RunLength {
                    index: range.start,
                    kind,
                    expected,
                    found,
                })
            }
        };
        let medium = self.media.take(opening.kind).map(|(_, medium)| *medium);
        match (opening.kind, medium) {
            (kind @ MediaKind::Audio, Some(Medium::Audio { tokens })) => {
                check(kind, tokens, ids.len())?;
                self.run(ids.len());
                Ok(())
            }
            (kind @ MediaKind::Image, Some(Medium::Image { grid })) => {
                check(kind, grid.tokens(merge), ids.len())?;
                self.visual(ids, grid.merged(merge), 1.0);
                Ok(())
            }
            (
                kind @ MediaKind::Video,
                Some(Medium::Video {
                    grid,
                    second_per_grid,
                    audio_tokens,
                }),
            ) => {
                check(kind, grid.tokens(merge), count(self.tokens.video))?;
                check(
                    MediaKind::Audio,
                    audio_tokens.unwrap_or(0),
                    count(self.tokens.audio),
                )?;
                self.visual(ids, grid.merged(merge), second_per_grid as f32);
                Ok(())
            }
            (kind, _) => check(kind, 0, ids.len()),
        }
    }

    /// A picture or film, with or without sound: every pad takes the next position of its own kind,
    /// both counted from the same start.
    fn visual(
        &mut self,
        ids: &[u32],
        (_, rows, columns): (usize, usize, usize),
        second_per_grid: f32,
    ) {
        let start = self.next;
        let (mut seen, mut heard) = (0, 0);
        // The reference derives what follows from its last block alone: the run of one kind that
        // ends the interleave.
        let last_block = ids
            .iter()
            .rev()
            .take_while(|id| Some(*id) == ids.last())
            .count();
        let mut greatest = start;
        for (index, id) in ids.iter().enumerate() {
            let position = if *id == self.tokens.audio {
                heard += 1;
                [start + (heard - 1) as f32; 3]
            } else {
                let (step, row, column) = (
                    seen / (rows * columns),
                    seen / columns % rows,
                    seen % columns,
                );
                seen += 1;
                let time = step as f32 * second_per_grid * self.tokens.position_id_per_seconds;
                [time + start, row as f32 + start, column as f32 + start]
            };
            if index + last_block >= ids.len() {
                greatest = position.into_iter().fold(greatest, f32::max);
            }
            self.push(position);
        }
        self.next = greatest + 1.0;
    }
}

#[cfg(test)]
#[path = "positions_tests.rs"]
mod tests;
