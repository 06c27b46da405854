//! How far an answer has come, for who leaves it early.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// How far an answer has come.
#[derive(Debug, Default)]
pub(crate) struct Progress(Mutex<Far>);

/// How far it has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Far {
    /// The tokens whose text was given out.
    ids: Vec<u32>,
    /// Whether they are spoken.
    is_spoken: bool,
    /// Frames that were given out, and their samples.
    frames: usize,
    samples: usize,
    /// Samples of a frame but the first.
    frame: usize,
    /// Frames of the whole speech, once it ended.
    whole: Option<usize>,
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, Far> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer is spoken, though no sound of it may have been given out yet.
    pub(crate) fn speaks(&self) {
        self.lock().is_spoken = true;
    }

    pub(crate) fn said(&self, id: u32) {
        self.lock().ids.push(id);
    }

    /// So many frames were given out as so many samples; `frame` is what each adds to a stream but the first.
    pub(crate) fn spoke(&self, [frames, samples]: [usize; 2], frame: usize) {
        let mut far = self.lock();
        far.frame = frame;
        far.frames += frames;
        far.samples += samples;
    }

    /// The speech ended with so many frames.
    pub(crate) fn spoken(&self, frames: usize) {
        self.lock().whole = Some(frames);
    }

    pub(crate) fn far(&self) -> Far {
        self.lock().clone()
    }
}

impl Far {
    /// The tokens that so many samples of the speech can have told; all of them where there was no speech.
    ///
    /// A frame is made from its own token and those before, so no more of them can have been heard; and where the whole
    /// speech is known, its frames share the tokens evenly.
    pub(crate) fn heard(&self, samples: usize) -> &[u32] {
        if !self.is_spoken {
            return &self.ids;
        }
        let tokens = self.ids.len();
        let frames = self.frames_of(samples);
        let heard = match self.whole {
            Some(whole) => (tokens * frames).div_ceil(whole.max(1)),
            None => frames,
        };
        &self.ids[..heard.min(tokens)]
    }

    /// Frames that so many samples have begun. The first frame is shorter than the others.
    fn frames_of(&self, samples: usize) -> usize {
        if samples == 0 || self.frames == 0 {
            return 0;
        }
        let cut = self.frame * self.frames - self.samples;
        let samples = samples.saturating_add(cut);
        samples.div_ceil(self.frame).min(self.frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn far(ids: u32, given: [usize; 2], whole: Option<usize>) -> Far {
        let progress = Progress::default();
        (0..ids).for_each(|id| progress.said(id));
        if given != [0, 0] {
            progress.speaks();
            progress.spoke(given, 1920);
        }
        if let Some(frames) = whole {
            progress.spoken(frames);
        }
        progress.far()
    }

    #[test]
    fn frames_share_the_tokens_of_a_whole_speech() {
        // 40 frames of 1920 samples less 555, and 10 tokens.
        let far = far(10, [40, 40 * 1920 - 555], Some(40));
        let heard = |samples| far.heard(samples).len();
        assert_eq!([0, 1, 1365].map(heard), [0, 1, 1]);
        assert_eq!(heard(4 * 1920 - 555), 1);
        assert_eq!(heard(4 * 1920 - 554), 2);
        assert_eq!(heard(20 * 1920 - 555), 5);
        assert_eq!([40 * 1920 - 555, usize::MAX].map(heard), [10, 10]);
    }

    #[test]
    fn of_an_unfinished_speech_a_frame_tells_a_token_at_most() {
        let far = far(10, [4, 4 * 1920 - 555], None);
        assert_eq!(far.heard(1365), [0]);
        assert_eq!(far.heard(1366), [0, 1]);
        assert_eq!(far.heard(100_000), [0, 1, 2, 3]);
    }

    #[test]
    fn of_a_speech_that_has_no_sound_yet_nothing_was_heard() {
        let progress = Progress::default();
        progress.speaks();
        (0..3).for_each(|id| progress.said(id));
        assert_eq!(
            [0, 1, usize::MAX].map(|samples| progress.far().heard(samples).len()),
            [0; 3]
        );
    }

    #[test]
    fn without_speech_everything_was_read() {
        assert_eq!(far(3, [0, 0], None).heard(0), [0, 1, 2]);
    }
}
