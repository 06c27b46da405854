//! The config door: `config.json` as typed structs, checked in full before any weight is loaded.
//!
//! Field names are those of `config.json`. A value that changes the arithmetic must be in the file:
//! the class defaults of the reference implementation describe other models and never stand in for
//! one. A switch for which only one value is supported (`attention_bias`, `sliding_window` of the
//! decoders, `mlp_only_layers`, …) may be absent, has no field here, and is refused when it is
//! set to anything else.
//!
//! Both spellings of a value are read, of the release and of files saved again by later tools:
//! `rope_theta` with `rope_scaling` or `rope_parameters`; `num_experts` or `num_local_experts`.

mod audio;
mod check;
mod code2wav;
mod error;
mod generation;
mod ids;
mod preset;
mod rope;
mod section;
mod talker;
#[cfg(test)]
mod tests;
mod text;
mod thinker;
mod vision;

use std::path::Path;

use burn_omni_quant::checkpoint::{Checkpoint, Component, ComponentConfig};
use serde::Serialize;
use serde_json::Value;

pub use audio::AudioEncoderConfig;
pub use code2wav::{Code2WavConfig, SAMPLE_RATE};
pub use error::ConfigError;
pub use generation::GenerationConfig;
pub use ids::{SpecialIds, SpeechIds};
pub use rope::RopeConfig;
use section::Section;
pub use talker::{CodePredictorConfig, TalkerConfig, TalkerTextConfig};
pub use text::{Activation, AttentionConfig, MoeConfig, TextConfig};
pub use thinker::ThinkerConfig;
pub use vision::VisionEncoderConfig;

/// `model_type` of a root `config.json`.
const MODEL_TYPE: &str = "qwen3_omni_moe";
/// `model_type` of a thinker on its own.
const THINKER_TYPE: &str = "qwen3_omni_moe_thinker";

/// Everything that the checkpoint says about the model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// Text decoder with its audio and vision towers.
    #[serde(rename = "thinker_config")]
    pub thinker: ThinkerConfig,
    /// Speech decoder; `None` when the checkpoint has none or `enable_audio_output` is false.
    #[serde(rename = "talker_config", skip_serializing_if = "Option::is_none")]
    pub talker: Option<TalkerConfig>,
    /// Codes to samples; `None` when the checkpoint has none or `enable_audio_output` is false.
    #[serde(rename = "code2wav_config", skip_serializing_if = "Option::is_none")]
    pub code2wav: Option<Code2WavConfig>,
    /// Thinker token `<|im_start|>`; `None` in split layouts until [`Config::resolve_ids`].
    pub im_start_token_id: Option<u32>,
    /// Thinker token `<|im_end|>`, the end of an answer.
    pub im_end_token_id: Option<u32>,
    /// Thinker token `<tts_pad>`.
    pub tts_pad_token_id: Option<u32>,
    /// Thinker token `<tts_text_bos>`.
    pub tts_bos_token_id: Option<u32>,
    /// Thinker token `<tts_text_eod>`.
    pub tts_eos_token_id: Option<u32>,
    /// Thinker token of the role word `system`.
    pub system_token_id: Option<u32>,
    /// Thinker token of the role word `user`.
    pub user_token_id: Option<u32>,
    /// Thinker token of the role word `assistant`.
    pub assistant_token_id: Option<u32>,
    /// `generation_config.json`; every field `None` when there is no such file.
    #[serde(skip)]
    pub generation: GenerationConfig,
}

/// The documents of one config, before they are typed.
struct Sources<'a> {
    root: Option<Section<'a>>,
    thinker: Section<'a>,
    talker: Option<Section<'a>>,
    code2wav: Option<Section<'a>>,
}

impl Config {
    /// Reads and checks the config of an open checkpoint.
    ///
    /// # Errors
    /// When a value is missing, contradicts another, or asks for something that this engine cannot
    /// do.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self, ConfigError> {
        let configs = checkpoint.configs();
        let root = configs.root().map(section).transpose()?;
        // First of all, so that another model is called by its name and not by the first field that
        // it lacks.
        if let Some(root) = &root {
            root.model_type(MODEL_TYPE)?;
        }
        let find = |component: Component| -> Result<Section<'_>, ConfigError> {
            if let Some(found) = configs.component(component) {
                return section(found);
            }
            let release = checkpoint.component(component).and_then(preset::of_tensors);
            release.unwrap_or_else(|| {
                Err(ConfigError::NoConfig {
                    dir: checkpoint.dir().into(),
                    component,
                })
            })
        };
        if checkpoint.component(Component::Thinker).is_none() {
            return Err(ConfigError::NoThinker {
                dir: checkpoint.dir().into(),
            });
        }
        let optional = |component: Component| {
            checkpoint
                .component(component)
                .map(|_| find(component))
                .transpose()
        };
        let speech = speech_enabled(root.as_ref())?;
        let mut config = Self::read(&Sources {
            thinker: find(Component::Thinker)?,
            talker: if speech {
                optional(Component::Talker)?
            } else {
                None
            },
            code2wav: if speech {
                optional(Component::Code2Wav)?
            } else {
                None
            },
            root,
        })?;
        if let Some((file, json)) = checkpoint.json("generation_config.json")? {
            config.generation = GenerationConfig::read(&Section::new(&file, "", &json)?)?;
        }
        Ok(config)
    }

    /// Reads and checks a whole root `config.json`; `file` is its name in messages.
    ///
    /// # Errors
    /// As [`Config::from_checkpoint`].
    pub fn from_json(file: &Path, json: &Value) -> Result<Self, ConfigError> {
        let root = Section::new(file, "", json)?;
        root.model_type(MODEL_TYPE)?;
        let speech = speech_enabled(Some(&root))?;
        let optional = |component: Component| root.optional_section(component.config_key());
        Self::read(&Sources {
            thinker: root.section(Component::Thinker.config_key())?,
            talker: if speech {
                optional(Component::Talker)?
            } else {
                None
            },
            code2wav: if speech {
                optional(Component::Code2Wav)?
            } else {
                None
            },
            root: Some(root),
        })
    }

    /// The config as a root `config.json`, from which [`Config::from_json`] reads the same config.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut json = serde_json::to_value(self).expect("a config has text keys and numbers only");
        json["model_type"] = MODEL_TYPE.into();
        json["architectures"] = serde_json::json!(["Qwen3OmniMoeForConditionalGeneration"]);
        json["enable_audio_output"] = (self.talker.is_some() || self.code2wav.is_some()).into();
        json
    }

    /// Whether the checkpoint can answer in speech.
    #[must_use]
    pub fn can_speak(&self) -> bool {
        self.talker.is_some() && self.code2wav.is_some()
    }

    fn read(sources: &Sources<'_>) -> Result<Self, ConfigError> {
        let Sources {
            thinker,
            talker,
            code2wav,
            ..
        } = sources;
        thinker.optional_model_type(THINKER_TYPE)?;
        let thinker = ThinkerConfig::read(thinker)?;
        let vocab_size = thinker.text_config.vocab_size;
        let id = |key: &str| ids::find(sources, key, vocab_size);
        let config = Self {
            thinker,
            talker: talker.as_ref().map(TalkerConfig::read).transpose()?,
            code2wav: code2wav.as_ref().map(Code2WavConfig::read).transpose()?,
            im_start_token_id: id("im_start_token_id")?,
            im_end_token_id: id("im_end_token_id")?,
            tts_pad_token_id: id("tts_pad_token_id")?,
            tts_bos_token_id: id("tts_bos_token_id")?,
            tts_eos_token_id: id("tts_eos_token_id")?,
            system_token_id: id("system_token_id")?,
            user_token_id: id("user_token_id")?,
            assistant_token_id: id("assistant_token_id")?,
            generation: GenerationConfig::default(),
        };
        check::across(&config, sources)?;
        Ok(config)
    }
}

fn section(config: ComponentConfig<'_>) -> Result<Section<'_>, ConfigError> {
    Section::new(config.file, config.path, config.json)
}

/// `enable_audio_output`; a root without the key is one with speech, as in the reference.
fn speech_enabled(root: Option<&Section<'_>>) -> Result<bool, ConfigError> {
    let Some(root) = root else { return Ok(true) };
    Ok(root.optional_bool("enable_audio_output")?.unwrap_or(true))
}
