//! Placeholders: one pad token in the rendered prompt becomes one for each row that its medium has.

use std::ops::Range;

use crate::processor::medium::{MediaQueue, check_count};
use crate::processor::{Grid, MediaKind, Medium, TextError};

/// Ids and constants of the prompt's layout, from the thinker's (or talker's) config.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpecialTokens {
    /// `audio_token_id`: one row of a clip.
    pub audio: u32,
    /// `image_token_id`: one row of a picture.
    pub image: u32,
    /// `video_token_id`: one row of a film.
    pub video: u32,
    /// `audio_start_token_id`.
    pub audio_start: u32,
    /// `audio_end_token_id`.
    pub audio_end: u32,
    /// `vision_start_token_id`.
    pub vision_start: u32,
    /// `vision_end_token_id`.
    pub vision_end: u32,
    /// `position_id_per_seconds`: temporal positions in a second.
    pub position_id_per_seconds: f32,
    /// `vision_config.spatial_merge_size`: patches a row has on each side.
    pub spatial_merge_size: usize,
}

impl SpecialTokens {
    fn pad(&self, kind: MediaKind) -> u32 {
        match kind {
            MediaKind::Audio => self.audio,
            MediaKind::Image => self.image,
            MediaKind::Video => self.video,
        }
    }
}

/// Where the rows of a medium are in a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaSpan {
    /// Index in the list of media.
    pub medium: usize,
    /// Its pad tokens; with the pads of both, interleaved, for a film with sound.
    pub range: Range<usize>,
}

/// A prompt with its final length.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExpandedPrompt {
    /// Token ids. `[seq]`
    pub ids: Vec<u32>,
    /// The media in the order of the prompt, which is the order in which their rows fill the pads.
    pub spans: Vec<MediaSpan>,
}

/// Expands the pads of a tokenized prompt (spec E.2, `replace_multimodal_special_tokens`). Works on
/// ids: pads are matched before any other tokenization, so this equals the reference's expansion of
/// the text.
///
/// `media` are in order of appearance; each pad takes the next one of its kind. For a film with
/// sound the triple `vision_start video_pad vision_end` becomes `vision_start audio_start …
/// audio_end vision_end` around the interleaved pads.
pub fn expand(
    ids: &[u32],
    media: &[Medium],
    tokens: &SpecialTokens,
) -> Result<ExpandedPrompt, TextError> {
    check_counts(ids, media, tokens)?;
    check_media(media, tokens)?;
    let mut next = MediaQueue::new(media);
    let mut prompt = ExpandedPrompt {
        ids: Vec::with_capacity(ids.len()),
        spans: Vec::with_capacity(media.len()),
    };
    let mut index = 0;
    while index < ids.len() {
        let kind = MediaKind::ALL
            .into_iter()
            .find(|kind| tokens.pad(*kind) == ids[index]);
        let Some((medium, size)) = kind.and_then(|kind| next.take(kind)) else {
            prompt.ids.push(ids[index]);
            index += 1;
            continue;
        };
        if !is_enclosed(ids, index, tokens) {
            let before = media[..medium]
                .iter()
                .filter(|other| other.kind() == size.kind())
                .count();
            return Err(TextError::BarePlaceholder {
                kind: size.kind(),
                index: before,
            });
        }
        let with_sound = matches!(
            size,
            Medium::Video {
                audio_tokens: Some(_),
                ..
            }
        );
        if with_sound {
            prompt.ids.push(tokens.audio_start);
        }
        let start = prompt.ids.len();
        push_rows(&mut prompt.ids, size, tokens);
        prompt.spans.push(MediaSpan {
            medium,
            range: start..prompt.ids.len(),
        });
        if with_sound {
            prompt.ids.push(tokens.audio_end);
        }
        index += 1;
    }
    Ok(prompt)
}

fn check_counts(ids: &[u32], media: &[Medium], tokens: &SpecialTokens) -> Result<(), TextError> {
    for kind in MediaKind::ALL {
        let placeholders = ids.iter().filter(|id| **id == tokens.pad(kind)).count();
        check_count(kind, placeholders, media)?;
    }
    Ok(())
}

fn check_media(media: &[Medium], tokens: &SpecialTokens) -> Result<(), TextError> {
    let merge = tokens.spatial_merge_size.max(1);
    for (index, medium) in media.iter().enumerate() {
        let bad = |field, expected: String, found: String| {
            Err(TextError::BadMedium {
                medium: index,
                kind: medium.kind(),
                field,
                expected,
                found,
            })
        };
        let grid = match medium {
            Medium::Audio { tokens: 0 }
            | Medium::Video {
                audio_tokens: Some(0),
                ..
            } => {
                return bad("audio tokens", "1 or more".into(), "0".into());
            }
            Medium::Audio { .. } => continue,
            Medium::Image { grid } | Medium::Video { grid, .. } => grid,
        };
        if grid.tokens(merge) == 0 || grid.h % merge != 0 || grid.w % merge != 0 {
            let found = format!("{}x{}x{}", grid.t, grid.h, grid.w);
            return bad(
                "grid",
                format!("height and width to be positive multiples of {merge}"),
                found,
            );
        }
        if let Medium::Video {
            second_per_grid, ..
        } = medium
            && !(second_per_grid.is_finite() && *second_per_grid > 0.0)
        {
            return bad(
                "seconds per grid step",
                "a positive number".into(),
                second_per_grid.to_string(),
            );
        }
    }
    Ok(())
}

/// Whether the pad at `index` lies between the start and end tokens of its kind.
fn is_enclosed(ids: &[u32], index: usize, tokens: &SpecialTokens) -> bool {
    let (start, end) = if ids[index] == tokens.audio {
        (tokens.audio_start, tokens.audio_end)
    } else {
        (tokens.vision_start, tokens.vision_end)
    };
    index > 0 && ids[index - 1] == start && ids.get(index + 1) == Some(&end)
}

fn push_rows(ids: &mut Vec<u32>, medium: &Medium, tokens: &SpecialTokens) {
    let merge = tokens.spatial_merge_size;
    match *medium {
        Medium::Audio { tokens: count } => ids.extend(std::iter::repeat_n(tokens.audio, count)),
        Medium::Image { grid } => ids.extend(std::iter::repeat_n(tokens.image, grid.tokens(merge))),
        Medium::Video {
            grid,
            audio_tokens: None,
            ..
        } => {
            ids.extend(std::iter::repeat_n(tokens.video, grid.tokens(merge)));
        }
        Medium::Video {
            grid,
            second_per_grid,
            audio_tokens: Some(audio),
        } => {
            push_interleaved(ids, (grid, second_per_grid), audio, tokens);
        }
    }
}

/// Rows of a film and of its sound in order of time, the film first where they coincide. The order
/// that is written here is the only one: positions are later read off the ids, so that the two
/// cannot disagree.
fn push_interleaved(
    ids: &mut Vec<u32>,
    (grid, second_per_grid): (Grid, f64),
    audio_tokens: usize,
    tokens: &SpecialTokens,
) {
    let (steps, h, w) = grid.merged(tokens.spatial_merge_size);
    let mut heard = 0;
    for step in 0..steps {
        let time = step as f64 * second_per_grid * f64::from(tokens.position_id_per_seconds);
        while heard < audio_tokens && (heard as f64) < time {
            ids.push(tokens.audio);
            heard += 1;
        }
        ids.extend(std::iter::repeat_n(tokens.video, h * w));
    }
    ids.extend(std::iter::repeat_n(tokens.audio, audio_tokens - heard));
}

#[cfg(test)]
#[path = "placeholders_tests.rs"]
mod tests;
