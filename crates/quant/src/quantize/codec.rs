//! Numbers to codes: nearest, ties to the even code, the largest at the ends.

pub use burn_omni_ops::packed::encode_e4m3;

/// The largest E2M1 magnitude.
pub(super) const E2M1_MAX: f32 = 6.0;
/// The largest E4M3 magnitude.
pub(super) const E4M3_MAX: f32 = 448.0;
/// The largest magnitude of a value with a scale, before it is multiplied with the tensor scale.
pub(crate) const RANGE: f32 = E2M1_MAX * E4M3_MAX;

/// The E2M1 code of a number: 0 to 7 for its magnitude, and 8 more when it is negative, also when it rounds to zero.
/// NaN has code 0.
#[must_use]
#[inline]
pub fn encode_e2m1(number: f32) -> u8 {
    magnitude(number.abs()) as u8 | u8::from(number < 0.0) << 3
}

/// Number of thresholds below a magnitude. A tie belongs to the even code, so every other threshold counts itself.
#[inline]
fn magnitude(magnitude: f32) -> u32 {
    u32::from(magnitude > 0.25)
        + u32::from(magnitude >= 0.75)
        + u32::from(magnitude > 1.25)
        + u32::from(magnitude >= 1.75)
        + u32::from(magnitude > 2.5)
        + u32::from(magnitude >= 3.5)
        + u32::from(magnitude > 5.0)
}

/// The E2M1 codes of a block divided by `divisor`, the even one of two in the low half of its byte.
///
/// # Shapes
/// - values: `2 * BYTES`
#[inline]
pub(super) fn encode_block<const BYTES: usize>(values: &[f32], divisor: f32) -> [u8; BYTES] {
    let (pairs, _) = values.as_chunks::<2>();
    // First whole words of one shape, which the compiler takes several at a time, then bytes.
    let mut codes = [[0_u32; 2]; BYTES];
    for (codes, pair) in codes
        .as_flattened_mut()
        .iter_mut()
        .zip(pairs.as_flattened())
    {
        let number = pair / divisor;
        *codes = magnitude(number.abs()) | u32::from(number < 0.0) << 3;
    }
    codes.map(|[low, high]| (low | high << 4) as u8)
}

/// The largest magnitude; NaN or infinite when a value is.
#[inline]
pub(super) fn amax(values: &[f32]) -> f32 {
    // Magnitudes are ordered as their bits are, and integers have no order of evaluation.
    let bits = |value: &f32| value.to_bits() as i32 & i32::MAX;
    f32::from_bits(values.iter().map(bits).fold(0, i32::max) as u32)
}
