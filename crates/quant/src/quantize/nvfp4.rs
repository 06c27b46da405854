//! NVFP4: E2M1 codes in blocks of 16 along the width, an E4M3 scale a block, an f32 scale a tensor.

use burn_omni_ops::PackedFormat;
use burn_omni_ops::packed::e4m3;

use super::codec::{E2M1_MAX, E4M3_MAX, RANGE, amax, encode_block, encode_e4m3};
use super::encoded::encode_rows;
use super::{Encoded, Matrix};

/// Who reads the file: what the tensor scale means and how scales are rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convention {
    /// nvidia-modelopt: the tensor scale `amax / 2688` is a factor. A block of zeros has scale 1.
    ModelOpt,
    /// compressed-tensors: the tensor scale `2688 / amax` is a divisor. A block of zeros has scale 0.125.
    CompressedTensors,
}

/// A block's scale that is as small as E4M3 has it.
const SMALLEST: f32 = 1.0 / 512.0;
/// The scale of blocks of zeros in compressed-tensors.
const ZERO_BLOCK: u8 = 0x20;

impl Convention {
    /// The tensor scale as stored; 1 when there is no usable one, as for a tensor of zeros.
    #[must_use]
    pub fn tensor_scale(self, amax: f32) -> f32 {
        let scale = match self {
            Self::ModelOpt => amax / (RANGE),
            // Rounded twice, because torch divides a number by a tensor in this way.
            Self::CompressedTensors => RANGE * amax.max(f32::MIN_POSITIVE).recip(),
        };
        if scale > 0.0 && scale.is_finite() {
            scale
        } else {
            1.0
        }
    }

    /// The scale byte of a block, and what its values are divided by.
    fn block_scale(self, block_amax: f32, tensor_scale: f32) -> (u8, f32) {
        match self {
            Self::ModelOpt => {
                let scale = block_amax / (E2M1_MAX * tensor_scale);
                let scale = if scale == 0.0 { 1.0 } else { scale };
                let byte = encode_e4m3(scale.clamp(SMALLEST, E4M3_MAX));
                (byte, e4m3(byte) * tensor_scale)
            }
            Self::CompressedTensors => {
                let byte = encode_e4m3(tensor_scale * (block_amax / E2M1_MAX));
                let byte = if byte == 0 { ZERO_BLOCK } else { byte };
                (byte, e4m3(byte) / tensor_scale)
            }
        }
    }

    /// What every value is multiplied with, besides the block's scale.
    fn gain(self, tensor_scale: f32) -> f32 {
        match self {
            Self::ModelOpt => tensor_scale,
            Self::CompressedTensors => 1.0 / tensor_scale,
        }
    }
}

/// A matrix as NVFP4. `amax` is the largest magnitude of the matrix, or of all matrices that share a tensor scale.
#[must_use]
pub fn nvfp4(matrix: Matrix<'_>, amax_of_all: f32, convention: Convention) -> Encoded {
    let tensor_scale = convention.tensor_scale(amax_of_all);
    let (codes, scales) = encode_rows::<8>(matrix, |values| {
        let (byte, divisor) = convention.block_scale(amax(values), tensor_scale);
        (encode_block(values, divisor), byte)
    });
    Encoded {
        format: PackedFormat::NVFP4,
        rows: matrix.rows(),
        width: matrix.width(),
        codes,
        scales,
        tensor_scale: Some(tensor_scale),
        gain: convention.gain(tensor_scale),
    }
}
