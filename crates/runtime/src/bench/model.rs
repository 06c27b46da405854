//! What is measured: a loaded model, or one of random weights.

use std::cell::Cell;
use std::time::{Duration, Instant};

use burn::tensor::{DType, Device, StreamId};
use burn_omni_model::code2wav::Code2Wav;
use burn_omni_model::config::{Code2WavConfig, Config, TalkerConfig};
use burn_omni_model::talker::Talker;
use burn_omni_model::thinker::Thinker;
use burn_omni_ops::for_good;
use burn_omni_quant::checkpoint::Component;
use burn_omni_quant::formats::AtLoad;
use burn_omni_quant::{LoadOptions, Warnings, draw};

use super::Sizes;
use super::figure::{Figure, wait};
use crate::decoding::Captured;
use crate::frames::Codes;
use crate::loading::context;
use crate::speech::SpeechModel;
use crate::stages::Stages;
use crate::{Engine, EngineConfig, Error, KvDtype, Quantize};

/// A model whose stages can be measured.
#[derive(Debug)]
pub struct Bench {
    parts: Parts,
    load: Duration,
}

/// Where the weights come from.
#[derive(Debug)]
enum Parts {
    Loaded(Engine),
    Drawn(Box<Drawn>),
}

/// A model of random weights.
#[derive(Debug)]
struct Drawn {
    stages: Stages,
    bytes: u64,
}

/// A geometry, and how its weights are stored.
#[derive(Clone, Debug)]
pub struct Synthetic {
    /// The geometry, for example a [`Config::preset`].
    pub config: Config,
    /// The device that runs the model.
    pub device: Device,
    /// Format of the matrices of the text decoder, all others being bf16; without it those are too.
    pub quantize: Option<Quantize>,
    /// Whether the head of the text decoder has that format.
    pub quantize_head: bool,
    /// Whether prompts are rounded to 4 bits where 4-bit matrices multiply them.
    pub w4a4: bool,
    /// Longest sequence; without it, what the model was made for.
    pub max_context: Option<usize>,
    /// How keys and values of the thinker are stored.
    pub kv_dtype: KvDtype,
    /// Whether there are talker and code2wav.
    pub speech: bool,
}

impl Bench {
    /// Loads a checkpoint.
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub fn load(config: EngineConfig) -> Result<Self, Error> {
        let device = config.device.clone();
        let start = Instant::now();
        let engine = Engine::load(config)?;
        engine.model().stages.on_queue(|| wait(&device))?;
        Ok(Self {
            parts: Parts::Loaded(engine),
            load: start.elapsed(),
        })
    }

    /// Makes a model of random weights on the device; no file is read.
    ///
    /// # Errors
    /// When the context is longer than the model's, or the device fails.
    pub fn synthetic(synthetic: Synthetic) -> Result<Self, Error> {
        let device = synthetic.device.clone();
        let stream = StreamId::allocate();
        let start = Instant::now();
        let drawn = stream.executes(|| {
            let drawn = Drawn::new(synthetic, stream)?;
            wait(&device)?;
            Ok::<_, Error>(drawn)
        })?;
        Ok(Self {
            parts: Parts::Drawn(Box::new(drawn)),
            load: start.elapsed(),
        })
    }

    /// The components.
    pub(super) fn stages(&self) -> &Stages {
        match &self.parts {
            Parts::Loaded(engine) => &engine.model().stages,
            Parts::Drawn(drawn) => &drawn.stages,
        }
    }

    /// Checks that prompt and answer fit in the context.
    pub(super) fn fits(&self, sizes: &Sizes) -> Result<(), Error> {
        let context = self.stages().context;
        let rows = sizes.prompt_tokens + sizes.decode_tokens;
        if rows <= context {
            return Ok(());
        }
        Err(Error::BenchTooLong { rows, context })
    }

    /// Codes that the talker may choose; it has no end.
    ///
    /// # Panics
    /// When the model cannot speak.
    pub(super) fn codes(&self) -> Codes {
        let talker = self.stages().config.talker.as_ref();
        Codes::of(talker.expect("a model that speaks has a talker"), true)
    }

    /// Some tokens of text.
    pub(super) fn text_ids(&self, count: usize) -> Vec<u32> {
        let vocabulary = self.stages().config.thinker.text_config.vocab_size;
        numbers(vocabulary).take(count).collect()
    }

    /// Some tokens that are words: those that lay a prompt out are none.
    pub(super) fn words(&self) -> Vec<u32> {
        let stages = self.stages();
        let config = &stages.config.thinker;
        let lays_out = [
            config.audio_token_id,
            config.image_token_id,
            config.video_token_id,
            config.audio_start_token_id,
            config.audio_end_token_id,
            config.vision_start_token_id,
            config.vision_end_token_id,
            stages.ids.im_start,
            stages.ids.im_end,
        ];
        let ids = self.text_ids(config.text_config.vocab_size.min(512));
        let words = ids.into_iter().filter(|id| !lays_out.contains(id));
        words.collect()
    }

    /// Frames of some codes.
    pub(super) fn frames(&self, count: usize) -> Vec<Vec<u32>> {
        let config = self.stages().config.code2wav.as_ref();
        let config = config.expect("a model that speaks has code2wav");
        let mut codes = numbers(config.codebook_size);
        let mut frame = || codes.by_ref().take(config.num_quantizers).collect();
        (0..count).map(|_| frame()).collect()
    }

    /// `load`: the time until all weights were where they belong.
    pub(super) fn load_figure(&self) -> Figure {
        let mut figure = Figure::one("load", "s", self.load.as_secs_f64());
        let way = match self.parts {
            Parts::Loaded(_) => "from the checkpoint",
            Parts::Drawn(_) => "random weights",
        };
        figure.detail = way.into();
        figure
    }

    /// `memory.weights`, and `memory.device` where the device says it.
    pub(super) fn memory_figures(&self) -> Vec<Figure> {
        let weights = match &self.parts {
            Parts::Loaded(engine) => engine.memory().weights_bytes,
            Parts::Drawn(drawn) => drawn.bytes,
        };
        let mut figures = vec![Figure::one("memory.weights", "bytes", weights as f64)];
        figures.extend(self.held_memory());
        figures
    }

    /// What the queue of the device holds, where it tells.
    pub(super) fn held_memory(&self) -> Option<Figure> {
        let usage = self.stages().device.memory_pool_usage()?;
        let mut figure = Figure::one("memory.device", "bytes", usage.bytes_reserved as f64);
        let [used, spare] =
            [usage.bytes_in_use, usage.bytes_padding].map(|bytes| bytes as f64 / 1e9);
        figure.detail =
            format!("held by this process's queue, {used:.2} GB in use and {spare:.2} between");
        Some(figure)
    }
}

impl Drawn {
    fn new(synthetic: Synthetic, stream: StreamId) -> Result<Self, Error> {
        let Synthetic {
            mut config,
            device,
            quantize,
            quantize_head,
            w4a4,
            max_context,
            kv_dtype,
            speech,
        } = synthetic;
        let context = context(&config, max_context, &device)?;
        kv_dtype.check(&config, &device)?;
        let ids = config.resolve_ids(|_| None)?;
        let bytes = Cell::new(0);
        let progress = |drawn| bytes.set(bytes.get() + drawn);
        let warnings = Warnings::new();
        let options = LoadOptions {
            progress: &progress,
            quantize: quantize.map(|format| AtLoad {
                format: format.format(),
                head: quantize_head,
            }),
            w4a4,
            ..LoadOptions::new(&device, DType::F32, &warnings)
        };
        let talker = config.talker.as_ref().filter(|_| speech);
        let accept = talker.map(|talker| talker.accept_hidden_layer);
        let mut thinker = for_good(&device, || {
            draw(Component::Thinker, options, |weights| {
                Thinker::load(weights, &config.thinker, accept)
            })
        });
        thinker.store_kv(kv_dtype.format());
        let captured = Captured::new(&thinker, context);
        let speech = talker.zip(config.code2wav.as_ref());
        let speech = speech.map(|(talker, code2wav)| {
            let (drawn, code2wav) = speech_drawn((talker, code2wav), options);
            let mut speech = SpeechModel::new(drawn, code2wav, talker, &ids);
            speech.capture();
            speech
        });
        Ok(Self {
            bytes: bytes.get(),
            stages: Stages {
                captured,
                thinker,
                speech,
                context,
                kv: kv_dtype,
                config,
                ids,
                device,
                stream,
            },
        })
    }
}

/// Talker and code2wav of random weights.
fn speech_drawn(
    (talker, code2wav): (&TalkerConfig, &Code2WavConfig),
    options: LoadOptions<'_>,
) -> (Talker, Code2Wav) {
    for_good(options.device, || {
        let talker = draw(Component::Talker, options, |weights| {
            Talker::load(weights, talker)
        });
        let code2wav = draw(Component::Code2Wav, options, |weights| {
            Code2Wav::load(weights, code2wav)
        });
        (talker, code2wav)
    })
}

/// Numbers below `end` from a fixed stream.
fn numbers(end: usize) -> impl Iterator<Item = u32> {
    let mut state = 1_u64;
    std::iter::repeat_with(move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % end as u64) as u32
    })
}
