//! A loaded model.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{Device, StreamId};
use burn_omni_model::config::{Config, SpecialIds};
use burn_omni_model::processor::Processor;
use burn_omni_model::thinker::Thinker;
use burn_omni_ops::PackedFormat;
use burn_omni_ops::decode::multiplies_bf16;
use burn_omni_quant::Warnings;
use burn_omni_quant::formats::AtLoad;

use crate::decoding::Captured;
pub(crate) use crate::loading::Loader;
use crate::loading::Opened;
use crate::memory::Room;
use crate::pipeline::Job;
use crate::speech::SpeechModel;
use crate::{Error, MemoryPlan, Request, Sampling, Stream};

/// What to load, and where to.
pub struct EngineConfig {
    pub(crate) dir: PathBuf,
    pub(crate) device: Device,
    pub(crate) max_context: Option<usize>,
    memory_limit: Option<u64>,
    pub(crate) speech: bool,
    /// Speech that must be possible: `Some(None)` in the checkpoint's own voice.
    pub(crate) voice: Option<Option<String>>,
    quantize: Option<Quantize>,
    quantize_head: bool,
    pub(crate) w4a4: bool,
    progress: Box<dyn Fn(LoadProgress)>,
    warn: Box<dyn Fn(&str)>,
}

/// A format that plain matrices of the text decoder are brought into when they are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantize {
    /// 4-bit floats in blocks of 16 with E4M3 scales.
    Nvfp4,
    /// 4-bit floats in blocks of 32 with powers of two.
    Mxfp4,
}

impl Quantize {
    /// How values and scales are coded.
    #[must_use]
    pub fn format(self) -> PackedFormat {
        match self {
            Self::Nvfp4 => PackedFormat::NVFP4,
            Self::Mxfp4 => PackedFormat::MXFP4,
        }
    }
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
            memory_limit: None,
            speech: true,
            voice: None,
            quantize: None,
            quantize_head: false,
            w4a4: false,
            progress: Box::new(|_| {}),
            warn: Box::new(|_| {}),
        }
    }

    /// The device that runs the model.
    #[must_use]
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// Longest sequence of prompt and answer in tokens; without it, what the model was made for, and on devices where caches
    /// are made when the model is loaded, 32768 at most.
    #[must_use]
    pub fn max_context(mut self, tokens: usize) -> Self {
        self.max_context = Some(tokens);
        self
    }

    /// Bytes that weights, caches and workspace may take together on the device. Unless a context was asked for, it becomes as
    /// long as fits; what does not fit is refused before a weight is read.
    #[must_use]
    pub fn memory_limit(mut self, bytes: Option<u64>) -> Self {
        self.memory_limit = bytes;
        self
    }

    /// Whether talker and code2wav are loaded, where the checkpoint has them.
    #[must_use]
    pub fn speech(mut self, loaded: bool) -> Self {
        self.speech = loaded;
        self
    }

    /// Demands speech in this voice, or in the checkpoint's own: a checkpoint that cannot do so is refused before a weight
    /// is read.
    #[must_use]
    pub fn voice(mut self, voice: Option<String>) -> Self {
        self.speech = true;
        self.voice = Some(voice);
        self
    }

    /// Called after every tensor that was read.
    #[must_use]
    pub fn progress(mut self, progress: impl Fn(LoadProgress) + 'static) -> Self {
        self.progress = Box::new(progress);
        self
    }

    /// Brings the matrices of the text decoder into this format when they are loaded; those that are quantized already
    /// stay as they are.
    #[must_use]
    pub fn quantize(mut self, format: Option<Quantize>) -> Self {
        self.quantize = format;
        self
    }

    /// Whether the head of the text decoder is brought into that format too.
    #[must_use]
    pub fn quantize_head(mut self, quantized: bool) -> Self {
        self.quantize_head = quantized;
        self
    }

    /// Whether prompts are rounded to 4 bits before 4-bit matrices multiply them, on devices that have such products: faster
    /// there, and less exact. A checkpoint whose text decoder has no such matrix is refused.
    #[must_use]
    pub fn w4a4(mut self, wanted: bool) -> Self {
        self.w4a4 = wanted;
        self
    }

    /// Called with everything that was read although it is not as it should be, one line each.
    #[must_use]
    pub fn warn(mut self, warn: impl Fn(&str) + 'static) -> Self {
        self.warn = Box::new(warn);
        self
    }

    /// What the model will take.
    fn plan(&self, opened: &Opened, speech: bool) -> Result<MemoryPlan, Error> {
        let room = Room {
            context: opened.context,
            captured: multiplies_bf16(&self.device),
            speech,
        };
        let plan = MemoryPlan::new(&opened.checkpoint, &opened.config, room, self.at_load());
        match self.memory_limit {
            Some(limit) => plan.within(limit, self.max_context.is_none()),
            None => Ok(plan),
        }
    }

    fn tell(&self, warnings: &Warnings) {
        warnings.lines().iter().for_each(|line| (self.warn)(line));
    }

    /// What plain matrices become.
    pub(crate) fn at_load(&self) -> Option<AtLoad> {
        self.quantize.map(|format| AtLoad {
            format: format.format(),
            head: self.quantize_head,
        })
    }

    pub(crate) fn report(&self, progress: LoadProgress) {
        (self.progress)(progress);
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
    /// The thinker's step on the device; before the weights, which it works on.
    pub(crate) captured: Option<Captured>,
    pub(crate) thinker: Thinker,
    pub(crate) speech: Option<SpeechModel>,
    /// Longest sequence of prompt and answer.
    pub(crate) context: usize,
    plan: MemoryPlan,
    /// The queue of the device on which the weights were made. Work on another one would wait for events at every launch,
    /// and have memory pools of its own.
    pub(crate) stream: StreamId,
}

impl Engine {
    /// Loads a checkpoint.
    ///
    /// On an NVIDIA GPU steps are captured at the end; a request to another engine on the same GPU may fail meanwhile.
    ///
    /// # Errors
    /// When the checkpoint, its config or its side files cannot be used; nothing was loaded then.
    pub fn load(engine: EngineConfig) -> Result<Self, Error> {
        let opened = Opened::read(&engine)?;
        let speech = engine.speech && opened.config.can_speak();
        let plan = engine.plan(&opened, speech)?;
        if plan.context < opened.context {
            (engine.warn)(&format!(
                "the context is cut to {} tokens, with which the model fits the memory",
                plan.context
            ));
        }
        // All components are checked before any is read, so that the last one's fault costs no waiting.
        let warnings = Warnings::new();
        let dry = Loader::new(&opened.checkpoint, &engine, speech, &warnings).dry();
        opened.components(&dry, speech)?;
        if let Some(problem) = dry.into_problems().into_iter().next() {
            engine.tell(&warnings);
            return Err(problem);
        }
        let loader = Loader::new(&opened.checkpoint, &engine, speech, &warnings);
        let stream = StreamId::allocate();
        let loaded = stream.executes(|| opened.components(&loader, speech));
        drop(loader);
        engine.tell(&warnings);
        let (thinker, speech) = loaded?;
        let mut speech = speech;
        let captured = stream.executes(|| {
            if let Some(speech) = &mut speech {
                speech.capture();
            }
            Captured::new(&thinker, plan.context)
        });
        let spoken = speech.as_ref().is_none_or(SpeechModel::is_captured);
        if multiplies_bf16(&engine.device) && !(captured.is_some() && spoken) {
            (engine.warn)(
                "kernels are launched one by one, which is slow: no captured step for these weights, or no memory",
            );
        }
        let dir = opened.checkpoint.dir().to_owned();
        Ok(Self {
            model: Arc::new(Model {
                dir,
                config: opened.config,
                ids: opened.ids,
                processor: opened.processor,
                captured,
                thinker,
                speech,
                context: plan.context,
                plan,
                stream,
            }),
        })
    }

    /// Everything that would keep a checkpoint from being loaded, in the order in which it would be met: files, config,
    /// then the names, shapes and dtypes of every component's tensors. No weight is read.
    #[must_use]
    pub fn check(engine: EngineConfig) -> Vec<Error> {
        let checked = || -> Result<_, Error> {
            let opened = Opened::read(&engine)?;
            let speech = engine.speech && opened.config.can_speak();
            let warnings = Warnings::new();
            let loader = Loader::new(&opened.checkpoint, &engine, speech, &warnings).dry();
            let built = opened.components(&loader, speech);
            engine.tell(&warnings);
            let mut problems = loader.into_problems();
            problems.extend(built.err());
            problems.extend(engine.plan(&opened, speech).err());
            Ok(problems)
        };
        checked().unwrap_or_else(|error| vec![error])
    }

    /// Answers a request on a thread of its own.
    ///
    /// # Errors
    /// When the request asks for something that this model cannot do; what only its media show comes from the stream.
    pub fn generate(&self, request: Request) -> Result<Stream, Error> {
        request.check()?;
        if let Some(speech) = &request.speech {
            self.check_voice(speech.voice.as_deref())?;
        }
        let model = self.model.clone();
        Ok(Stream::spawn(move |sink| {
            let stream = model.stream;
            stream.executes(|| Job::new(&model, request, sink).run())
        }))
    }

    /// What every request reads.
    pub(crate) fn model(&self) -> &Model {
        &self.model
    }

    /// Whether tokens come from a captured step: see [`burn_omni_ops::decode::Decoder`].
    #[must_use]
    pub fn is_captured(&self) -> bool {
        self.model.captured.is_some()
    }

    /// The model's config.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.model.config
    }

    /// The voices, when the model can speak.
    #[must_use]
    pub fn voices(&self) -> Vec<String> {
        voices(&self.model.config)
    }

    /// Checks that the model can speak in this voice, or in the checkpoint's own.
    ///
    /// # Errors
    /// When it cannot speak, or has no such voice.
    pub fn check_voice(&self, voice: Option<&str>) -> Result<(), Error> {
        self.model.speaker(voice).map(|_| ())
    }

    /// How tokens are chosen when a request does not say it: as the checkpoint says, else greedily.
    #[must_use]
    pub fn sampling(&self) -> Sampling {
        self.model.sampling()
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
}

impl Model {
    /// The checkpoint's sampling, with the reference's values where it has none; greedy unless `do_sample` is set.
    pub(crate) fn sampling(&self) -> Sampling {
        let generation = &self.config.generation;
        let drawn = generation.do_sample == Some(true);
        Sampling {
            temperature: if drawn {
                generation.temperature.unwrap_or(1.0) as f32
            } else {
                0.0
            },
            top_k: generation.top_k.unwrap_or(50),
            top_p: generation.top_p.unwrap_or(1.0) as f32,
            repetition_penalty: generation.repetition_penalty.unwrap_or(1.0) as f32,
        }
    }

    /// The codec id of a voice, or of the checkpoint's own choice.
    pub(crate) fn speaker(&self, voice: Option<&str>) -> Result<u32, Error> {
        let id = speaker(&self.dir, &self.config, voice)?;
        match self.speech {
            Some(_) => Ok(id),
            None => Err(Error::CannotSpeak {
                dir: self.dir.clone(),
                missing: "talker loaded",
            }),
        }
    }
}

/// The names of the voices.
fn voices(config: &Config) -> Vec<String> {
    let talker = config.talker.iter();
    talker
        .flat_map(|talker| talker.speaker_id.keys().cloned())
        .collect()
}

/// The codec id of a voice of a checkpoint, or of its own choice.
pub(crate) fn speaker(dir: &Path, config: &Config, voice: Option<&str>) -> Result<u32, Error> {
    let (Some(talker), Some(_)) = (&config.talker, &config.code2wav) else {
        let missing = match &config.talker {
            None => "talker",
            Some(_) => "code2wav",
        };
        return Err(Error::CannotSpeak {
            dir: dir.into(),
            missing,
        });
    };
    let found = match voice {
        Some(voice) => talker.speaker(voice),
        None => talker.default_speaker().map(|(_, id)| id),
    };
    found.ok_or_else(|| Error::UnknownVoice {
        voice: voice.unwrap_or_default().to_owned(),
        voices: voices(config),
    })
}
