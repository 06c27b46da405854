//! Numbers of 8 bits: E4M3 has a sign, four bits of an exponent with the bias 7 and three of a mantissa, and no infinities.
//! Four lie in a word, the first in its lowest byte.

use cubecl::ir::FloatKind;
use cubecl::prelude::*;

use crate::Buffer;
use crate::packed::tiles::decode::mul_bf16x2;

/// The type of a buffer's elements.
pub const E4M3: ElemType = ElemType::Float(FloatKind::E4M3);

/// Numbers of a word.
pub(crate) const WORD: usize = 4;

/// Whether a buffer has such elements.
pub(crate) fn are_in(buffer: &Buffer) -> bool {
    buffer.elem == E4M3
}

/// A buffer as kernels read it by [`number`], and the type that they see: words of E4M3, else elements.
pub(crate) fn readable(buffer: &Buffer) -> (BufferArg, ElemType) {
    if are_in(buffer) {
        (buffer.vectors(WORD), u32::elem_type_native())
    } else {
        (buffer.arg(), buffer.elem)
    }
}

/// Number `at` of a buffer.
#[cube]
pub(crate) fn number<K: Numeric>(from: &[K], at: usize, #[comptime] e4m3: bool) -> f32 {
    if comptime!(e4m3) {
        value(u32::cast_from(from[at / WORD]) >> ((at % WORD) as u32 * 8u32))
    } else {
        f32::cast_from(from[at])
    }
}

/// The number in the lowest byte.
#[cube]
pub(crate) fn value(bits: u32) -> f32 {
    let is_nan = (bits & 0x7Fu32) == 0x7Fu32;
    select(is_nan, f32::from_bits(0x7FC0_0000u32), finite(bits))
}

/// The number in the lowest byte, which is not NaN. Subnormal numbers are formed by a product: devices may flush them in
/// f32.
#[cube]
pub(crate) fn finite(bits: u32) -> f32 {
    let magnitude = bits & 0x7Fu32;
    let small = f32::cast_from(magnitude) * 0.001953125f32;
    let large = f32::from_bits((magnitude << 20u32) + comptime!(120u32 << 23));
    let value = select(magnitude < 8u32, small, large);
    select((bits & 0x80u32) != 0u32, -value, value)
}

/// The byte of the nearest number, of two the even one; beyond 448 that of 448, and 0x7F or 0xFF of NaN.
#[cube]
pub(crate) fn byte_of(number: f32) -> u32 {
    let bits = number.to_bits();
    // Magnitudes are ordered as their bits are.
    let magnitude = bits & 0x7FFF_FFFFu32;
    let within = select(magnitude < 0x43E0_0000u32, magnitude, 0x43E0_0000u32);
    let byte = magnitude_of(f32::from_bits(within));
    select(magnitude > 0x7F80_0000u32, 0x7Fu32, byte) | ((bits >> 24u32) & 0x80u32)
}

/// The byte of the number nearest to one that is not negative and not above 448, of two the even one; any byte that is not
/// negative of NaN.
#[cube]
pub(crate) fn magnitude_of(number: f32) -> u32 {
    let bits = select(number < 0.015_625f32, 0.015_625f32, number).to_bits();
    let odd = (bits >> 20u32) & 1u32;
    let normal = ((bits + 0x0007_FFFFu32 + odd) >> 20u32) - 960u32;
    // The last bit of a number near 2^14 is worth 2^-9, as the mantissa of small ones is.
    let small = (number + 16384.0f32).to_bits() - 0x4680_0000u32;
    select(number < 0.015_625f32, small, normal) & 0x7Fu32
}

/// The numbers of a word as bf16: the first and the third, then the second and the fourth. For devices with matrix units;
/// NaN becomes 480.
#[cube]
pub(crate) fn bf16_pairs(word: u32, pairs: &mut Array<u32>) {
    // Exponent and mantissa moved to the places of those of bf16, with a bias that is 120 more: 2^120 makes up for it.
    pairs[0] = ((word << 8u32) & 0x8000_8000u32) | ((word << 4u32) & 0x07F0_07F0u32);
    pairs[1] = (word & 0x8000_8000u32) | ((word >> 4u32) & 0x07F0_07F0u32);
    pairs[0] = mul_bf16x2(pairs[0], 0x7B80_7B80u32);
    pairs[1] = mul_bf16x2(pairs[1], 0x7B80_7B80u32);
}
