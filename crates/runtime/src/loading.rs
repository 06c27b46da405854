//! From a folder to components.

use std::cell::{Cell, RefCell};
use std::path::Path;

use burn::tensor::{DType, Device};
use burn_omni_model::config::{Config, SpecialIds};
use burn_omni_model::processor::Processor;
use burn_omni_model::thinker::Thinker;
use burn_omni_ops::decode::multiplies_bf16;
use burn_omni_ops::for_good;
use burn_omni_quant::checkpoint::{Checkpoint, Component, TensorSet};
use burn_omni_quant::formats::{self, AtLoad, QuantConfig};
use burn_omni_quant::{LoadOptions, Warnings, Weights, check, read};

use crate::speech::SpeechModel;
use crate::stages::speaker;
use crate::{EngineConfig, Error, LoadProgress, threads};

/// A checkpoint that was opened and whose side files were read.
pub(crate) struct Opened {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) config: Config,
    pub(crate) processor: Processor,
    pub(crate) ids: SpecialIds,
    pub(crate) context: usize,
}

impl Opened {
    pub(crate) fn read(engine: &EngineConfig) -> Result<Self, Error> {
        let (checkpoint, mut config) = open(&engine.dir)?;
        if let Some(voice) = &engine.voice {
            speaker(&engine.dir, &config, voice.as_deref())?;
        }
        let processor = Processor::load(&checkpoint, &config.thinker)?;
        let ids = config.resolve_ids(|token| processor.tokenizer().token_id(token))?;
        let context = context(&config, engine.max_context, &engine.device)?;
        engine.kv_dtype.check(&config, &engine.device)?;
        Ok(Self {
            checkpoint,
            config,
            processor,
            ids,
            context,
        })
    }

    /// Loads the thinker, and with `speech` what speaks.
    pub(crate) fn components(
        &self,
        loader: &Loader<'_>,
        speech: bool,
    ) -> Result<(Thinker, Option<SpeechModel>), Error> {
        let config = &self.config;
        let talker = config.talker.as_ref().filter(|_| speech);
        let accept = talker.map(|talker| talker.accept_hidden_layer);
        let thinker = loader.component(Component::Thinker, |weights| {
            Thinker::load(weights, &config.thinker, accept)
        })?;
        let speech = speech
            .then(|| SpeechModel::load(loader, config, &self.ids))
            .transpose()?;
        Ok((thinker, speech))
    }
}

/// Loads components and counts their bytes.
pub(crate) struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    device: &'a Device,
    report: Box<dyn Fn(u64) + 'a>,
    quantize: Option<AtLoad>,
    w4a4: bool,
    warnings: &'a Warnings,
    /// Whether names and shapes are checked and nothing is read.
    dry: bool,
    /// What a dry run found.
    problems: RefCell<Vec<Error>>,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(
        checkpoint: &'a Checkpoint,
        engine: &'a EngineConfig,
        speech: bool,
        warnings: &'a Warnings,
    ) -> Self {
        formats::notice_pickles(checkpoint.dir(), warnings);
        let wanted = |set: &&TensorSet| speech || set.component() == Component::Thinker;
        let total = checkpoint
            .components()
            .filter(wanted)
            .map(TensorSet::bytes)
            .sum();
        let loaded = Cell::new(0_u64);
        let report = Box::new(move |bytes| {
            loaded.set(loaded.get() + bytes);
            engine.report(LoadProgress {
                loaded: loaded.get(),
                total,
            });
        });
        Self {
            checkpoint,
            device: &engine.device,
            report,
            quantize: engine.at_load(),
            w4a4: engine.w4a4,
            warnings,
            dry: false,
            problems: RefCell::default(),
        }
    }

    /// A loader that checks names and shapes and reads nothing.
    pub(crate) fn dry(self) -> Self {
        Self { dry: true, ..self }
    }

    /// What a dry run found.
    pub(crate) fn into_problems(self) -> Vec<Error> {
        self.problems.into_inner()
    }

    /// Loads one component that a dry run found nothing wrong with; in a dry run its tensors have no content.
    pub(crate) fn component<T>(
        &self,
        component: Component,
        build: impl Fn(&Weights<'_>) -> T,
    ) -> Result<T, Error> {
        let tensors = self
            .checkpoint
            .component(component)
            .expect("the config was read from this component");
        let config = QuantConfig::of(self.checkpoint, component, self.warnings);
        let options = LoadOptions {
            progress: &*self.report,
            config: config.as_ref(),
            quantize: self.quantize,
            w4a4: self.w4a4,
            ..LoadOptions::new(self.device, DType::F32, self.warnings)
        };
        if !self.dry {
            return Ok(for_good(self.device, || read(tensors, options, build))?);
        }
        let (built, verdict) = check(tensors, options, build);
        self.problems
            .borrow_mut()
            .extend(verdict.err().map(Error::from));
        Ok(built)
    }
}

/// Longest sequence where caches are made when the model is loaded, unless a longer one is asked for.
const USUAL_CONTEXT: usize = 32_768;

/// The longest sequence where none is asked for.
#[must_use]
pub fn usual_context(config: &Config, device: &Device) -> usize {
    let longest = config.thinker.text_config.max_position_embeddings;
    if multiplies_bf16(device) {
        longest.min(USUAL_CONTEXT)
    } else {
        longest
    }
}

/// The longest sequence: the one that is wanted, else what the model was made for.
pub(crate) fn context(
    config: &Config,
    wanted: Option<usize>,
    device: &Device,
) -> Result<usize, Error> {
    let longest = config.thinker.text_config.max_position_embeddings;
    let context = wanted.unwrap_or_else(|| usual_context(config, device));
    if context == 0 || context > longest {
        return Err(Error::BadSetting {
            field: "max_context",
            expected: format!("1 up to the model's max_position_embeddings, {longest}"),
            found: context.to_string(),
        });
    }
    Ok(context)
}

/// Closes a checkpoint on a thread of its own: the system takes half a second to unmap tens of gigabytes.
pub(crate) fn close(checkpoint: Checkpoint) {
    // Where there is no thread, it is closed here.
    let _ = threads::named("close").spawn(move || drop(checkpoint));
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
