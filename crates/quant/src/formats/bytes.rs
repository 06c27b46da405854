//! Small readers of stored values, and rows with padding.

use burn_omni_ops::packed::{Code, Scale};
use burn_omni_ops::{PackedBytes, PackedFormat, PackedSpec};

use crate::checkpoint::{CheckpointError, RawTensor};

use super::module::bad_value;

/// A factor: positive and finite.
pub(super) fn is_factor(value: f32) -> bool {
    value.is_finite() && value > 0.0
}

/// The values of a tensor of scales in BF16, F16 or F32, all of them finite.
pub(super) fn scales(tensor: &RawTensor<'_>) -> Result<Vec<f32>, CheckpointError> {
    let values = tensor.to_f32()?;
    match tensor.check_finite() {
        None => Ok(values),
        Some(bad) => Err(bad_value(
            tensor,
            "finite scales",
            format!("{} at element {}", bad.value, bad.index),
        )),
    }
}

/// The little-endian 32-bit words of a tensor.
pub(super) fn words(tensor: &RawTensor<'_>) -> Vec<u32> {
    let (words, _) = tensor.bytes.as_chunks::<4>();
    words.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

/// Rows of `from` bytes as rows of `to` bytes, the rest zero.
pub(super) fn padded(bytes: &[u8], from: usize, to: usize) -> Vec<u8> {
    let rows = bytes.len().checked_div(from).unwrap_or(0);
    let mut out = vec![0; rows * to];
    pad(bytes, from, (&mut out, to));
    out
}

/// Copies rows of `from` bytes to rows of `to` bytes, as many as there is room for, and leaves what is behind them.
pub(super) fn pad(bytes: &[u8], from: usize, (out, to): (&mut [u8], usize)) {
    if from == to {
        out.copy_from_slice(&bytes[..out.len()]);
        return;
    }
    if from == 0 || to == 0 {
        return;
    }
    let kept = from.min(to);
    for (out, row) in out.chunks_exact_mut(to).zip(bytes.chunks_exact(from)) {
        out[..kept].copy_from_slice(&row[..kept]);
    }
}

/// One matrix of this shape and form.
pub(super) fn spec(format: PackedFormat, rows: usize, width: usize) -> PackedSpec {
    PackedSpec {
        format,
        matrices: 1,
        rows,
        width,
        gated: false,
        w4a4: false,
    }
}

/// Values of 4-bit codes with a factor and, where there is one, an offset a block become affine: so that matrices with
/// and without offsets can be joined.
pub(super) fn to_affine(bytes: PackedBytes) -> PackedBytes {
    if bytes.spec.format.scale != Scale::F32 {
        return bytes;
    }
    let mut spec = bytes.spec;
    spec.format.scale = Scale::Affine;
    let (factors, _) = bytes.scales.as_chunks::<4>();
    let scales = factors.iter().flat_map(|factor| {
        let mut pair = [0; 8];
        pair[..4].copy_from_slice(factor);
        pair
    });
    PackedBytes {
        spec,
        scales: scales.collect(),
        ..bytes
    }
}

/// Whether two formats differ in nothing but the offset of their blocks.
pub(super) fn differ_in_offset(a: PackedFormat, b: PackedFormat) -> bool {
    let floats = |format: PackedFormat| matches!(format.scale, Scale::F32 | Scale::Affine);
    a.code == Code::Int4 && a.code == b.code && a.block == b.block && floats(a) && floats(b)
}
