//! Which rows of the thinker's prompt the talker hears.

use std::ops::Range;

use crate::config::{SpeechIds, TalkerConfig};

/// Rows before the spoken text of a reply that the thinker's prompt holds: `<|im_start|>`, the role and a newline.
pub(super) const HEADER_ROWS: usize = 3;
/// Rows of the reply in the talker's prompt, the first spoken token included.
pub(super) const REPLY_ROWS: usize = 9;

/// The thinker's tokens that tell the turns of a prompt apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnIds {
    /// `<|im_start|>`, before the role of a turn.
    pub im_start: u32,
    /// The role whose turns are heard.
    pub user: u32,
    /// The role of the reply.
    pub assistant: u32,
    /// Tokens in the place of audio, image and video rows.
    pub media: [u32; 3],
}

impl TurnIds {
    /// The ids of a model.
    #[must_use]
    pub fn new(im_start: u32, speech: &SpeechIds, config: &TalkerConfig) -> Self {
        Self {
            im_start,
            user: speech.user,
            assistant: speech.assistant,
            media: [
                config.audio_token_id,
                config.image_token_id,
                config.video_token_id,
            ],
        }
    }
}

/// What the talker reads of one row of the thinker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The input embedding of a text token, through `text_projection`.
    Text,
    /// The accepted hidden state of a media row, through `hidden_projection`.
    Media,
}

/// The prompt has no open turn of the assistant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the prompt does not end in a turn of the assistant, so there is nothing to speak")]
pub struct NoReply;

/// The turns of a prompt, as the talker hears them: those of the user, then the reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turns {
    user: Vec<(usize, Heard)>,
    reply: usize,
    rows: usize,
}

impl Turns {
    /// Cuts a prompt into turns. A token belongs to the turn of the last `<|im_start|>` before it, whose role is the
    /// next token; the turns of other roles are not heard, and earlier replies neither.
    ///
    /// # Errors
    /// When no turn is one of the assistant, or the last such turn has no room for its header.
    pub fn new(prompt: &[u32], ids: &TurnIds) -> Result<Self, NoReply> {
        let mut user = Vec::new();
        // As in the reference, tokens before the first turn take the role that follows the first token.
        let mut role = prompt.get(1);
        for (row, id) in prompt.iter().enumerate() {
            if *id == ids.im_start {
                role = prompt.get(row + 1).or(Some(id));
            }
            if role == Some(&ids.user) {
                let heard = if ids.media.contains(id) {
                    Heard::Media
                } else {
                    Heard::Text
                };
                user.push((row, heard));
            }
        }
        let reply = prompt
            .windows(2)
            .rposition(|pair| pair == [ids.im_start, ids.assistant])
            .filter(|start| start + HEADER_ROWS <= prompt.len())
            .ok_or(NoReply)?;
        Ok(Self {
            user,
            reply,
            rows: prompt.len(),
        })
    }

    /// The rows of the thinker's prompt in the user's turns, in order.
    #[must_use]
    pub fn user(&self) -> &[(usize, Heard)] {
        &self.user
    }

    /// The rows of the thinker's prompt that open the reply.
    #[must_use]
    pub fn header(&self) -> Range<usize> {
        self.reply..self.reply + HEADER_ROWS
    }

    /// The rows of the thinker's prompt that are already text of the reply, spoken before what the thinker generates:
    /// none unless the prompt begins the answer.
    #[must_use]
    pub fn spoken(&self) -> Range<usize> {
        self.reply + HEADER_ROWS..self.rows
    }

    /// Number of rows of the talker's prompt.
    #[must_use]
    pub fn talker_rows(&self) -> usize {
        self.user.len() + REPLY_ROWS
    }

    /// The talker's prompt as token ids, from which its positions are formed: those of the user's turns, and `tts_pad`
    /// for every row of the reply.
    #[must_use]
    pub fn talker_ids(&self, prompt: &[u32], tts_pad: u32) -> Vec<u32> {
        let user = self.user.iter().map(|(row, _)| prompt[*row]);
        user.chain(std::iter::repeat_n(tts_pad, REPLY_ROWS))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: TurnIds = TurnIds {
        im_start: 1,
        user: 10,
        assistant: 11,
        media: [20, 21, 22],
    };

    #[test]
    fn user_turns_are_heard_and_no_others() {
        // system, user with two audio rows, an earlier reply, a tool, user, the open reply
        let prompt = [
            1, 9, 5, 2, 1, 10, 5, 20, 20, 2, 1, 11, 5, 2, 1, 12, 5, 1, 10, 6, 2, 1, 11, 5,
        ];
        let turns = Turns::new(&prompt, &IDS).unwrap();
        let rows: Vec<usize> = turns.user().iter().map(|(row, _)| *row).collect();
        assert_eq!(rows, [4, 5, 6, 7, 8, 9, 17, 18, 19, 20]);
        let media: Vec<usize> = turns
            .user()
            .iter()
            .filter(|(_, heard)| *heard == Heard::Media)
            .map(|(row, _)| *row)
            .collect();
        assert_eq!(media, [7, 8]);
        assert_eq!((turns.header(), turns.spoken()), (21..24, 24..24));
        assert_eq!(turns.talker_rows(), 19);
        let ids = turns.talker_ids(&prompt, 30);
        assert_eq!(ids[..10], [1, 10, 5, 20, 20, 2, 1, 10, 6, 2]);
        assert_eq!(ids[10..], [30; 9]);
    }

    #[test]
    fn text_before_the_first_turn_takes_the_role_after_the_first_token() {
        let rows = |prompt: &[u32]| Turns::new(prompt, &IDS).unwrap().user().len();
        assert_eq!(rows(&[5, 10, 5, 1, 11, 5]), 3);
        assert_eq!(rows(&[10, 5, 5, 1, 11, 5]), 0);
    }

    #[test]
    fn a_begun_answer_is_spoken_first_and_a_missing_one_is_an_error() {
        let turns = Turns::new(&[1, 10, 5, 1, 11, 5, 7, 8], &IDS).unwrap();
        assert_eq!(turns.spoken(), 6..8);
        assert_eq!(Turns::new(&[1, 10, 5], &IDS), Err(NoReply));
        assert_eq!(Turns::new(&[1, 10, 5, 1, 11], &IDS), Err(NoReply));
        assert_eq!(Turns::new(&[], &IDS), Err(NoReply));
    }
}
