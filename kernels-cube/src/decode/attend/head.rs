//! A head of the token: normed, rotated, and in the forms that it is multiplied and kept in.

use cubecl::prelude::*;

use super::HEAD;
use crate::decode::pack_bf16;
use crate::e4m3::byte_of;
use crate::matrix_units::{high, low};
use crate::plane::plane_total;

type N4 = Const<4>;
type N2 = Const<2>;

/// A head divided by its root mean square, times `norm`, rotated by the angles of its position. A lane has four numbers.
#[cube]
pub(super) fn rotated(
    head: Vector<f32, N4>,
    norm: Vector<f32, N4>,
    cos: Vector<f32, N4>,
    sin: Vector<f32, N4>,
    eps: f32,
) -> Vector<f32, N4> {
    let lane = UNIT_POS_X;
    let squares = head * head;
    let mut sum = 0.0f32;
    #[unroll]
    for i in 0..4usize {
        sum += squares.extract(i);
    }
    let scale = (plane_total(sum, 32usize) * comptime!(1.0 / HEAD as f32) + eps).inverse_sqrt();
    let mut result = Vector::<f32, N4>::new(0.0f32);
    #[unroll]
    for i in 0..4usize {
        let value = head.extract(i) * scale * norm.extract(i);
        let other = plane_shuffle_xor(value, 16u32);
        let other = select(lane < 16u32, -other, other);
        result.insert(i, value * cos.extract(i) + other * sin.extract(i));
    }
    result
}

/// Four numbers rounded to bf16, and what the rounding took away.
#[cube]
pub(super) fn halves(value: Vector<f32, N4>) -> (Vector<u32, N2>, Vector<u32, N2>) {
    let mut words = Array::<u32>::new(4usize);
    #[unroll]
    for i in 0..2usize {
        let first = value.extract(comptime!(i * 2));
        let second = value.extract(comptime!(i * 2 + 1));
        words[i] = pack_bf16(first, second);
        words[comptime!(i + 2)] = pack_bf16(first - low(words[i]), second - high(words[i]));
    }
    let mut hi = Vector::<u32, N2>::new(0u32);
    hi.insert(0usize, words[0]);
    hi.insert(1usize, words[1]);
    let mut lo = Vector::<u32, N2>::new(0u32);
    lo.insert(0usize, words[2]);
    lo.insert(1usize, words[3]);
    (hi, lo)
}

/// Whether one of four numbers is NaN.
#[cube]
pub(super) fn has_nan(numbers: Vector<f32, N4>) -> bool {
    let mut largest = 0u32;
    #[unroll]
    for i in 0..4usize {
        let magnitude = numbers.extract(i).to_bits() & 0x7FFF_FFFFu32;
        largest = select(magnitude > largest, magnitude, largest);
    }
    largest > 0x7F80_0000u32
}

/// A head as the cache has it, of which a lane has four numbers: the vector that this lane's are the first of.
#[cube]
pub(super) fn stored(row: Vector<f32, N4>, #[comptime] e4m3: bool) -> Vector<u32, N4> {
    let mut words = Array::<u32>::new(2usize);
    let mut vector = Vector::<u32, N4>::new(0u32);
    if comptime!(e4m3) {
        words[0] = 0u32;
        #[unroll]
        for i in 0..4usize {
            words[0] |= byte_of(row.extract(i)) << comptime!(i as u32 * 8);
        }
        #[unroll]
        for i in 0..4usize {
            vector.insert(i, plane_shuffle_xor(words[0], comptime!(i as u32)));
        }
    } else {
        words[0] = pack_bf16(row.extract(0usize), row.extract(1usize));
        words[1] = pack_bf16(row.extract(2usize), row.extract(3usize));
        vector.insert(0usize, words[0]);
        vector.insert(1usize, words[1]);
        vector.insert(2usize, plane_shuffle_xor(words[0], 1u32));
        vector.insert(3usize, plane_shuffle_xor(words[1], 1u32));
    }
    vector
}
