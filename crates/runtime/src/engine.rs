//! A loaded model.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::{Device, StreamId};
use burn_omni_model::config::Config;
use burn_omni_model::processor::{Message, Processor, Prompt};
use burn_omni_ops::PackedFormat;
use burn_omni_ops::decode::Decoder;
use burn_omni_quant::Warnings;
use burn_omni_quant::formats::AtLoad;

use crate::decoding::Captured;
use crate::kept::Kept;
pub(crate) use crate::loading::Loader;
use crate::loading::Opened;
use crate::pipeline::{Job, Question};
use crate::progress::Progress;
use crate::request::Media;
use crate::speech::SpeechModel;
use crate::stages::{Stages, speaker, voices};
use crate::stream::{Sink, Stopped};
use crate::turns::Turns;
use crate::{Answer, Conversation, Error, Event, MemoryPlan, Overflow, Request, Sampling, Stream};

/// What to load, and where to.
pub struct EngineConfig {
    pub(crate) dir: PathBuf,
    pub(crate) device: Device,
    pub(crate) max_context: Option<usize>,
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
    turns: Arc<Turns>,
}

/// What an answer is made for.
pub(crate) struct Asking<'a> {
    pub(crate) sink: &'a Sink,
    /// When it was asked.
    pub(crate) started: Instant,
    pub(crate) progress: &'a Progress,
}

/// What every request reads.
#[derive(Debug)]
pub(crate) struct Model {
    dir: PathBuf,
    processor: Processor,
    pub(crate) stages: Stages,
    plan: MemoryPlan,
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
        let plan = MemoryPlan::new(
            &opened.checkpoint,
            &opened.config,
            opened.context,
            engine.at_load(),
        );
        let plan = if speech { plan } else { plan.thinker() };
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
            Captured::new(&thinker, opened.context)
        });
        let spoken = speech.as_ref().is_none_or(SpeechModel::is_captured);
        if Decoder::runs_on(&engine.device) && !(captured.is_some() && spoken) {
            (engine.warn)(
                "kernels are launched one by one, which is slow: no captured step for these weights, or no memory",
            );
        }
        let stages = Stages {
            config: opened.config,
            ids: opened.ids,
            captured,
            thinker,
            speech,
            context: opened.context,
            device: engine.device,
            stream,
        };
        Ok(Self {
            turns: Arc::new(Turns::new(stages.is_shared())),
            model: Arc::new(Model {
                dir: opened.checkpoint.dir().to_owned(),
                processor: opened.processor,
                stages,
                plan,
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
            Ok(problems)
        };
        checked().unwrap_or_else(|error| vec![error])
    }

    /// Answers a request on threads of its own: one for text, and two more for speech.
    ///
    /// # Errors
    /// When the request asks for something that this model cannot do; what only its media show comes from the stream.
    pub fn generate(&self, request: Request) -> Result<Stream, Error> {
        self.accepts(&request)?;
        let engine = self.clone();
        let started = Instant::now();
        Ok(Stream::spawn(move |sink| {
            let (question, _) = engine.read(&request)?;
            let asking = Asking {
                sink,
                started,
                progress: &Progress::default(),
            };
            let answer = engine.answer(&request, asking, question, &mut Kept::default())?;
            Ok(sink.send(Event::Done(Box::new(answer)))?)
        }))
    }

    /// A conversation whose turns know of one another.
    #[must_use]
    pub fn conversation(&self) -> Conversation {
        Conversation::new(self.clone())
    }

    /// Checks a request as far as that can be done before its media are read.
    pub(crate) fn accepts(&self, request: &Request) -> Result<(), Error> {
        request.check()?;
        match &request.speech {
            Some(speech) => self.check_voice(speech.voice.as_deref()),
            None => Ok(()),
        }
    }

    /// Reads the media and makes the prompt; gives the messages with their media too.
    pub(crate) fn read(&self, request: &Request) -> Result<(Question, Vec<Message<Media>>), Error> {
        let (prompt, messages) = self.model.read(request)?;
        let question = Question {
            prompt: Arc::new(prompt),
            text: Some(self.model.processor.tokenizer().stream(true)),
        };
        Ok((question, messages))
    }

    /// Answers.
    pub(crate) fn answer(
        &self,
        request: &Request,
        asking: Asking<'_>,
        question: Question,
        kept: &mut Kept,
    ) -> Result<Answer, Stopped> {
        let Asking {
            sink,
            started,
            progress,
        } = asking;
        let job = Job {
            stages: &self.model.stages,
            turns: &self.turns,
            request,
            sink,
            progress,
            started,
        };
        job.run(question, kept)
    }

    /// The text of tokens, as far as its characters are whole.
    pub(crate) fn text(&self, ids: &[u32]) -> String {
        let mut text = self.model.processor.tokenizer().stream(true);
        ids.iter().filter_map(|id| text.push(*id)).collect()
    }

    /// The same engine with turns of its own.
    #[cfg(test)]
    pub(crate) fn with_turns(&self, turns: Turns) -> Self {
        Self {
            model: self.model.clone(),
            turns: Arc::new(turns),
        }
    }

    /// What every request reads.
    pub(crate) fn model(&self) -> &Model {
        &self.model
    }

    /// Whether tokens come from a captured step: see [`burn_omni_ops::decode::Decoder`].
    #[must_use]
    pub fn is_captured(&self) -> bool {
        self.model.stages.captured.is_some()
    }

    /// The model's config.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.model.stages.config
    }

    /// The voices, when the model can speak.
    #[must_use]
    pub fn voices(&self) -> Vec<String> {
        voices(self.config())
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
        self.model.stages.sampling()
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
    /// Reads the media and makes the prompt, of as many messages as there is room for.
    fn read(&self, request: &Request) -> Result<(Prompt, Vec<Message<Media>>), Error> {
        let sound = request.use_audio_in_video;
        let conversation = request.conversation.clone();
        let read = conversation.map_media(|kind, medium| match medium {
            Media::Decoded(medium) => Ok(medium),
            Media::File(path) => self.processor.read(kind, &path, sound),
        });
        let mut conversation = read?;
        let context = self.stages.context;
        let room = match request.on_overflow {
            Overflow::Error => 1,
            Overflow::DropOldest => self.stages.max_tokens(request).min(context / 4).max(1),
        };
        let prompt = loop {
            let prompt = self.processor.prepare(&conversation)?;
            let length = prompt.ids.len();
            if length + room <= context {
                break prompt;
            }
            let drops = request.on_overflow == Overflow::DropOldest;
            if drops && conversation.drop_oldest() {
                continue;
            }
            if length < context {
                break prompt;
            }
            let prompt = length;
            return Err(Error::PromptTooLong { prompt, context });
        };
        let decoded = |_, medium| Ok::<_, Infallible>(Media::Decoded(medium));
        let Ok(conversation) = conversation.map_media(decoded);
        Ok((prompt, conversation.messages))
    }

    /// The codec id of a voice, or of the checkpoint's own choice.
    fn speaker(&self, voice: Option<&str>) -> Result<u32, Error> {
        let id = speaker(&self.dir, &self.stages.config, voice)?;
        match self.stages.speech {
            Some(_) => Ok(id),
            None => Err(Error::CannotSpeak {
                dir: self.dir.clone(),
                missing: "talker loaded",
            }),
        }
    }
}
