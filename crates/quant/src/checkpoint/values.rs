//! Reading values: conversion to f32 and the search for values that are not finite.

use half::slice::HalfFloatSliceExt as _;
use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;

use super::{CheckpointError, RawTensor};

/// Elements that one task converts or scans: large enough to hide the cost of a task, small enough
/// to share out.
const TASK: usize = 1 << 16;

/// The first value of a tensor that is NaN or infinite.
#[derive(Clone, Copy, Debug)]
pub struct FirstBad {
    /// Position in row-major order, in elements.
    pub index: usize,
    /// The value: NaN or an infinity.
    pub value: f64,
}

impl RawTensor<'_> {
    /// The values as f32, for BF16, F16 and F32 tensors; exact.
    ///
    /// # Errors
    /// [`CheckpointError::UnexpectedDtype`] for any other dtype.
    pub fn to_f32(&self) -> Result<Vec<f32>, CheckpointError> {
        match self.dtype {
            Dtype::BF16 => Ok(convert(self.bytes, bf16_to_f32)),
            Dtype::F16 => Ok(convert(self.bytes, f16_to_f32)),
            Dtype::F32 => Ok(convert(self.bytes, f32_to_f32)),
            found => Err(CheckpointError::UnexpectedDtype {
                file: self.file.into(),
                tensor: self.name.into(),
                expected: "BF16, F16 or F32",
                found,
            }),
        }
    }

    /// Looks for a NaN or an infinity; `None` when every value is finite or the dtype has no other
    /// values.
    #[must_use]
    pub fn check_finite(&self) -> Option<FirstBad> {
        let bytes = self.bytes;
        let half = |b| u16::from_le_bytes(b);
        let single = |b| f64::from(f32::from_le_bytes(b));
        match self.dtype {
            // The masks are the exponent bits: all of them set means NaN or infinite.
            Dtype::BF16 => find(
                bytes,
                |b| half(b) & 0x7f80 == 0x7f80,
                |b| bf16::from_le_bytes(b).into(),
            ),
            Dtype::F16 => find(
                bytes,
                |b| half(b) & 0x7c00 == 0x7c00,
                |b| f16::from_le_bytes(b).into(),
            ),
            Dtype::F32 => find(bytes, |b| !f32::from_le_bytes(b).is_finite(), single),
            Dtype::F64 => find(
                bytes,
                |b| !f64::from_le_bytes(b).is_finite(),
                f64::from_le_bytes,
            ),
            Dtype::C64 => {
                find(bytes, |b| !f32::from_le_bytes(b).is_finite(), single).map(|bad| FirstBad {
                    index: bad.index / 2,
                    ..bad
                })
            }
            // As f16, whose upper byte this is.
            Dtype::F8_E5M2 => find(
                bytes,
                |[b]| b & 0x7c == 0x7c,
                |[b]| f16::from_le_bytes([0, b]).into(),
            ),
            Dtype::F8_E4M3 => find(bytes, |[b]| b & 0x7f == 0x7f, |_| f64::NAN),
            Dtype::F8_E4M3FNUZ | Dtype::F8_E5M2FNUZ => find(bytes, |[b]| b == 0x80, |_| f64::NAN),
            Dtype::F8_E8M0 => find(bytes, |[b]| b == 0xff, |_| f64::NAN),
            // Integers, and the 4 and 6 bit floats, have finite values only.
            _ => None,
        }
    }
}

/// Converts little-endian elements of `N` bytes, one task a chunk.
fn convert<const N: usize>(bytes: &[u8], chunk_to_f32: fn(&[[u8; N]], &mut [f32])) -> Vec<f32> {
    let (elements, _) = bytes.as_chunks::<N>();
    let mut values = vec![0.0; elements.len()];
    values
        .par_chunks_mut(TASK)
        .zip(elements.par_chunks(TASK))
        .for_each(|(values, elements)| chunk_to_f32(elements, values));
    values
}

/// Little-endian BF16, F16 or F32 elements as f32, on this thread; exact. Other dtypes leave `values` as they are.
pub(crate) fn to_f32(dtype: Dtype, bytes: &[u8], values: &mut [f32]) {
    match dtype {
        Dtype::BF16 => bf16_to_f32(bytes.as_chunks().0, values),
        Dtype::F16 => f16_to_f32(bytes.as_chunks().0, values),
        Dtype::F32 => f32_to_f32(bytes.as_chunks().0, values),
        _ => {}
    }
}

fn f32_to_f32(elements: &[[u8; 4]], values: &mut [f32]) {
    for (value, &element) in values.iter_mut().zip(elements) {
        *value = f32::from_le_bytes(element);
    }
}

fn bf16_to_f32(elements: &[[u8; 2]], values: &mut [f32]) {
    for (value, &element) in values.iter_mut().zip(elements) {
        *value = f32::from_bits(u32::from(u16::from_le_bytes(element)) << 16);
    }
}

/// Goes through an aligned buffer, because the file promises no alignment and the fast conversion
/// needs it.
fn f16_to_f32(elements: &[[u8; 2]], values: &mut [f32]) {
    const BUFFER: usize = 512;
    let mut buffer = [f16::ZERO; BUFFER];
    for (values, elements) in values.chunks_mut(BUFFER).zip(elements.chunks(BUFFER)) {
        let buffer = &mut buffer[..elements.len()];
        for (half, &element) in buffer.iter_mut().zip(elements) {
            *half = f16::from_le_bytes(element);
        }
        buffer.convert_to_f32_slice(values);
    }
}

/// The first element of `N` bytes that is bad, and its value; one task a chunk.
fn find<const N: usize>(
    bytes: &[u8],
    is_bad: impl Fn([u8; N]) -> bool + Sync,
    value: impl Fn([u8; N]) -> f64 + Sync,
) -> Option<FirstBad> {
    let (elements, _) = bytes.as_chunks::<N>();
    elements
        .par_chunks(TASK)
        .enumerate()
        .find_map_first(|(task, elements)| {
            // The whole chunk first, without an early exit, which the compiler can vectorise.
            if !elements
                .iter()
                .fold(false, |bad, &element| bad | is_bad(element))
            {
                return None;
            }
            let position = elements.iter().position(|&element| is_bad(element))?;
            Some(FirstBad {
                index: task * TASK + position,
                value: value(elements[position]),
            })
        })
}
