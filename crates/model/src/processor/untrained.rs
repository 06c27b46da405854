//! The files beside the weights of a model that nobody trained.
//!
//! Its tokenizer reads a text byte by byte, but for the role words, and every id of its vocabulary has a text, so that an
//! answer can be seen.

use std::collections::BTreeMap;

use burn_omni_quant::write::SideFile;
use serde_json::{Map, Value, json};

use super::template::FALLBACK;
use super::vocabulary::byte_char;
use crate::config::Config;

/// Tokenizer, chat template and settings in the layout of the release; `None` when the vocabulary has no room for all bytes,
/// the special tokens and the role words.
#[must_use]
pub fn side_files(config: &Config) -> Option<Vec<SideFile>> {
    let tokens = Tokens::new(config)?;
    let template = json!({ "chat_template": FALLBACK });
    let files = [
        ("vocab.json", json(&tokens.vocab())),
        ("merges.txt", tokens.merges.into_bytes()),
        (
            "tokenizer_config.json",
            json(&tokenizer_config(&tokens.special)),
        ),
        ("chat_template.json", json(&template)),
        (
            "preprocessor_config.json",
            json(&preprocessor_config(config)),
        ),
        ("generation_config.json", json(&generation_config())),
    ];
    let file = |(name, bytes): (&str, _)| SideFile {
        name: name.into(),
        bytes,
    };
    Some(files.map(file).into())
}

fn json(value: &Value) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("a JSON value can be written");
    text.push(b'\n');
    text
}

/// The tokens of a vocabulary.
struct Tokens {
    /// Those that are matched in the text itself.
    special: BTreeMap<u32, &'static str>,
    /// All others, spelt in the byte alphabet.
    plain: BTreeMap<u32, String>,
    /// `merges.txt`.
    merges: String,
}

impl Tokens {
    fn new(config: &Config) -> Option<Self> {
        let special = special_tokens(config);
        let mut plain = BTreeMap::new();
        let roles = [
            ("system", config.system_token_id),
            ("user", config.user_token_id),
            ("assistant", config.assistant_token_id),
        ];
        for (word, id) in roles {
            plain.extend(id.map(|id| (id, word.to_owned())));
        }
        let size = u32::try_from(config.thinker.text_config.vocab_size).ok()?;
        let taken = |id: &u32| special.contains_key(id) || plain.contains_key(id);
        let free: Vec<u32> = (0..size).filter(|id| !taken(id)).collect();
        let mut free = free.into_iter();
        for byte in 0..=u8::MAX {
            plain.insert(free.next()?, byte_char(byte).into());
        }
        let mut merges = String::from("#version: 0.2\n");
        for (word, id) in roles {
            for end in 2..=word.len() {
                if end < word.len() || id.is_none() {
                    plain.insert(free.next()?, word[..end].into());
                }
                merges += &format!("{} {}\n", &word[..end - 1], &word[end - 1..end]);
            }
        }
        plain.extend(free.map(|id| (id, made_up(id))));
        Some(Self {
            special,
            plain,
            merges,
        })
    }

    /// `vocab.json`.
    fn vocab(&self) -> Value {
        let tokens = self.plain.iter();
        tokens
            .map(|(id, token)| (token.clone(), Value::from(*id)))
            .collect::<Map<_, _>>()
            .into()
    }
}

/// A word of three syllables behind a space, another for every id.
fn made_up(id: u32) -> String {
    const ONSETS: [&str; 16] = [
        "b", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z",
    ];
    const VOWELS: [&str; 5] = ["a", "e", "i", "o", "u"];
    let mut word = String::from(byte_char(b' '));
    let mut rest = id as usize;
    while rest > 0 || word.chars().count() < 7 {
        word += ONSETS[rest % ONSETS.len()];
        rest /= ONSETS.len();
        word += VOWELS[rest % VOWELS.len()];
        rest /= VOWELS.len();
    }
    word
}

fn special_tokens(config: &Config) -> BTreeMap<u32, &'static str> {
    let thinker = &config.thinker;
    let known = [
        (thinker.audio_token_id, "<|audio_pad|>"),
        (thinker.image_token_id, "<|image_pad|>"),
        (thinker.video_token_id, "<|video_pad|>"),
        (thinker.audio_start_token_id, "<|audio_start|>"),
        (thinker.audio_end_token_id, "<|audio_end|>"),
        (thinker.vision_start_token_id, "<|vision_start|>"),
        (thinker.vision_end_token_id, "<|vision_end|>"),
    ];
    let whole = [
        (config.im_start_token_id, "<|im_start|>"),
        (config.im_end_token_id, "<|im_end|>"),
        (config.tts_pad_token_id, "<tts_pad>"),
        (config.tts_bos_token_id, "<tts_text_bos>"),
        (config.tts_eos_token_id, "<tts_text_eod>"),
    ];
    let whole = whole
        .into_iter()
        .filter_map(|(id, token)| Some((id?, token)));
    known.into_iter().chain(whole).collect()
}

fn tokenizer_config(special: &BTreeMap<u32, &'static str>) -> Value {
    let added = special.iter().map(|(id, token)| {
        let token = json!({
            "content": token,
            "lstrip": false,
            "normalized": false,
            "rstrip": false,
            "single_word": false,
            "special": true,
        });
        (id.to_string(), token)
    });
    json!({
        "add_bos_token": false,
        "add_prefix_space": false,
        "added_tokens_decoder": added.collect::<Map<_, _>>(),
        "bos_token": null,
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "errors": "replace",
        "extra_special_tokens": {
            "audio_bos_token": "<|audio_start|>",
            "audio_eos_token": "<|audio_end|>",
            "audio_token": "<|audio_pad|>",
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "vision_bos_token": "<|vision_start|>",
            "vision_eos_token": "<|vision_end|>",
        },
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": null,
    })
}

/// The release's, with the sizes of this model.
fn preprocessor_config(config: &Config) -> Value {
    let (audio, vision) = (&config.thinker.audio_config, &config.thinker.vision_config);
    json!({
        "dither": 0.0,
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": audio.num_mel_bins,
        "hop_length": 160,
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "Qwen2VLImageProcessor",
        "image_std": [0.5, 0.5, 0.5],
        "max_pixels": 12_845_056,
        "merge_size": vision.spatial_merge_size,
        "min_pixels": 3136,
        "n_fft": 400,
        "n_samples": 4_800_000,
        "nb_max_frames": 30_000,
        "padding_side": "right",
        "padding_value": 0.0,
        "patch_size": vision.patch_size,
        "processor_class": "Qwen3OmniMoeProcessor",
        "return_attention_mask": true,
        "sampling_rate": 16_000,
        "temporal_patch_size": vision.temporal_patch_size,
    })
}

/// The release's.
fn generation_config() -> Value {
    json!({
        "talker_max_new_tokens": 4096,
        "talker_repetition_penalty": 1.05,
        "talker_temperature": 0.9,
        "talker_top_k": 50,
        "talker_top_p": 1.0,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::processor::{ChatTemplate, Tokenizer};

    fn written(config: &Config) -> TempDir {
        let folder = TempDir::new().unwrap();
        for file in side_files(config).unwrap() {
            fs::write(folder.path().join(file.name), file.bytes).unwrap();
        }
        folder
    }

    #[test]
    fn the_tokenizer_of_every_preset_knows_its_special_tokens() {
        for name in Config::presets() {
            let mut config = Config::preset(name).unwrap();
            let folder = written(&config);
            let tokenizer = Tokenizer::load(folder.path()).unwrap();
            let ids = config
                .resolve_ids(|token| tokenizer.token_id(token))
                .unwrap();
            let speech = ids.speech.unwrap();
            let text = "<|im_start|>system\nusers<|im_end|><|im_start|>assistant";
            let byte = |text: &str| tokenizer.encode(text).unwrap()[0];
            let expected = [
                ids.im_start,
                speech.system,
                byte("\n"),
                speech.user,
                byte("s"),
                ids.im_end,
                ids.im_start,
                speech.assistant,
            ];
            assert_eq!(tokenizer.encode(text).unwrap(), expected, "{name}");
            let text = "Ünïcode 12 is\tread as bytes\r\n";
            let ids = tokenizer.encode(text).unwrap();
            assert_eq!(tokenizer.decode(&ids, true), text, "{name}");
            assert!(!ChatTemplate::load(folder.path()).unwrap().is_fallback());
        }
    }

    #[test]
    fn every_id_has_a_text_of_its_own() {
        let config = Config::preset("qwen3-omni-30b-a3b").unwrap();
        let tokens = Tokens::new(&config).unwrap();
        let size = config.thinker.text_config.vocab_size;
        assert_eq!(tokens.plain.len() + tokens.special.len(), size);
        assert_eq!(
            tokens.plain.values().collect::<BTreeSet<_>>().len(),
            tokens.plain.len()
        );
    }

    #[test]
    fn a_vocabulary_without_room_is_seen() {
        let mut config = Config::preset("omni-demo").unwrap();
        config.thinker.text_config.vocab_size = 260;
        assert!(side_files(&config).is_none());
    }
}
