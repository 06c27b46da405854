//! Token ids that belong to the whole model and have no place in a split layout without a root.

use super::section::Section;
use super::{Config, ConfigError, Sources};

/// The ids of the whole model, all of them known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpecialIds {
    /// `<|im_start|>`.
    pub im_start: u32,
    /// `<|im_end|>`, the end of an answer.
    pub im_end: u32,
    /// What speech needs besides; `None` without a talker.
    pub speech: Option<SpeechIds>,
}

/// Thinker tokens that the talker's prompt is built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpeechIds {
    /// Role word `system`.
    pub system: u32,
    /// Role word `user`.
    pub user: u32,
    /// Role word `assistant`.
    pub assistant: u32,
    /// `<tts_pad>`.
    pub tts_pad: u32,
    /// `<tts_text_bos>`.
    pub tts_bos: u32,
    /// `<tts_text_eod>`.
    pub tts_eos: u32,
}

/// A root field and the text of its token.
type Named = (&'static str, &'static str);

const IM_START: Named = ("im_start_token_id", "<|im_start|>");
const IM_END: Named = ("im_end_token_id", "<|im_end|>");
const TTS_PAD: Named = ("tts_pad_token_id", "<tts_pad>");
const TTS_BOS: Named = ("tts_bos_token_id", "<tts_text_bos>");
const TTS_EOS: Named = ("tts_eos_token_id", "<tts_text_eod>");
const SYSTEM: Named = ("system_token_id", "system");
const USER: Named = ("user_token_id", "user");
const ASSISTANT: Named = ("assistant_token_id", "assistant");

impl Config {
    /// Completes the ids with those of the tokenizer: `lookup` maps the text of a token to its id.
    ///
    /// The role words and the `tts` tokens are needed, and looked up, only where there is a talker.
    ///
    /// # Errors
    /// When an id is in neither place, or both disagree.
    pub fn resolve_ids(
        &mut self,
        lookup: impl Fn(&str) -> Option<u32>,
    ) -> Result<SpecialIds, ConfigError> {
        let resolve = |(field, token): Named, id: &mut Option<u32>| match (*id, lookup(token)) {
            (Some(found), Some(expected)) if found != expected => Err(ConfigError::IdMismatch {
                field,
                token,
                found,
                expected,
            }),
            (None, None) => Err(ConfigError::UnresolvedId { field, token }),
            (Some(known), _) | (None, Some(known)) => {
                *id = Some(known);
                Ok(known)
            }
        };
        let im_start = resolve(IM_START, &mut self.im_start_token_id)?;
        let im_end = resolve(IM_END, &mut self.im_end_token_id)?;
        if self.talker.is_none() {
            return Ok(SpecialIds {
                im_start,
                im_end,
                speech: None,
            });
        }
        let speech = SpeechIds {
            system: resolve(SYSTEM, &mut self.system_token_id)?,
            user: resolve(USER, &mut self.user_token_id)?,
            assistant: resolve(ASSISTANT, &mut self.assistant_token_id)?,
            tts_pad: resolve(TTS_PAD, &mut self.tts_pad_token_id)?,
            tts_bos: resolve(TTS_BOS, &mut self.tts_bos_token_id)?,
            tts_eos: resolve(TTS_EOS, &mut self.tts_eos_token_id)?,
        };
        Ok(SpecialIds {
            im_start,
            im_end,
            speech: Some(speech),
        })
    }
}

/// An id of the root, else of the talker or thinker, which copy some of them; all places must agree
/// and lie in the thinker's vocabulary.
pub(super) fn find(
    sources: &Sources<'_>,
    key: &str,
    vocab_size: usize,
) -> Result<Option<u32>, ConfigError> {
    let text = sources.thinker.section("text_config")?;
    let places = sources
        .root
        .iter()
        .chain(&sources.talker)
        .chain([&sources.thinker]);
    let mut first: Option<(&Section<'_>, u32)> = None;
    for place in places {
        let Some(id) = place.optional_id(key)? else {
            continue;
        };
        place.id_below(key, id, (&text, "vocab_size", vocab_size))?;
        match first {
            Some((other, expected)) if expected != id => {
                return Err(place.contradiction(key, id, other.reference(key, expected)));
            }
            Some(_) => {}
            None => first = Some((place, id)),
        }
    }
    Ok(first.map(|(_, id)| id))
}
