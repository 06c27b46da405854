//! A loaded model.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{DType, Device};
use burn_omni_model::config::{Config, SpecialIds};
use burn_omni_model::processor::Processor;
use burn_omni_model::thinker::Thinker;
use burn_omni_quant::checkpoint::{Checkpoint, Component, TensorSet};
use burn_omni_quant::{LoadOptions, Weights, load};

use crate::pipeline::Job;
use crate::speech::SpeechModel;
use crate::{Error, MemoryPlan, Request, Stream};

/// What to load, and where to.
pub struct EngineConfig {
    dir: PathBuf,
    device: Device,
    max_context: Option<usize>,
    speech: bool,
    progress: Box<dyn Fn(LoadProgress)>,
}

/// How far a load has come.
#[derive(Clone, Copy, Debug)]
pub struct LoadProgress {
    /// Bytes read.
    pub loaded: u64,
    /// Bytes to read.
    pub total: u64,
}

impl EngineConfig {
    /// A checkpoint folder, loaded whole to the default device.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            device: Device::default(),
            max_context: None,
            speech: true,
            progress: Box::new(|_| {}),
        }
    }

    /// The device that runs the model.
    #[must_use]
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// Longest sequence of prompt and answer in tokens; without it, what the model was made for.
    #[must_use]
    pub fn max_context(mut self, tokens: usize) -> Self {
        self.max_context = Some(tokens);
        self
    }

    /// Whether talker and code2wav are loaded, where the checkpoint has them.
    #[must_use]
    pub fn speech(mut self, loaded: bool) -> Self {
        self.speech = loaded;
        self
    }

    /// Called after every tensor that was read.
    #[must_use]
    pub fn progress(mut self, progress: impl Fn(LoadProgress) + 'static) -> Self {
        self.progress = Box::new(progress);
        self
    }
}

/// A loaded model, shared by all its requests.
#[derive(Clone, Debug)]
pub struct Engine {
    model: Arc<Model>,
}

/// What every request reads.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) dir: PathBuf,
    pub(crate) config: Config,
    pub(crate) ids: SpecialIds,
    pub(crate) processor: Processor,
    pub(crate) thinker: Thinker,
    pub(crate) speech: Option<SpeechModel>,
    /// Longest sequence of prompt and answer.
    pub(crate) context: usize,
    plan: MemoryPlan,
}

impl Engine {
    /// Loads a checkpoint.
    ///
    /// # Errors
    /// When the checkpoint, its config or its side files cannot be used; nothing was loaded then.
    pub fn load(engine: EngineConfig) -> Result<Self, Error> {
        let checkpoint = Checkpoint::open(&engine.dir)?;
        let mut config = Config::from_checkpoint(&checkpoint)?;
        let processor = Processor::load(&checkpoint, &config.thinker)?;
        let ids = config.resolve_ids(|token| processor.tokenizer().token_id(token))?;
        let longest = config.thinker.text_config.max_position_embeddings;
        let context = engine.max_context.unwrap_or(longest);
        if context == 0 || context > longest {
            let found = context.to_string();
            return Err(Error::BadSetting {
                field: "max_context",
                expected: "1 up to max_position_embeddings of the model",
                found,
            });
        }
        let speech = engine.speech && config.can_speak();
        let plan = MemoryPlan::new(&checkpoint, &config, context);
        let loader = Loader::new(&checkpoint, &engine, speech);
        let accept = config
            .talker
            .as_ref()
            .filter(|_| speech)
            .map(|talker| talker.accept_hidden_layer);
        let thinker = loader.component(Component::Thinker, |weights| {
            Thinker::load(weights, &config.thinker, accept)
        })?;
        let speech = if speech {
            Some(SpeechModel::load(&loader, &config, &thinker, &ids)?)
        } else {
            None
        };
        let dir = checkpoint.dir().to_owned();
        Ok(Self {
            model: Arc::new(Model {
                dir,
                config,
                ids,
                processor,
                thinker,
                speech,
                context,
                plan,
            }),
        })
    }

    /// Answers a request on a thread of its own.
    ///
    /// # Errors
    /// When the request asks for something that this model cannot do; what only its media show comes from the stream.
    pub fn generate(&self, request: Request) -> Result<Stream, Error> {
        request.check()?;
        if let Some(speech) = &request.speech {
            self.speaker(speech.voice.as_deref())?;
        }
        let model = self.model.clone();
        Ok(Stream::spawn(move |sink| {
            Job::new(&model, request, sink).run()
        }))
    }

    /// The model's config.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.model.config
    }

    /// The voices, when the model can speak.
    #[must_use]
    pub fn voices(&self) -> Vec<String> {
        self.model.voices()
    }

    /// The memory that the model takes.
    #[must_use]
    pub fn memory(&self) -> &MemoryPlan {
        &self.model.plan
    }

    /// Whether the checkpoint has no chat template, so that the usual one stands in.
    #[must_use]
    pub fn template_is_fallback(&self) -> bool {
        self.model.processor.template_is_fallback()
    }

    /// The codec id of a voice.
    fn speaker(&self, voice: Option<&str>) -> Result<u32, Error> {
        self.model.speaker(voice)
    }
}

impl Model {
    fn voices(&self) -> Vec<String> {
        self.config
            .talker
            .iter()
            .flat_map(|talker| talker.speaker_id.keys().cloned())
            .collect()
    }

    /// The codec id of a voice, or of the checkpoint's own choice.
    pub(crate) fn speaker(&self, voice: Option<&str>) -> Result<u32, Error> {
        let (Some(talker), Some(_)) = (&self.config.talker, &self.speech) else {
            let missing = match &self.config.talker {
                None => "talker",
                Some(_) if self.config.code2wav.is_none() => "code2wav",
                Some(_) => "talker loaded",
            };
            return Err(Error::CannotSpeak {
                dir: self.dir.clone(),
                missing,
            });
        };
        let found = match voice {
            Some(voice) => talker.speaker(voice),
            None => talker.default_speaker().map(|(_, id)| id),
        };
        let voice = voice.unwrap_or_default().to_owned();
        found.ok_or_else(|| Error::UnknownVoice {
            voice,
            voices: self.voices(),
        })
    }
}

/// Loads components and counts their bytes.
pub(crate) struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    device: &'a Device,
    report: Box<dyn Fn(u64) + 'a>,
}

impl<'a> Loader<'a> {
    fn new(checkpoint: &'a Checkpoint, engine: &'a EngineConfig, speech: bool) -> Self {
        let wanted = |set: &&TensorSet| speech || set.component() == Component::Thinker;
        let total = checkpoint
            .components()
            .filter(wanted)
            .map(TensorSet::bytes)
            .sum();
        let loaded = std::cell::Cell::new(0);
        let report = Box::new(move |bytes| {
            loaded.set(loaded.get() + bytes);
            (engine.progress)(LoadProgress {
                loaded: loaded.get(),
                total,
            });
        });
        Self {
            checkpoint,
            device: &engine.device,
            report,
        }
    }

    /// Loads one component.
    pub(crate) fn component<T>(
        &self,
        component: Component,
        build: impl Fn(&Weights<'_>) -> T,
    ) -> Result<T, Error> {
        let tensors = self
            .checkpoint
            .component(component)
            .expect("the config was read from this component");
        let options = LoadOptions {
            device: self.device,
            dtype: DType::F32,
            progress: &*self.report,
        };
        Ok(load(tensors, options, build)?)
    }
}

/// Opens a checkpoint and its config, without loading it.
///
/// # Errors
/// When either cannot be used.
pub(crate) fn open(dir: &Path) -> Result<(Checkpoint, Config), Error> {
    let checkpoint = Checkpoint::open(dir)?;
    let config = Config::from_checkpoint(&checkpoint)?;
    Ok((checkpoint, config))
}
