//! Loading a component: first every name and shape is checked, then the bytes are read.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use burn::tensor::{DType, Device};

use burn_omni_ops::PackedFormat;

use crate::checkpoint::{CheckpointError, Component, RawTensor, TensorSet};
use crate::formats::{self, AtLoad, Module, QuantConfig, Stored};
use crate::{Warnings, Weights};

/// Where tensors go, and in which form.
#[derive(Clone, Copy)]
pub struct LoadOptions<'a> {
    /// The device that runs the component.
    pub device: &'a Device,
    /// Dtype of activations, and of the vectors (norms, biases) that meet them.
    pub dtype: DType,
    /// Called with the number of bytes that were just read.
    pub progress: &'a dyn Fn(u64),
    /// What the config says about the quantization, where it says something.
    pub config: Option<&'a QuantConfig>,
    /// What plain matrices of the text decoder become.
    pub quantize: Option<AtLoad>,
    /// Whether 4-bit matrices round the rows that they are multiplied with: see [`burn_omni_ops::PackedSpec::w4a4`].
    pub w4a4: bool,
    /// Takes what there is to say about the tensors.
    pub warnings: &'a Warnings,
}

impl<'a> LoadOptions<'a> {
    /// As stored, with nobody listening.
    #[must_use]
    pub fn new(device: &'a Device, dtype: DType, warnings: &'a Warnings) -> Self {
        Self {
            device,
            dtype,
            progress: &|_| {},
            config: None,
            quantize: None,
            w4a4: false,
            warnings,
        }
    }
}

/// The tensors of a component are not those of its config.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A tensor cannot be used.
    #[error(transparent)]
    Tensor(#[from] CheckpointError),
    /// The tensors are of no known form, and the config names one that is not known.
    #[error("{cause} (quantized as {algorithm:?}, which is not known, says {config})", config = .config.display())]
    UnknownFormat {
        /// The file that names the format.
        config: PathBuf,
        /// The format.
        algorithm: String,
        /// The first tensor that cannot be read.
        cause: Box<LoadError>,
    },
    /// The device did not take a weight.
    #[error("{} was not loaded: {cause}", .component.name())]
    Device {
        /// The component.
        component: Component,
        /// What the device said.
        cause: String,
    },
    /// Products of 4-bit operands were asked for, and there is no matrix that has them.
    #[error("{}: {} has no matrix in NVFP4 or MXFP4, which W4A4 was asked for", .dir.display(), .component.name())]
    NotFourBits {
        /// The checkpoint folder.
        dir: PathBuf,
        /// The component.
        component: Component,
    },
    /// Names are missing, or nobody asked for them.
    #[error("{}", describe(.dir, .component, .missing, .unexpected))]
    Names {
        /// The checkpoint folder.
        dir: PathBuf,
        /// The component whose names these are.
        component: Component,
        /// Local names that the config asks for.
        missing: Vec<String>,
        /// Local names that no module reads.
        unexpected: Vec<String>,
        /// A name in the checkpoint that resembles the first missing one.
        nearest: Option<String>,
    },
}

impl LoadError {
    /// What the user can do about it, in one line.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Tensor(error) => error.hint(),
            Self::UnknownFormat { cause, .. } => cause.hint(),
            Self::Device { .. } => None,
            Self::NotFourBits { .. } => {
                Some("quantize on loading with --quantize nvfp4, or leave out --w4a4".into())
            }
            Self::Names {
                nearest: Some(nearest),
                ..
            } => Some(format!("the closest name in the checkpoint is `{nearest}`")),
            Self::Names { .. } => {
                Some("config.json and the weights must be of the same model".into())
            }
        }
    }
}

fn describe(
    dir: &std::path::Path,
    component: &Component,
    missing: &[String],
    unexpected: &[String],
) -> String {
    let list = |what: &str, names: &[String]| {
        const SHOWN: usize = 3;
        let shown: Vec<String> = names
            .iter()
            .take(SHOWN)
            .map(|name| format!("`{name}`"))
            .collect();
        let more = names.len().saturating_sub(SHOWN);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        let plural = if names.len() == 1 {
            "tensor"
        } else {
            "tensors"
        };
        format!(
            "{} {what} {plural}: {}{more}",
            names.len(),
            shown.join(", ")
        )
    };
    let mut parts = Vec::new();
    if !missing.is_empty() {
        parts.push(list("missing", missing));
    }
    if !unexpected.is_empty() {
        parts.push(list("unexpected", unexpected));
    }
    format!(
        "{}: {} has {}",
        dir.display(),
        component.name(),
        parts.join("; ")
    )
}

/// Loads a component with `build`, which is run twice: once to check the names and shapes it asks for, when it is given
/// tensors without content, and once to read them.
///
/// # Errors
/// When a tensor is missing, unexpected, of another shape or of a dtype that cannot be read; no weight is read then.
pub fn load<T>(
    tensors: &TensorSet,
    options: LoadOptions<'_>,
    build: impl Fn(&Weights<'_>) -> T,
) -> Result<T, LoadError> {
    check(tensors, options, &build).1?;
    read(tensors, options, build)
}

/// The second pass of [`load`] alone, for a component that [`check`] found nothing wrong with.
///
/// # Errors
/// When values cannot be used, or the device does not take them.
///
/// # Panics
/// When [`check`] would have found something.
pub fn read<T>(
    tensors: &TensorSet,
    options: LoadOptions<'_>,
    build: impl Fn(&Weights<'_>) -> T,
) -> Result<T, LoadError> {
    let context = Context::new((tensors.component(), Some(tensors)), options, Pass::Read);
    let built = build(&Weights::root(&context));
    if let Some(cause) = context.lost.into_inner() {
        let component = tensors.component();
        return Err(LoadError::Device { component, cause });
    }
    // Values are seen for the first time here.
    match context.first_error.into_inner() {
        Some(error) => Err(error.into()),
        None => Ok(built),
    }
}

/// The first pass of [`load`] alone: the component with tensors without content, and what is wrong with its names, shapes
/// and dtypes. No weight is read.
pub fn check<T>(
    tensors: &TensorSet,
    options: LoadOptions<'_>,
    build: impl Fn(&Weights<'_>) -> T,
) -> (T, Result<(), LoadError>) {
    let context = Context::new((tensors.component(), Some(tensors)), options, Pass::Check);
    let built = build(&Weights::root(&context));
    (built, context.finish())
}

/// Which of the two passes this is, or that there is nothing to read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    Check,
    Read,
    /// Weights are random.
    Draw,
}

/// What all [`Weights`] of one pass share.
pub(crate) struct Context<'a> {
    component: Component,
    /// What is stored; nothing where weights are drawn, or names are only asked for.
    tensors: Option<&'a TensorSet>,
    pub(crate) options: LoadOptions<'a>,
    pub(crate) pass: Pass,
    used: RefCell<BTreeSet<String>>,
    /// Modules whose weight was asked for, in whatever form it is.
    modules: RefCell<BTreeSet<String>>,
    /// Whether a matrix is stored in NVFP4 or MXFP4, or becomes so.
    four_bits: Cell<bool>,
    missing: RefCell<BTreeMap<String, CheckpointError>>,
    /// Names and shapes that were asked for where nothing is stored.
    pub(crate) asked: RefCell<BTreeMap<String, Vec<usize>>>,
    first_error: RefCell<Option<CheckpointError>>,
    /// What the device said of the first weight that it did not take.
    lost: RefCell<Option<String>>,
    /// Bytes that were handed to the device since it was last waited for.
    sent: Cell<usize>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(
        (component, tensors): (Component, Option<&'a TensorSet>),
        options: LoadOptions<'a>,
        pass: Pass,
    ) -> Self {
        Self {
            component,
            tensors,
            options,
            pass,
            used: RefCell::default(),
            modules: RefCell::default(),
            four_bits: Cell::new(options.quantize.is_some()),
            missing: RefCell::default(),
            asked: RefCell::default(),
            first_error: RefCell::default(),
            lost: RefCell::default(),
            sent: Cell::default(),
        }
    }

    /// The end of a list of modules that is not longer than the tensors there are.
    pub(crate) fn end(&self, count: usize) -> usize {
        self.tensors
            .map_or(count, |tensors| count.min(tensors.len() + 1))
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.tensors.is_some_and(|tensors| tensors.contains(name))
    }

    pub(crate) fn component(&self) -> Component {
        self.component
    }

    fn tensors(&self) -> &'a TensorSet {
        self.tensors
            .expect("nothing is looked up where weights are drawn")
    }

    /// Whether the weight of a module is in a quantized form.
    pub(crate) fn is_quantized(&self, module: &str) -> bool {
        let exists = |part: &str| self.contains(&format!("{module}.{part}"));
        let weight = format!("{module}.weight");
        match self.tensors.and_then(|tensors| tensors.get(&weight)) {
            Some(weight) => crate::raw::dtype(&weight).is_none() || exists("weight.absmax"),
            None => exists("weight_packed") || exists("qweight"),
        }
    }

    /// The weight of a module as it is stored, of the shape `[lead…, width]`; when there is none that can be used the
    /// reason is noted and `None` returned.
    pub(crate) fn find(&self, module: &str, lead: &[usize], width: usize) -> Option<Stored<'a>> {
        let Some(tensors) = self.tensors else {
            self.ask(format!("{module}.weight"), &[lead, &[width]].concat());
            return None;
        };
        self.modules.borrow_mut().insert(module.to_owned());
        let v2 = self.options.config.is_some_and(QuantConfig::gptq_v2);
        let module = Module::new(tensors, module, lead, width).with_gptq_v2(v2);
        match Stored::find(module, self.options.warnings) {
            Ok(stored) => {
                let known = [PackedFormat::NVFP4, PackedFormat::MXFP4];
                if stored
                    .format()
                    .is_some_and(|format| known.contains(&format))
                {
                    self.four_bits.set(true);
                }
                Some(stored)
            }
            Err(error) => {
                self.fail(error);
                None
            }
        }
    }

    /// Notes what is wanted where nothing is stored.
    fn ask(&self, name: String, shape: &[usize]) {
        self.asked.borrow_mut().insert(name, shape.to_vec());
    }

    /// Notes why something cannot be used.
    pub(crate) fn fail(&self, error: CheckpointError) {
        if let CheckpointError::MissingTensor { tensor, .. } = &error {
            self.missing.borrow_mut().insert(tensor.clone(), error);
        } else {
            self.first_error.borrow_mut().get_or_insert(error);
        }
    }

    /// Notes what the device says of a weight.
    pub(crate) fn hear(&self, checked: Result<(), String>) {
        if let Err(cause) = checked {
            self.lost.borrow_mut().get_or_insert(cause);
        }
    }

    /// The tensor `name` of this shape; when there is none the reason is noted and `None` returned.
    pub(crate) fn take(&self, name: &str, shape: &[usize]) -> Option<RawTensor<'a>> {
        let Some(tensors) = self.tensors else {
            self.ask(name.to_owned(), shape);
            return None;
        };
        self.used.borrow_mut().insert(name.to_owned());
        let tensor = match tensors.require(name) {
            Ok(tensor) => tensor,
            Err(error) => {
                self.fail(error);
                return None;
            }
        };
        match crate::raw::readable(tensor).and_then(|tensor| tensor.expect_shape(shape)) {
            Ok(tensor) => Some(tensor),
            Err(error) => {
                self.fail(error);
                None
            }
        }
    }

    /// Counts bytes that are handed to the device, and waits for it before they are too many: those that it has not copied
    /// yet take memory of the host.
    pub(crate) fn send(&self, bytes: usize) {
        const WAITING: usize = 1 << 30;
        let sent = self.sent.get() + bytes;
        self.sent.set(sent % WAITING);
        if sent >= WAITING {
            // A device that failed says it again to who waits for the model.
            let _ = self.options.device.sync();
        }
    }

    /// Compares what the config says of matrices with what they are.
    pub(crate) fn compare(&self, parts: &[Stored<'_>]) {
        let Self {
            options: LoadOptions {
                config, warnings, ..
            },
            ..
        } = self;
        for part in parts {
            warnings.compare(*config, &part.full_name(), part.dense().is_none());
        }
    }

    /// The verdict of the checking pass.
    fn finish(self) -> Result<(), LoadError> {
        let unknown = self.options.config.and_then(|config| {
            let algorithm = config.unknown()?.to_owned();
            Some((config.file().to_owned(), algorithm))
        });
        let warnings = self.options.warnings;
        let verdict = self.verdict();
        match (verdict, unknown) {
            (Ok(()), Some((config, algorithm))) => {
                warnings.say(format!(
                    "{}: quantized as {algorithm:?}, which is not known; every tensor is in a known form",
                    config.display()
                ));
                Ok(())
            }
            (Err(cause), Some((config, algorithm))) => Err(LoadError::UnknownFormat {
                config,
                algorithm,
                cause: Box::new(cause),
            }),
            (verdict, None) => verdict,
        }
    }

    fn verdict(self) -> Result<(), LoadError> {
        let tensors = self.tensors();
        if let Some(error) = self.first_error.into_inner() {
            return Err(error.into());
        }
        let used = self.used.into_inner();
        let modules = self.modules.into_inner();
        let missing = self.missing.into_inner();
        let belongs = |name: &str| {
            used.contains(name)
                || formats::is_cache_scale(name)
                || formats::belongs(name, |module| modules.contains(module))
        };
        let names = tensors.names();
        let unexpected: Vec<String> = names
            .filter(|name| !belongs(name))
            .map(str::to_owned)
            .collect();
        if missing.is_empty() && unexpected.is_empty() {
            // What speaks may well be stored in 16 bits.
            let component = self.component;
            if self.options.w4a4 && component == Component::Thinker && !self.four_bits.get() {
                let dir = tensors.dir().into();
                return Err(LoadError::NotFourBits { dir, component });
            }
            return Ok(());
        }
        let nearest = missing.values().find_map(|error| match error {
            CheckpointError::MissingTensor { nearest, .. } => nearest.clone(),
            _ => None,
        });
        Err(LoadError::Names {
            dir: tensors.dir().into(),
            component: self.component,
            missing: missing.into_keys().collect(),
            unexpected,
            nearest,
        })
    }
}
