//! `generation_config.json`.

use super::ConfigError;
use super::section::Section;

/// How the release wants answers to be sampled; every field is `None` where the file has no value.
///
/// The official Instruct release has the `talker_*` values alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// Whether the thinker samples; else it is greedy.
    pub do_sample: Option<bool>,
    /// Thinker temperature.
    pub temperature: Option<f64>,
    /// Tokens that the thinker draws from; 0 for all.
    pub top_k: Option<usize>,
    /// Probability that the thinker draws from.
    pub top_p: Option<f64>,
    /// Penalty of tokens that occurred before.
    pub repetition_penalty: Option<f64>,
    /// Longest answer, in tokens.
    pub max_new_tokens: Option<usize>,
    /// Tokens that end an answer.
    pub eos_token_id: Option<Vec<u32>>,
    /// Talker temperature.
    pub talker_temperature: Option<f64>,
    /// Codes that the talker draws from; 0 for all.
    pub talker_top_k: Option<usize>,
    /// Probability that the talker draws from.
    pub talker_top_p: Option<f64>,
    /// Penalty of codes that occurred before.
    pub talker_repetition_penalty: Option<f64>,
    /// Longest speech, in frames.
    pub talker_max_new_tokens: Option<usize>,
}

impl GenerationConfig {
    pub(super) fn read(section: &Section<'_>) -> Result<Self, ConfigError> {
        let temperature =
            |key| section.optional_number(key, "a number of at least 0", |number| number >= 0.0);
        let share = |key| {
            section.optional_number(key, "a number above 0 and up to 1", |number| {
                number > 0.0 && number <= 1.0
            })
        };
        Ok(Self {
            do_sample: section.optional_bool("do_sample")?,
            temperature: temperature("temperature")?,
            top_k: section.optional_count("top_k")?,
            top_p: share("top_p")?,
            repetition_penalty: section.optional_positive("repetition_penalty")?,
            max_new_tokens: section.optional_size("max_new_tokens")?,
            eos_token_id: section.optional_ids("eos_token_id")?,
            talker_temperature: temperature("talker_temperature")?,
            talker_top_k: section.optional_count("talker_top_k")?,
            talker_top_p: share("talker_top_p")?,
            talker_repetition_penalty: section.optional_positive("talker_repetition_penalty")?,
            talker_max_new_tokens: section.optional_size("talker_max_new_tokens")?,
        })
    }
}
