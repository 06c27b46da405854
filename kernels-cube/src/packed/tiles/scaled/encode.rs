//! Numbers to codes: nearest, ties to the even code, as in the encoders of checkpoints.

use cubecl::prelude::*;

/// The E2M1 code of a number. NaN has code 0.
#[cube]
pub(super) fn code_of(number: f32) -> u32 {
    let magnitude = number.abs();
    let code = select(magnitude > 0.25f32, 1u32, 0u32)
        + select(magnitude >= 0.75f32, 1u32, 0u32)
        + select(magnitude > 1.25f32, 1u32, 0u32)
        + select(magnitude >= 1.75f32, 1u32, 0u32)
        + select(magnitude > 2.5f32, 1u32, 0u32)
        + select(magnitude >= 3.5f32, 1u32, 0u32)
        + select(magnitude > 5.0f32, 1u32, 0u32);
    code + select(number < 0.0f32, 8u32, 0u32)
}

/// The byte of the smallest power of two with which a block of this largest magnitude does not exceed 6; 255, NaN, where
/// that is not finite.
#[cube]
pub(super) fn e8m0_of(largest: f32) -> u32 {
    let bits = (largest / 6.0f32).to_bits();
    let exponent = bits >> 23u32;
    let mantissa = bits & 0x007F_FFFFu32;
    // Below the normal numbers the bits count in 2^-149, and the smallest scale is 2^-127.
    let smallest = select(exponent == 0u32, 0x0040_0000u32, 0u32);
    let byte = exponent + select(mantissa > smallest, 1u32, 0u32);
    select(byte > 255u32, 255u32, byte)
}
