//! The stored forms of a matrix, one file a family: from the tensors of a module to the bytes that the kernels read.
//!
//! The dtype of a module's own tensors decides what it is; a config only informs.
//!
//! | file | stored forms |
//! |---|---|
//! | `nvfp4` | NVFP4 of ModelOpt and of compressed-tensors |
//! | `mx` | MXFP4 of compressed-tensors and gpt-oss, MXFP8 |
//! | `fp8` | FP8 with one scale a tensor, a row, or a block of 128×128 |
//! | `bnb` | bitsandbytes NF4 and FP4, nested too |
//! | `int4` | AWQ, GPTQ, AutoRound, compressed-tensors INT4 |
//! | `fake` | the largest weight that a quantizer left beside plain weights |

mod at_load;
mod bnb;
mod bytes;
mod config;
mod fake;
mod fp8;
mod int4;
mod join;
mod module;
mod mx;
mod names;
mod nvfp4;
mod pattern;
mod rows;
mod survey;
#[cfg(test)]
mod tests;

use burn_omni_ops::{PackedBytes, PackedFormat};

use crate::Warnings;
use crate::checkpoint::{CheckpointError, RawTensor};
use crate::warnings::Kind;

pub use at_load::AtLoad;
pub use config::{QuantConfig, notice_pickles};
pub(crate) use join::{Joined, JoinedPacked, JoinedWeight, Layout, join};
pub(crate) use module::Module;
pub(crate) use names::{belongs, is_cache_scale};
pub(crate) use pattern::class;
pub use pattern::{Pattern, PatternError};
pub(crate) use rows::PackedRows;
pub use survey::{StoredForm, bad_scale, survey};

/// The tensors of one module, found and measured; their values are not read yet.
pub(crate) struct Stored<'a> {
    pub(crate) module: Module<'a>,
    pub(crate) form: Form<'a>,
    /// What the input is multiplied with first, `[width]`.
    pub(crate) factor: Option<RawTensor<'a>>,
    /// Matrices `[rank, width]` and `[rows, rank]` whose product is added to the weight.
    low_rank: Option<[RawTensor<'a>; 2]>,
}

/// What a module's weight is.
pub(crate) enum Form<'a> {
    /// BF16, F16 or F32.
    Dense(RawTensor<'a>),
    /// A quantized form.
    Packed(Box<dyn Quantized + 'a>),
}

/// A quantized matrix on disk.
pub(crate) trait Quantized {
    /// The name of the form, such as `NVFP4`.
    fn name(&self) -> &'static str;

    /// The tensor that holds the codes.
    fn codes(&self) -> RawTensor<'_>;

    /// How it lies in memory when nothing stands against it; `None` when it does not stay packed.
    fn format(&self) -> Option<PackedFormat>;

    /// Reads the values.
    fn read(&self, warnings: &Warnings) -> Result<Matrix, CheckpointError>;

    /// Its rows, where they can be copied one by one.
    fn rows(&self) -> Option<&dyn PackedRows> {
        None
    }

    /// Whether the rows of gates and of what they gate come in turn, and not one half after the other.
    fn rows_in_turn(&self) -> bool {
        false
    }
}

/// A matrix that was read: one of `rows` rows, or its values row by row.
#[derive(Debug)]
pub(crate) enum Matrix {
    /// It stays packed.
    Packed(PackedBytes),
    /// Its values, row by row.
    Values(Vec<f32>),
}

impl Matrix {
    /// The values row by row.
    pub(crate) fn values(self) -> Vec<f32> {
        match self {
            Self::Packed(bytes) => bytes.values(),
            Self::Values(values) => values,
        }
    }
}

impl<'a> Stored<'a> {
    /// Finds out what the weight of a module is, and checks the shapes of everything that belongs to it.
    pub(crate) fn find(module: Module<'a>, warnings: &Warnings) -> Result<Self, CheckpointError> {
        let packed = [nvfp4::find, mx::find, fp8::find, bnb::find, int4::find];
        let factor = module.factor()?;
        let low_rank = module.low_rank()?;
        for find in packed {
            if let Some(form) = find(&module, warnings)? {
                let form = Form::Packed(form);
                return Ok(Self {
                    module,
                    form,
                    factor,
                    low_rank,
                });
            }
        }
        let weight = crate::raw::readable(module.require_plain()?)?;
        let weight = weight.expect_shape(&module.shape())?;
        if let Some(stray) = module.stray_scale() {
            warnings.note(Kind::StrayScale, stray.name, 1);
        }
        let form = Form::Dense(weight);
        Ok(Self {
            module,
            form,
            factor,
            low_rank,
        })
    }
}

impl<'a> Stored<'a> {
    /// The tensor itself when it is not quantized.
    pub(crate) fn dense(&self) -> Option<RawTensor<'a>> {
        match self.form {
            Form::Dense(tensor) => Some(tensor),
            Form::Packed(_) => None,
        }
    }

    /// The name of the module in the checkpoint.
    pub(crate) fn full_name(&self) -> String {
        let weight = match &self.form {
            Form::Dense(tensor) => *tensor,
            Form::Packed(form) => form.codes(),
        };
        let name = weight.name;
        let ends = [".weight", ".weight_packed", ".qweight", "_blocks"];
        let module = ends.iter().find_map(|end| name.strip_suffix(end));
        module.unwrap_or(name).to_owned()
    }

    /// Reads the values.
    pub(crate) fn read(&self, warnings: &Warnings) -> Result<Matrix, CheckpointError> {
        match &self.form {
            Form::Dense(tensor) => Ok(Matrix::Values(crate::raw::values(tensor))),
            Form::Packed(form) => form.read(warnings),
        }
    }

    /// How it lies in memory when nothing stands against it; `None` as values.
    pub(crate) fn format(&self) -> Option<PackedFormat> {
        match &self.form {
            Form::Dense(_) => None,
            Form::Packed(form) => form.format(),
        }
    }

    /// See [`Quantized::rows`].
    pub(crate) fn packed_rows(&self) -> Option<&dyn PackedRows> {
        match &self.form {
            Form::Dense(_) => None,
            Form::Packed(form) => form.rows(),
        }
    }

    /// See [`Quantized::rows_in_turn`].
    pub(crate) fn rows_in_turn(&self) -> bool {
        matches!(&self.form, Form::Packed(form) if form.rows_in_turn())
    }
}
