//! What to load, and where to.

use std::path::PathBuf;

use burn::tensor::Device;
use burn_omni_ops::PackedFormat;
use burn_omni_quant::Warnings;
use burn_omni_quant::formats::AtLoad;

use crate::loading::Opened;
use crate::memory::Room;
use crate::{Compiling, Error, KvDtype, MemoryPlan};

/// What to load, and where to.
pub struct EngineConfig {
    pub(crate) dir: PathBuf,
    pub(crate) device: Device,
    pub(crate) max_context: Option<usize>,
    pub(crate) kv_dtype: KvDtype,
    memory_limit: Option<u64>,
    pub(crate) speech: bool,
    /// Speech that must be possible: `Some(None)` in the checkpoint's own voice.
    pub(crate) voice: Option<Option<String>>,
    quantize: Option<Quantize>,
    quantize_head: bool,
    pub(crate) w4a4: bool,
    progress: Box<dyn Fn(LoadProgress)>,
    warn: Box<dyn Fn(&str)>,
    compiling: Box<dyn Fn(Compiling)>,
    compiled: Box<dyn Fn()>,
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
            kv_dtype: KvDtype::Auto,
            memory_limit: None,
            speech: true,
            voice: None,
            quantize: None,
            quantize_head: false,
            w4a4: false,
            progress: Box::new(|_| {}),
            warn: Box::new(|_| {}),
            compiling: Box::new(|_| {}),
            compiled: Box::new(|| {}),
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

    /// How keys and values of the thinker are stored. Those of speech always are as [`KvDtype::Auto`] says.
    #[must_use]
    pub fn kv_dtype(mut self, dtype: KvDtype) -> Self {
        self.kv_dtype = dtype;
        self
    }

    /// Bytes that weights, caches and workspace may take together on the device. Unless a context was asked for, it becomes as
    /// long as fits with one answer at a time; what does not fit is refused before a weight is read. What is left bounds the
    /// caches of further answers, which are refused beyond it ([`Error::NoRoom`]), and of conversations between their turns,
    /// which give them up. Without a limit nothing is refused or given up.
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

    /// Called before kernels are compiled beside one another, which is done when a model is loaded to an NVIDIA GPU for the
    /// first time; see `burn_omni_ops::kernel_cache`, without which it is never done.
    #[must_use]
    pub fn on_compiling(mut self, compiling: impl Fn(Compiling) + 'static) -> Self {
        self.compiling = Box::new(compiling);
        self
    }

    /// Called when that is done, before weights are read: whoever keeps kernels can write them to disk now.
    #[must_use]
    pub fn on_compiled(mut self, compiled: impl Fn() + 'static) -> Self {
        self.compiled = Box::new(compiled);
        self
    }

    /// The same model on another device, with nobody listening and no limit.
    pub(crate) fn rehearsed(&self, device: Device) -> Self {
        let Self {
            speech,
            quantize,
            quantize_head,
            w4a4,
            kv_dtype,
            max_context,
            ..
        } = *self;
        Self {
            speech,
            quantize,
            quantize_head,
            w4a4,
            kv_dtype,
            max_context,
            device,
            ..Self::new(&self.dir)
        }
    }

    pub(crate) fn compiling(&self, compiling: Compiling) {
        (self.compiling)(compiling);
    }

    pub(crate) fn compiled(&self) {
        (self.compiled)();
    }

    pub(crate) fn tell(&self, warnings: &Warnings) {
        warnings.lines().iter().for_each(|line| self.warning(line));
    }

    /// What the model will take, `captured` or not, answering one request at a time.
    pub(crate) fn plan(
        &self,
        opened: &Opened,
        speech: bool,
        captured: bool,
    ) -> Result<MemoryPlan, Error> {
        let room = Room {
            context: opened.context,
            captured,
            speech,
            kv: self.kv_dtype,
        };
        let plan = MemoryPlan::new(&opened.checkpoint, &opened.config, room, self.at_load());
        match self.memory_limit {
            Some(limit) => plan.within(limit, self.max_context.is_none()),
            None => Ok(plan),
        }
    }

    /// Bytes that may be taken, where there is a limit.
    pub(crate) fn limit(&self) -> Option<u64> {
        self.memory_limit
    }

    /// Says so when the context is shorter than what it could have been.
    pub(crate) fn warn_of_cut(&self, whole: usize, context: usize) {
        if context < whole {
            (self.warn)(&format!(
                "the context is cut to {context} tokens, with which the model fits the memory"
            ));
        }
    }

    /// What plain matrices become.
    pub(crate) fn at_load(&self) -> Option<AtLoad> {
        self.quantize.map(|format| AtLoad {
            format: format.format(),
            head: self.quantize_head,
        })
    }

    pub(crate) fn warning(&self, line: &str) {
        (self.warn)(line);
    }

    pub(crate) fn report(&self, progress: LoadProgress) {
        (self.progress)(progress);
    }
}
