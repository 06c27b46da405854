//! What is written from: the tensors of a dense checkpoint, one matrix each, or tensors that are made up.

use std::path::Path;

use safetensors::Dtype;

use crate::Asked;
use crate::checkpoint::{Component, RawTensor};
use crate::quantize::Matrix;

use super::WriteError;
use super::noise::Noise;

/// A tensor of the source, or one expert's matrix out of a stack of them.
#[derive(Clone, Debug)]
pub(super) struct Part<'a> {
    pub(super) component: Component,
    /// Name in its component, with which it is written.
    pub(super) local: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) values: Values<'a>,
}

/// Where the values come from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Values<'a> {
    /// From a file of a checkpoint.
    Read(Read<'a>),
    /// From nowhere.
    Drawn(&'a Noise),
}

/// Values in a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read<'a> {
    pub(super) bytes: &'a [u8],
    /// Name on disk.
    source: &'a str,
    file: &'a Path,
}

impl<'a> Part<'a> {
    /// The parts of one tensor: itself, or the matrices of a stack.
    pub(super) fn of(
        component: Component,
        local: &str,
        tensor: RawTensor<'a>,
    ) -> Result<Vec<Self>, WriteError> {
        if is_quantized(tensor.dtype) {
            return Err(WriteError::Quantized {
                file: tensor.file.into(),
                found: format!("tensor `{}` is {}", tensor.name, tensor.dtype),
            });
        }
        let whole = Self {
            component,
            local: local.into(),
            dtype: tensor.dtype,
            shape: tensor.shape.into(),
            values: Values::Read(Read {
                bytes: tensor.bytes,
                source: tensor.name,
                file: tensor.file,
            }),
        };
        let names: &[&str] = match local.rsplit_once('.') {
            Some((parent, "gate_up_proj")) if parent.ends_with("experts") => &["gate", "up"],
            Some((parent, "down_proj")) if parent.ends_with("experts") => &["down"],
            _ => return Ok(vec![whole]),
        };
        Ok(whole.experts(names).unwrap_or_else(|| vec![whole]))
    }

    /// A made-up tensor in BF16.
    pub(super) fn drawn(component: Component, asked: &Asked, noise: &'a Noise) -> Self {
        Self {
            component,
            local: asked.name.clone(),
            dtype: Dtype::BF16,
            shape: asked.shape.clone(),
            values: Values::Drawn(noise),
        }
    }

    /// The matrices of a stack `[experts, names * rows, width]`; `None` when it is none.
    fn experts(&self, names: &[&str]) -> Option<Vec<Self>> {
        let (&[experts, rows, width], Values::Read(read)) = (self.shape.as_slice(), self.values)
        else {
            return None;
        };
        let (parent, _) = self.local.rsplit_once('.')?;
        let count = experts * names.len();
        if count == 0 || !rows.is_multiple_of(names.len()) {
            return None;
        }
        let rows = rows / names.len();
        let matrix = |(number, bytes): (usize, &'a [u8])| Self {
            local: format!(
                "{parent}.{}.{}_proj.weight",
                number / names.len(),
                names[number % names.len()]
            ),
            shape: vec![rows, width],
            values: Values::Read(Read { bytes, ..read }),
            ..self.clone()
        };
        let size = (read.bytes.len() / count).max(1);
        Some(
            read.bytes
                .chunks_exact(size)
                .enumerate()
                .map(matrix)
                .collect(),
        )
    }

    /// The module whose weight this is, with two or more dimensions.
    pub(super) fn module(&self) -> Option<&str> {
        let module = self.local.strip_suffix(".weight")?;
        (self.shape.len() >= 2).then_some(module)
    }

    /// The file that it is read from.
    pub(super) fn file(&self) -> Option<&'a Path> {
        match self.values {
            Values::Read(read) => Some(read.file),
            Values::Drawn(_) => None,
        }
    }

    /// Values that were read as a matrix.
    pub(super) fn matrix<'b>(&'b self, read: Read<'b>) -> Result<Matrix<'b>, WriteError> {
        Ok(Matrix::of_tensor(&RawTensor {
            name: read.source,
            file: read.file,
            dtype: self.dtype,
            shape: &self.shape,
            bytes: read.bytes,
        })?)
    }

    /// The largest magnitude.
    pub(super) fn amax(&self) -> Result<f32, WriteError> {
        let read = match self.values {
            Values::Read(read) => read,
            Values::Drawn(noise) => return Ok(noise.amax()),
        };
        let amax = self.matrix(read)?.amax();
        if amax.is_finite() {
            return Ok(amax);
        }
        Err(WriteError::NotFinite {
            file: read.file.into(),
            tensor: read.source.into(),
            module: self.module().unwrap_or(&self.local).into(),
        })
    }
}

/// Whether only quantized checkpoints have tensors of this dtype.
fn is_quantized(dtype: Dtype) -> bool {
    !matches!(
        dtype,
        Dtype::BF16 | Dtype::F16 | Dtype::F32 | Dtype::F64 | Dtype::I64 | Dtype::BOOL
    )
}
