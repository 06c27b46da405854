//! Quantized checkpoints: a dense checkpoint in, a quantized one out; or nothing in, and random weights out ([`Drawn`]).
//!
//! | form | folders | a quantized matrix `X` |
//! |---|---|---|
//! | [`Form::ModelOpt`] | `thinker/`, `talker/`, `code2wav/` | `X.weight`, `X.weight_scale`, `X.weight_scale_2` |
//! | [`Form::CompressedTensors`] | one | `X.weight_packed`, `X.weight_scale`, `X.weight_global_scale` |
//! | [`Form::Mxfp4`] | one | `X.weight_packed`, `X.weight_scale` |
//!
//! Only weights are quantized; activations stay as they are. One matrix at a time is read from the memory map, encoded
//! and written. A shard has its name only when it is whole, the index and the configs come last, and until then the
//! folder has a record in it with which no reader takes it for a checkpoint and the same run goes on where it stopped.

mod config;
mod destination;
mod drawn;
mod error;
mod file;
mod glob;
mod ignored;
mod layout;
mod noise;
mod part;
mod plan;
mod room;
mod run;
mod select;
mod shard;
#[cfg(test)]
mod tests;

pub use destination::Replace;
pub use drawn::{Drawn, SideFile};
pub use error::WriteError;
pub use glob::{Glob, GlobError};
pub use plan::{Plan, Summary};
pub use run::Watcher;

use burn_omni_ops::PackedFormat;

use crate::quantize::{Convention, Encoded, Matrix, mxfp4, nvfp4};

/// The form of the checkpoint that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// NVFP4 as nvidia-modelopt writes it, a folder a component.
    ModelOpt,
    /// NVFP4 as compressed-tensors writes it.
    CompressedTensors,
    /// MXFP4 as compressed-tensors writes it.
    Mxfp4,
}

impl Form {
    /// How values and scales are coded.
    fn format(self) -> PackedFormat {
        match self {
            Self::ModelOpt | Self::CompressedTensors => PackedFormat::NVFP4,
            Self::Mxfp4 => PackedFormat::MXFP4,
        }
    }

    /// What the tensor scale is, where there is one.
    fn convention(self) -> Option<Convention> {
        match self {
            Self::ModelOpt => Some(Convention::ModelOpt),
            Self::CompressedTensors => Some(Convention::CompressedTensors),
            Self::Mxfp4 => None,
        }
    }

    /// A matrix in this form; `amax` is the largest magnitude of all that share its tensor scale.
    fn encode(self, matrix: Matrix<'_>, amax: f32) -> Encoded {
        match self.convention() {
            Some(convention) => nvfp4(matrix, amax, convention),
            None => mxfp4(matrix),
        }
    }

    /// Whether every component has a folder of its own.
    fn is_split(self) -> bool {
        self == Self::ModelOpt
    }

    /// As it is written down in the record of a run.
    fn name(self) -> &'static str {
        match self {
            Self::ModelOpt => "nvfp4",
            Self::CompressedTensors => "nvfp4-ct",
            Self::Mxfp4 => "mxfp4",
        }
    }
}

/// What is wanted.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// The form of the checkpoint.
    pub form: Form,
    /// Modules that stay as they are, besides those that always do.
    pub ignore: Vec<Glob>,
    /// Whether the talker's layers are quantized too.
    pub talker: bool,
    /// Whether the heads are quantized too: the thinker's, and the talker's with its layers.
    pub head: bool,
    /// Bytes of tensors after which a new file begins.
    pub shard_bytes: u64,
}

impl WriteOptions {
    /// Bytes of a shard in most checkpoints.
    pub const SHARD_BYTES: u64 = 5_000_000_000;

    /// The usual choice: the layers of the thinker.
    #[must_use]
    pub fn new(form: Form) -> Self {
        Self {
            form,
            ignore: Vec::new(),
            talker: false,
            head: false,
            shard_bytes: Self::SHARD_BYTES,
        }
    }
}
