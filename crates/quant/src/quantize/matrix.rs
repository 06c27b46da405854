//! What is quantized: rows of numbers as they are stored.

use bytemuck::cast_slice;
use rayon::prelude::*;
use safetensors::Dtype;

use crate::checkpoint::{CheckpointError, RawTensor, to_f32};

/// Bytes that one task scans.
const TASK: usize = 1 << 17;

/// A dense matrix `[rows, width]`, row by row, in one of the dtypes that dense weights have.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    bytes: &'a [u8],
    dtype: Dtype,
    rows: usize,
    width: usize,
}

impl<'a> Matrix<'a> {
    /// A tensor as a matrix: its last dimension is the width, the others follow one another as rows.
    ///
    /// # Errors
    /// When the dtype is not BF16, F16 or F32.
    pub fn of_tensor(tensor: &RawTensor<'a>) -> Result<Self, CheckpointError> {
        crate::raw::readable(*tensor)?;
        let width = tensor.shape.last().copied().unwrap_or(1);
        Ok(Self {
            bytes: tensor.bytes,
            dtype: tensor.dtype,
            rows: tensor.elements().checked_div(width).unwrap_or(0),
            width,
        })
    }

    /// Values as a matrix of this width.
    ///
    /// # Panics
    /// When the values do not fill the last row.
    #[must_use]
    pub fn of_values(values: &'a [f32], width: usize) -> Self {
        assert!(
            width > 0 && values.len().is_multiple_of(width),
            "{} values make no rows of {width}",
            values.len()
        );
        Self {
            bytes: cast_slice(values),
            dtype: Dtype::F32,
            rows: values.len() / width,
            width,
        }
    }

    /// Number of rows, the output features.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns, the input features.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// The largest magnitude; NaN or infinite when a value is.
    #[must_use]
    pub fn amax(&self) -> f32 {
        // Magnitudes are ordered as their bits are.
        let half = || {
            let tasks = self.bytes.par_chunks(TASK).map(|bytes| {
                let (elements, _) = bytes.as_chunks::<2>();
                let bits = |&element: &[u8; 2]| i16::from_le_bytes(element) & i16::MAX;
                elements.iter().map(bits).fold(0, i16::max)
            });
            tasks.max().unwrap_or(0) as u16
        };
        match self.dtype {
            Dtype::BF16 => half::bf16::from_bits(half()).to_f32(),
            Dtype::F16 => half::f16::from_bits(half()).to_f32(),
            _ => {
                let tasks = self.bytes.par_chunks(TASK).map(|bytes| {
                    let (elements, _) = bytes.as_chunks::<4>();
                    let bits = |&element: &[u8; 4]| i32::from_le_bytes(element) & i32::MAX;
                    elements.iter().map(bits).fold(0, i32::max)
                });
                f32::from_bits(tasks.max().unwrap_or(0) as u32)
            }
        }
    }

    /// Copies a row to the beginning of `values` and leaves what is behind it.
    pub(super) fn read(&self, row: usize, values: &mut [f32]) {
        let bytes = self.bytes.len() / self.rows;
        let stored = &self.bytes[row * bytes..][..bytes];
        to_f32(self.dtype, stored, &mut values[..self.width]);
    }
}
