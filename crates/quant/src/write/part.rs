//! What is read: the tensors of a dense checkpoint, one matrix each.

use std::path::Path;

use safetensors::Dtype;

use crate::checkpoint::{Component, RawTensor};
use crate::quantize::Matrix;

use super::WriteError;

/// A tensor of the source, or one expert's matrix out of a stack of them.
#[derive(Clone, Debug)]
pub(super) struct Part<'a> {
    pub(super) component: Component,
    /// Name in its component, with which it is written.
    pub(super) local: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
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
            bytes: tensor.bytes,
            source: tensor.name,
            file: tensor.file,
        };
        let names: &[&str] = match local.rsplit_once('.') {
            Some((parent, "gate_up_proj")) if parent.ends_with("experts") => &["gate", "up"],
            Some((parent, "down_proj")) if parent.ends_with("experts") => &["down"],
            _ => return Ok(vec![whole]),
        };
        Ok(whole.experts(names).unwrap_or_else(|| vec![whole]))
    }

    /// The matrices of a stack `[experts, names * rows, width]`; `None` when it is none.
    fn experts(&self, names: &[&str]) -> Option<Vec<Self>> {
        let &[experts, rows, width] = self.shape.as_slice() else {
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
            bytes,
            ..self.clone()
        };
        let size = (self.bytes.len() / count).max(1);
        Some(
            self.bytes
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
    pub(super) fn file(&self) -> &'a Path {
        self.file
    }

    /// The part as a matrix.
    pub(super) fn matrix(&self) -> Result<Matrix<'_>, WriteError> {
        Ok(Matrix::of_tensor(&self.raw())?)
    }

    /// The largest magnitude.
    pub(super) fn amax(&self) -> Result<f32, WriteError> {
        let amax = self.matrix()?.amax();
        if amax.is_finite() {
            return Ok(amax);
        }
        Err(WriteError::NotFinite {
            file: self.file.into(),
            tensor: self.source.into(),
            module: self.module().unwrap_or(&self.local).into(),
        })
    }

    fn raw(&self) -> RawTensor<'_> {
        RawTensor {
            name: self.source,
            file: self.file,
            dtype: self.dtype,
            shape: &self.shape,
            bytes: self.bytes,
        }
    }
}

/// Whether only quantized checkpoints have tensors of this dtype.
fn is_quantized(dtype: Dtype) -> bool {
    !matches!(
        dtype,
        Dtype::BF16 | Dtype::F16 | Dtype::F32 | Dtype::F64 | Dtype::I64 | Dtype::BOOL
    )
}
