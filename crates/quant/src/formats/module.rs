//! The tensors that belong to one matrix.

use crate::checkpoint::{CheckpointError, Dtype, RawTensor, TensorSet};

use super::names;

/// The name of a module with the shape that the model wants of its weight.
#[derive(Clone, Debug)]
pub(crate) struct Module<'a> {
    tensors: &'a TensorSet,
    /// Local name, without `.weight`.
    name: String,
    /// All axes but the last one.
    lead: Vec<usize>,
    /// The last axis, input features.
    width: usize,
    /// What GPTQ adds to a stored zero point.
    gptq_zero: u8,
}

impl<'a> Module<'a> {
    /// The module `name` whose weight is `[lead…, width]`.
    pub(crate) fn new(tensors: &'a TensorSet, name: &str, lead: &[usize], width: usize) -> Self {
        Self {
            tensors,
            name: name.to_owned(),
            lead: lead.to_vec(),
            width,
            gptq_zero: 1,
        }
    }

    /// The same of a checkpoint in the second version of GPTQ's format, which stores zero points as they are.
    pub(crate) fn with_gptq_v2(self, v2: bool) -> Self {
        let gptq_zero = if v2 { 0 } else { 1 };
        Self { gptq_zero, ..self }
    }

    pub(super) fn gptq_zero(&self) -> u8 {
        self.gptq_zero
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Rows of all matrices.
    pub(crate) fn rows(&self) -> usize {
        self.lead.iter().product()
    }

    /// Rows of one matrix.
    pub(crate) fn rows_of_one(&self) -> usize {
        self.lead.last().copied().unwrap_or(1)
    }

    /// The shape that a dense weight has.
    pub(crate) fn shape(&self) -> Vec<usize> {
        self.shape_with(&[self.width])
    }

    /// The leading axes and then these.
    pub(crate) fn shape_with(&self, tail: &[usize]) -> Vec<usize> {
        [&self.lead, tail].concat()
    }

    /// The tensor `part` of the module: `{name}.{part}`, or `{name}_{part}` beside fused experts.
    pub(crate) fn get(&self, part: &str) -> Option<RawTensor<'a>> {
        let Self { tensors, name, .. } = self;
        let fused = || tensors.get(&format!("{name}_{part}"));
        tensors.get(&format!("{name}.{part}")).or_else(fused)
    }

    /// The first of these tensors that exists.
    pub(crate) fn first(&self, parts: &[&str]) -> Option<RawTensor<'a>> {
        parts.iter().find_map(|part| self.get(part))
    }

    /// A tensor that must exist.
    pub(crate) fn require(&self, part: &str) -> Result<RawTensor<'a>, CheckpointError> {
        match self.get(part) {
            Some(tensor) => Ok(tensor),
            None => self.tensors.require(&format!("{}.{part}", self.name)),
        }
    }

    /// `{name}.weight`, or the tensor `{name}` itself.
    pub(crate) fn plain(&self) -> Option<RawTensor<'a>> {
        self.get("weight").or_else(|| self.tensors.get(&self.name))
    }

    /// The same where it must exist.
    pub(crate) fn require_plain(&self) -> Result<RawTensor<'a>, CheckpointError> {
        match self.plain() {
            Some(tensor) => Ok(tensor),
            None => self.tensors.require(&format!("{}.weight", self.name)),
        }
    }

    /// Bytes of all tensors of the module, as stored.
    pub(crate) fn bytes(&self) -> u64 {
        let parts = names::PARTS.iter().filter_map(|part| self.get(part));
        let bytes = parts.chain(self.plain()).map(|tensor| tensor.bytes.len());
        bytes.sum::<usize>() as u64
    }

    /// Checks that a tensor of codes has the leading axes and a last one from `least` to `most`, which is `least` with
    /// its padding.
    pub(crate) fn expect_codes(
        &self,
        codes: RawTensor<'a>,
        least: usize,
        most: usize,
    ) -> Result<RawTensor<'a>, CheckpointError> {
        if let Some((last, lead)) = codes.shape.split_last()
            && *lead == self.lead
            && (least..=most).contains(last)
        {
            return Ok(codes);
        }
        codes.expect_shape(&self.shape_with(&[least]))
    }

    /// The factor on the input, `[width]`, where there is one.
    pub(crate) fn factor(&self) -> Result<Option<RawTensor<'a>>, CheckpointError> {
        let Some(factor) = self.first(&names::INPUT_FACTORS) else {
            return Ok(None);
        };
        let factor = crate::raw::readable(factor)?;
        if factor.elements() == self.width {
            return Ok(Some(factor));
        }
        factor.expect_shape(&[self.width]).map(Some)
    }

    /// The matrices of a low-rank correction, `[rank, width]` and `[rows, rank]`, where there is one.
    pub(crate) fn low_rank(&self) -> Result<Option<[RawTensor<'a>; 2]>, CheckpointError> {
        let Some(a) = self.get("svdquant_lora_a") else {
            return Ok(None);
        };
        let rank = a.shape.first().copied().unwrap_or(0);
        let a = crate::raw::readable(a)?.expect_shape(&[rank, self.width])?;
        let b = crate::raw::readable(self.require("svdquant_lora_b")?)?;
        let b = b.expect_shape(&[self.rows(), rank])?;
        Ok(Some([a, b]))
    }

    /// A scale beside weights that need none.
    pub(crate) fn stray_scale(&self) -> Option<RawTensor<'a>> {
        self.first(&[
            "weight_scale",
            "weight_scale_2",
            "weight_global_scale",
            "weight_scale_inv",
        ])
    }
}

/// The error of a tensor whose dtype is none of those that its place can have.
pub(crate) fn wrong_dtype(tensor: &RawTensor<'_>, expected: &'static str) -> CheckpointError {
    CheckpointError::UnexpectedDtype {
        file: tensor.file.into(),
        tensor: tensor.name.into(),
        expected,
        found: tensor.dtype,
    }
}

/// The error of a tensor whose values cannot be used.
pub(crate) fn bad_value(
    tensor: &RawTensor<'_>,
    expected: &'static str,
    found: impl std::fmt::Display,
) -> CheckpointError {
    CheckpointError::BadValue {
        file: tensor.file.into(),
        tensor: tensor.name.into(),
        expected,
        found: found.to_string(),
    }
}

/// The tensor itself when its dtype is this one.
pub(crate) fn expect_dtype<'a>(
    tensor: RawTensor<'a>,
    dtype: Dtype,
    expected: &'static str,
) -> Result<RawTensor<'a>, CheckpointError> {
    if tensor.dtype == dtype {
        Ok(tensor)
    } else {
        Err(wrong_dtype(&tensor, expected))
    }
}
