//! What a stored code or scale byte stands for.

/// Magnitudes of the codes 0 to 7 of E2M1; code 8 + n is the negative of code n.
pub const E2M1: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

/// The values of bitsandbytes' `nf4` codes.
pub const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Magnitudes of the codes 0 to 7 of bitsandbytes' `fp4`; code 8 + n is the negative of code n.
pub const FP4: [f32; 8] = [
    0.0,
    1.0 / 192.0,
    2.0 / 3.0,
    1.0,
    1.0 / 3.0,
    1.0 / 2.0,
    1.0 / 6.0,
    1.0 / 4.0,
];

/// The value of an E4M3 byte: bias 7, no infinity, NaN at `0x7F` and `0xFF`.
#[must_use]
pub const fn e4m3(byte: u8) -> f32 {
    const SMALLEST: f32 = 1.0 / 512.0;
    let (exponent, mantissa) = ((byte >> 3 & 15) as u32, (byte & 7) as u32);
    let magnitude = if byte & 0x7F == 0x7F {
        f32::NAN
    } else if exponent == 0 {
        mantissa as f32 * SMALLEST
    } else {
        f32::from_bits((exponent + 120) << 23 | mantissa << 20)
    };
    if byte & 0x80 == 0 {
        magnitude
    } else {
        -magnitude
    }
}

/// The E4M3 byte of a number; beyond ±448 it is that of ±448. NaN has byte `0x7F`.
#[must_use]
#[inline]
pub fn encode_e4m3(number: f32) -> u8 {
    /// The largest magnitude.
    const LARGEST: f32 = 448.0;
    /// The smallest normal magnitude.
    const NORMAL: f32 = 1.0 / 64.0;
    /// A number whose last bit is worth 2^-9, as the mantissa of subnormal magnitudes is.
    const SUBNORMAL_GRID: f32 = 16_384.0;
    /// Bits of an f32 mantissa that E4M3 has not.
    const DROPPED: u32 = 20;
    /// Difference of the two exponent biases.
    const BIAS: u32 = 120;
    if number.is_nan() {
        return 0x7F;
    }
    let magnitude = number.abs().min(LARGEST);
    let code = if magnitude < NORMAL {
        (magnitude + SUBNORMAL_GRID).to_bits() - SUBNORMAL_GRID.to_bits()
    } else {
        let bits = magnitude.to_bits();
        let odd = bits >> DROPPED & 1;
        ((bits + (1 << (DROPPED - 1)) - 1 + odd) >> DROPPED) - (BIAS << 3)
    };
    code as u8 | u8::from(number.is_sign_negative()) << 7
}

/// The value of an E8M0 byte: `2^(byte - 127)`, NaN at `0xFF`.
#[must_use]
pub const fn e8m0(byte: u8) -> f32 {
    match byte {
        0xFF => f32::NAN,
        0 => f32::from_bits(1 << 22), // 2^-127, subnormal
        byte => f32::from_bits((byte as u32) << 23),
    }
}
