//! The instruction in others, so that all the rest of these kernels can be checked on devices that lack it.

use cubecl::prelude::*;

use super::order::scale_thread;
use crate::e4m3::finite;
use crate::packed::tiles::Scaled;

type N4 = Const<4>;

/// What the instruction computes, by the fragments of the PTX ISA: every lane asks the others for what
/// its four results need.
#[cube]
#[expect(clippy::too_many_arguments, reason = "the operands of the instruction")]
pub(super) fn emulated(
    a0: u32,
    a1: u32,
    a2: u32,
    a3: u32,
    b0: u32,
    b1: u32,
    c: Vector<f32, N4>,
    a_scale: u32,
    b_scale: u32,
    #[comptime] step: usize,
    #[comptime] scaled: Scaled,
) -> Vector<f32, N4> {
    let lane = UNIT_POS_X;
    let (row, column) = (lane / 4u32 * 4u32, lane % 4u32 * 8u32);
    let thread = comptime!(scale_thread(step, scaled) * 2);
    let upper_scale = plane_shuffle(a_scale, row + thread);
    let lower_scale = plane_shuffle(a_scale, row + comptime!(thread + 1));
    let even_scale = plane_shuffle(b_scale, column);
    let odd_scale = plane_shuffle(b_scale, column + 4u32);
    let mut sums = Array::<f32>::new(4usize);
    #[unroll]
    for i in 0..4usize {
        sums[i] = c.extract(i);
    }
    // Nothing is unrolled: a kernel has many of these.
    for eight in 0..8u32 {
        let (half, t) = (eight / 4u32, eight % 4u32);
        let upper = plane_shuffle(select(half == 0u32, a0, a2), row + t);
        let lower = plane_shuffle(select(half == 0u32, a1, a3), row + t);
        let even = plane_shuffle(select(half == 0u32, b0, b1), column + t);
        let odd = plane_shuffle(select(half == 0u32, b0, b1), column + 4u32 + t);
        let block = eight * 8u32 / comptime!(scaled.block as u32);
        let upper_scale = scale(upper_scale, block, scaled.e8m0());
        let lower_scale = scale(lower_scale, block, scaled.e8m0());
        let even_scale = scale(even_scale, block, scaled.e8m0());
        let odd_scale = scale(odd_scale, block, scaled.e8m0());
        for nibble in 0..8u32 {
            let upper = value(upper, nibble) * upper_scale;
            let lower = value(lower, nibble) * lower_scale;
            let even = value(even, nibble) * even_scale;
            let odd = value(odd, nibble) * odd_scale;
            sums[0] += upper * even;
            sums[1] += upper * odd;
            sums[2] += lower * even;
            sums[3] += lower * odd;
        }
    }
    let mut d = Vector::<f32, N4>::new(0.0f32);
    #[unroll]
    for i in 0..4usize {
        d.insert(i, sums[i]);
    }
    d
}

#[cube]
fn value(word: u32, nibble: u32) -> f32 {
    let code = (word >> (nibble * 4u32)) & 15u32;
    let magnitude = code & 7u32;
    let large = f32::from_bits((magnitude << 22u32) + 0x3F00_0000u32);
    let value = select(magnitude < 2u32, f32::cast_from(magnitude) * 0.5f32, large);
    select(code >= 8u32, -value, value)
}

#[cube]
fn scale(word: u32, block: u32, #[comptime] e8m0: bool) -> f32 {
    let byte = (word >> (block * 8u32)) & 0xFFu32;
    if comptime!(e8m0) {
        f32::from_bits(byte << 23u32)
    } else {
        finite(byte)
    }
}
