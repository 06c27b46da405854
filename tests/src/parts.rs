//! A model as its parts, for comparisons inside of them.

use std::path::Path;
use std::sync::OnceLock;

use burn::tensor::{DType, Device};
use burn_omni_model::code2wav::Code2Wav;
use burn_omni_model::config::{Config, SpecialIds, TalkerConfig};
use burn_omni_model::layers::Rope;
use burn_omni_model::processor::Processor;
use burn_omni_model::talker::Talker;
use burn_omni_model::thinker::{AudioTower, Thinker, VisionTower};
use burn_omni_quant::checkpoint::{Checkpoint, Component};
use burn_omni_quant::{Embedding, LoadOptions, Warnings, Weights, load};

use crate::route::Route;

/// A checkpoint, whose components are loaded when they are first asked for.
#[derive(Debug)]
pub struct Parts {
    /// The config of the whole model.
    pub config: Config,
    /// Its special tokens.
    pub ids: SpecialIds,
    /// Conversations to prompts.
    pub processor: Processor,
    checkpoint: Checkpoint,
    thinking: OnceLock<Thinking>,
    towers: OnceLock<Towers>,
    talking: OnceLock<Talking>,
    code2wav: OnceLock<Code2Wav>,
}

/// The thinker, with what its layers do not tell.
#[derive(Debug)]
pub struct Thinking {
    /// Prompt to text.
    pub thinker: Thinker,
    /// The way from each layer's input to its routes.
    pub routes: Vec<Route>,
}

/// The encoders of sound and sight.
#[derive(Debug)]
pub struct Towers {
    /// Clips to rows.
    pub audio: AudioTower,
    /// Pictures and films to rows.
    pub vision: VisionTower,
}

/// The talker, with what its layers do not tell.
#[derive(Debug)]
pub struct Talking {
    /// Tokens to codes.
    pub talker: Talker,
    /// The way from each layer's input to its routes.
    pub routes: Vec<Route>,
    /// The rows of first codes.
    pub codec_embedding: Embedding,
    /// Its positions.
    pub rope: Rope,
}

/// The device of the golden tests.
#[must_use]
pub fn device() -> Device {
    Device::flex()
}

impl Parts {
    /// Opens a checkpoint; its weights stay mapped when the folder is removed.
    ///
    /// # Panics
    /// When it is not one of a model that speaks.
    #[must_use]
    pub fn open(dir: &Path) -> Self {
        let checkpoint = Checkpoint::open(dir).expect("the folder is a checkpoint");
        let mut config = Config::from_checkpoint(&checkpoint).expect("its config is whole");
        let processor = Processor::load(&checkpoint, &config.thinker);
        let processor = processor.expect("its side files are whole");
        let ids = config.resolve_ids(|token| processor.tokenizer().token_id(token));
        Self {
            ids: ids.expect("config and tokenizer agree"),
            config,
            processor,
            checkpoint,
            thinking: OnceLock::new(),
            towers: OnceLock::new(),
            talking: OnceLock::new(),
            code2wav: OnceLock::new(),
        }
    }

    /// The talker's config.
    ///
    /// # Panics
    /// When the model has none.
    #[must_use]
    pub fn talker_config(&self) -> &TalkerConfig {
        self.config.talker.as_ref().expect("the model speaks")
    }

    /// The thinker.
    pub fn thinking(&self) -> &Thinking {
        let config = &self.config.thinker;
        let accept = Some(self.talker_config().accept_hidden_layer);
        let text = &config.text_config;
        self.thinking.get_or_init(|| {
            self.component(Component::Thinker, |weights| Thinking {
                thinker: Thinker::load(weights, config, accept),
                routes: weights
                    .at("model")
                    .at("layers")
                    .list(text.num_hidden_layers, |layer| {
                        Route::load(layer, text.attention(), text.moe())
                    }),
            })
        })
    }

    /// The thinker on a device of its own.
    #[must_use]
    pub fn thinker_on(&self, device: &Device) -> Thinker {
        self.component_on(device, Component::Thinker, |weights| {
            Thinker::load(weights, &self.config.thinker, None)
        })
    }

    /// The encoders.
    pub fn towers(&self) -> &Towers {
        let config = &self.config.thinker;
        self.towers.get_or_init(|| {
            self.component(Component::Thinker, |weights| {
                // A component is loaded as a whole.
                let _ = Thinker::load(weights, config, None);
                let (audio, vision) = (weights.at("audio_tower"), weights.at("visual"));
                Towers {
                    audio: AudioTower::load(&audio, &config.audio_config),
                    vision: VisionTower::load(&vision, &config.vision_config),
                }
            })
        })
    }

    /// The talker.
    pub fn talking(&self) -> &Talking {
        let config = self.talker_config();
        let text = &config.text_config;
        let (table, rope) = ([text.vocab_size, text.hidden_size], text.rope);
        self.talking.get_or_init(|| {
            self.component(Component::Talker, |weights| Talking {
                talker: Talker::load(weights, config),
                routes: weights
                    .at("model")
                    .at("layers")
                    .list(text.num_hidden_layers, |layer| {
                        Route::load(layer, text.attention(), text.moe())
                    }),
                codec_embedding: weights.at("model").embedding("codec_embedding", table),
                rope: Rope::new(text.head_dim, rope.rope_theta, rope.mrope_section),
            })
        })
    }

    /// Codes to samples.
    ///
    /// # Panics
    /// When the model has none.
    pub fn code2wav(&self) -> &Code2Wav {
        let config = self.config.code2wav.as_ref().expect("the model speaks");
        self.code2wav.get_or_init(|| {
            self.component(Component::Code2Wav, |weights| {
                Code2Wav::load(weights, config)
            })
        })
    }

    /// Loads a component in f32.
    fn component<T>(&self, component: Component, build: impl Fn(&Weights<'_>) -> T) -> T {
        self.component_on(&device(), component, build)
    }

    fn component_on<T>(
        &self,
        device: &Device,
        component: Component,
        build: impl Fn(&Weights<'_>) -> T,
    ) -> T {
        let tensors = self.checkpoint.component(component);
        let warnings = Warnings::new();
        let options = LoadOptions::new(device, DType::F32, &warnings);
        load(tensors.expect("the model is whole"), options, build)
            .unwrap_or_else(|error| panic!("{error}"))
    }
}
