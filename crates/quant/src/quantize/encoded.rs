//! What quantizing gives.

use burn_omni_ops::{PackedBytes, PackedFormat, PackedSpec};
use rayon::prelude::*;

use super::Matrix;

/// A quantized matrix in checkpoint order.
///
/// Rows are filled up with zeros to whole blocks; where the width is one of whole blocks, as the formats on disk demand,
/// these are the tensors of a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// How values and scales are coded.
    pub format: PackedFormat,
    /// Rows, the output features.
    pub rows: usize,
    /// Columns, the input features.
    pub width: usize,
    /// Two codes a byte, the even one in the low half: `[rows, blocks * block / 2]`.
    pub codes: Vec<u8>,
    /// A byte a block: `[rows, blocks]`.
    pub scales: Vec<u8>,
    /// The tensor scale as it is stored, where the format has one: a factor or a divisor, as the convention has it.
    pub tensor_scale: Option<f32>,
    /// What every value is multiplied with, besides the block's scale.
    pub gain: f32,
}

impl Encoded {
    /// The same in the form that devices take.
    #[must_use]
    pub fn into_packed(self) -> PackedBytes {
        let spec = PackedSpec {
            format: self.format,
            matrices: 1,
            rows: self.rows,
            width: self.width,
            gated: false,
            w4a4: false,
        };
        PackedBytes {
            codes: widened(self.codes, self.rows, spec.row_bytes()),
            scales: widened(self.scales, self.rows, spec.scale_bytes()),
            gains: vec![self.gain; self.rows],
            spec,
        }
    }
}

/// Rows filled up with zeros to `bytes` each.
fn widened(stored: Vec<u8>, rows: usize, bytes: usize) -> Vec<u8> {
    if stored.len() == rows * bytes {
        return stored;
    }
    let mut wide = vec![0; rows * bytes];
    let narrow = stored.len() / rows;
    wide.chunks_exact_mut(bytes)
        .zip(stored.chunks_exact(narrow))
        .for_each(|(wide, stored)| wide[..narrow].copy_from_slice(stored));
    wide
}

/// Encodes a matrix block by block, on all cores: `encode` gets `2 * BYTES` values and gives their codes and their scale.
///
/// # Shapes
/// - gives codes `[rows, blocks, BYTES]` and scales `[rows, blocks]`
pub(super) fn encode_rows<const BYTES: usize>(
    matrix: Matrix<'_>,
    encode: impl Fn(&[f32]) -> ([u8; BYTES], u8) + Sync,
) -> (Vec<u8>, Vec<u8>) {
    /// Values that one task encodes at least.
    const TASK: usize = 1 << 14;
    let block = 2 * BYTES;
    let blocks = matrix.width().div_ceil(block);
    let mut codes = vec![0; matrix.rows() * blocks * BYTES];
    let mut scales = vec![0; matrix.rows() * blocks];
    if scales.is_empty() {
        return (codes, scales);
    }
    codes
        .par_chunks_exact_mut(blocks * BYTES)
        .zip(scales.par_chunks_exact_mut(blocks))
        .enumerate()
        .with_min_len(TASK.div_ceil(blocks * block))
        .for_each_init(
            || vec![0.0; blocks * block],
            |values, (row, (codes, scales))| {
                matrix.read(row, values);
                let (codes, _) = codes.as_chunks_mut::<BYTES>();
                let blocks = values.chunks_exact(block);
                for ((values, codes), scale) in blocks.zip(codes).zip(scales) {
                    (*codes, *scale) = encode(values);
                }
            },
        );
    (codes, scales)
}
