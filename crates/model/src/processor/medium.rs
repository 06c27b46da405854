//! How large a medium of a request is, as far as the prompt is concerned.

use crate::processor::{MediaKind, TextError};

/// Patches of a picture or film before the spatial merge (`grid_thw`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Steps in time; 1 for a picture.
    pub t: usize,
    /// Patches from top to bottom.
    pub h: usize,
    /// Patches from left to right.
    pub w: usize,
}

/// One medium of a request as the prompt sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Medium {
    /// A clip.
    Audio {
        /// Rows that the audio encoder gives (spec C.2).
        tokens: usize,
    },
    /// A picture.
    Image {
        /// Its patches.
        grid: Grid,
    },
    /// A film.
    Video {
        /// Its patches.
        grid: Grid,
        /// Seconds from one step in time to the next.
        second_per_grid: f64,
        /// Rows of its sound track, where that is to be heard (`use_audio_in_video`).
        audio_tokens: Option<usize>,
    },
}

impl Medium {
    /// The kind.
    pub fn kind(&self) -> MediaKind {
        match self {
            Self::Audio { .. } => MediaKind::Audio,
            Self::Image { .. } => MediaKind::Image,
            Self::Video { .. } => MediaKind::Video,
        }
    }
}

impl Grid {
    /// Rows after the merge: (steps in time, rows from top to bottom, rows from left to right).
    pub(crate) fn merged(&self, merge: usize) -> (usize, usize, usize) {
        let merge = merge.max(1);
        (self.t, self.h / merge, self.w / merge)
    }

    /// Rows that the vision encoder gives: `t·h·w / merge²`.
    pub fn tokens(&self, merge: usize) -> usize {
        let (t, h, w) = self.merged(merge);
        t.saturating_mul(h).saturating_mul(w)
    }
}

/// Hands out the media of each kind in order.
pub(crate) struct MediaQueue<'a> {
    media: &'a [Medium],
    /// Where to look next for each kind.
    cursors: [usize; 3],
    /// How many of each kind were handed out.
    taken: [usize; 3],
}

impl<'a> MediaQueue<'a> {
    pub(crate) fn new(media: &'a [Medium]) -> Self {
        Self {
            media,
            cursors: [0; 3],
            taken: [0; 3],
        }
    }

    /// The next medium of `kind`, with its index in the list.
    pub(crate) fn take(&mut self, kind: MediaKind) -> Option<(usize, &'a Medium)> {
        let cursor = &mut self.cursors[kind as usize];
        let mut rest = self.media.iter().enumerate().skip(*cursor);
        let (index, medium) = rest.find(|(_, medium)| medium.kind() == kind)?;
        *cursor = index + 1;
        self.taken[kind as usize] += 1;
        Some((index, medium))
    }

    /// An error where fewer media were handed out than there are.
    pub(crate) fn check_all_taken(&self) -> Result<(), TextError> {
        for kind in MediaKind::ALL {
            check_count(kind, self.taken[kind as usize], self.media)?;
        }
        Ok(())
    }
}

/// An error unless there are as many media of `kind` as placeholders.
pub(crate) fn check_count(
    kind: MediaKind,
    placeholders: usize,
    media: &[Medium],
) -> Result<(), TextError> {
    let media = media.iter().filter(|medium| medium.kind() == kind).count();
    if placeholders == media {
        Ok(())
    } else {
        Err(TextError::PlaceholderCount {
            kind,
            placeholders,
            media,
        })
    }
}
