//! MXFP4: E2M1 codes in blocks of 32 along the width, a power of two a block.

use burn_omni_ops::PackedFormat;
use burn_omni_ops::packed::e8m0;

use super::codec::{E2M1_MAX, amax, encode_block};
use super::encoded::encode_rows;
use super::{Encoded, Matrix};

/// The smallest power of two, as an E8M0 byte, with which a block of this largest magnitude does not saturate:
/// `2^ceil(log2(amax / 6))`, as nvidia-modelopt has it.
fn block_scale(amax: f32) -> u8 {
    /// Bits of an f32 mantissa.
    const MANTISSA: u32 = 23;
    let bits = (amax / E2M1_MAX).to_bits();
    let (exponent, mantissa) = (bits >> MANTISSA, bits & ((1 << MANTISSA) - 1));
    // Below the normal numbers the bits count in 2^-149, and the smallest scale is 2^-127.
    let above = if exponent == 0 {
        mantissa > 1 << (MANTISSA - 1)
    } else {
        mantissa > 0
    };
    exponent as u8 + u8::from(above)
}

/// A matrix as MXFP4.
#[must_use]
pub fn mxfp4(matrix: Matrix<'_>) -> Encoded {
    let (codes, scales) = encode_rows::<16>(matrix, |values| {
        let byte = block_scale(amax(values));
        (encode_block(values, e8m0(byte)), byte)
    });
    Encoded {
        format: PackedFormat::MXFP4,
        rows: matrix.rows(),
        width: matrix.width(),
        codes,
        scales,
        tensor_scale: None,
        gain: 1.0,
    }
}
