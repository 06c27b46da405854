//! From stored bits to operands of the matrix units.

use cubecl::prelude::*;

use super::Scaled;
use crate::e4m3::finite;
use crate::matrix_units::{Instructions, low};

type N4 = Const<4>;

/// What undoes the scaling of decoded 4-bit values that scales were multiplied into: 2^126 / 2^112.
pub(crate) const RESTORE: f32 = 16384.0;
/// The same of 8-bit values: 2^120 / 2^112.
pub(crate) const RESTORE_BYTES: f32 = 256.0;

/// What [`values0`] to [`values3`], or [`bytes0`] and [`bytes1`], leave of a word: the bits of two values.
pub(crate) const fn mask_of(of: Scaled) -> u32 {
    if of.bytes { MASK_OF_BYTES } else { MASK }
}

/// The same of codes of 4 bits.
pub(crate) const MASK: u32 = 0x81C0_81C0;
/// The same of codes of 8 bits.
pub(crate) const MASK_OF_BYTES: u32 = 0x87F0_87F0;

/// Values 0 and 1 of a word: row `g`, its first two columns.
#[cube]
pub(crate) fn values0(word: u32, mask: u32) -> u32 {
    (word ^ (word >> 8u32)) & mask
}

/// Values 2 and 3: row `g + 8`, the same columns.
#[cube]
pub(crate) fn values1(word: u32, mask: u32) -> u32 {
    (word << 2u32) & mask
}

/// Values 4 and 5: row `g`, the other two columns.
#[cube]
pub(crate) fn values2(word: u32, mask: u32) -> u32 {
    (word << 6u32) & mask
}

/// Values 6 and 7: row `g + 8`, the same columns.
#[cube]
#[allow(clippy::manual_rotate, reason = "kernels have shifts alone")]
pub(crate) fn values3(word: u32, mask: u32) -> u32 {
    ((word << 12u32) | (word >> 20u32)) & mask
}

/// Values 0 and 1 of a word of 8-bit codes: its first two columns.
#[cube]
pub(crate) fn bytes0(word: u32, mask: u32) -> u32 {
    word & mask
}

/// Values 2 and 3: the other two columns.
#[cube]
pub(crate) fn bytes1(word: u32, mask: u32) -> u32 {
    ((word << 4u32) ^ (word >> 4u32)) & mask
}

/// The bits of a stored word that each bit of the codes turns over, from the first code's lowest to the last one's sign: of
/// eight codes of 4 bits, or of four of 8.
///
/// The inverse, over GF(2), of [`values0`] to [`values3`] taken together, or of [`bytes0`] and [`bytes1`].
#[must_use]
pub(crate) fn columns(bytes: bool) -> [u32; 32] {
    let inside = |b: i32| {
        u32::try_from(b)
            .ok()
            .filter(|b| *b < 32)
            .map_or(0, |b| 1 << b)
    };
    // The bits of the word that make bit `b` of each pair of values.
    let source = |pair: usize, b: i32| match (bytes, pair) {
        (false, 0) => inside(b) ^ inside(b + 8),
        (false, 1) => inside(b - 2),
        (false, 2) => inside(b - 6),
        (false, _) => inside((b + 20) % 32),
        (true, 0) => inside(b),
        (true, _) => inside(b - 4) ^ inside(b + 4),
    };
    let (pairs, bits) = if bytes {
        (2, [4, 5, 6, 7, 8, 9, 10, 15].as_slice())
    } else {
        (4, [6, 7, 8, 15].as_slice())
    };
    let mut rows: Vec<(u32, u32)> = Vec::with_capacity(32);
    for pair in 0..pairs {
        for half in 0..2 {
            for b in bits {
                rows.push((source(pair, b + 16 * half), 1 << rows.len()));
            }
        }
    }
    for column in 0..32 {
        let pivot = (column..32)
            .find(|row| rows[*row].0 >> column & 1 == 1)
            .expect("the shifts can be inverted");
        rows.swap(column, pivot);
        let (bits, from) = rows[column];
        for (number, row) in rows.iter_mut().enumerate() {
            if number != column && row.0 >> column & 1 == 1 {
                row.0 ^= bits;
                row.1 ^= from;
            }
        }
    }
    let mut columns = [0; 32];
    for (stored, (_, from)) in rows.iter().enumerate() {
        for (wanted, column) in columns.iter_mut().enumerate() {
            *column |= (from >> wanted & 1) << stored;
        }
    }
    columns
}

/// Byte `index` of a word of scales, times 2^112, as bf16 in both halves of a word; where values are not scaled, 2^112:
/// sums of smaller numbers would be subnormal where activations are small.
#[cube]
pub(crate) fn scale_bf16(word: u32, #[comptime] index: usize, #[comptime] scaled: Scaled) -> u32 {
    if comptime!(!scaled.in_values()) {
        comptime!((239u32 << 7) * 0x0001_0001).runtime()
    } else if comptime!(scaled.e8m0()) {
        scale_byte(word, index) * 0x0080_0080u32 + comptime!((112u32 << 7) * 0x0001_0001)
    } else {
        scale_byte(word, index) * 0x0010_0010u32 + comptime!((229u32 << 7) * 0x0001_0001)
    }
}

#[cube]
fn scale_byte(word: u32, #[comptime] index: usize) -> u32 {
    if comptime!(index == 3) {
        word >> 24u32
    } else {
        (word >> comptime!(index as u32 * 8)) & 0xFFu32
    }
}

/// Both bf16 halves of `a` times those of `b`. The result is to be kept in an array: given on to another instruction as
/// it is, it would be passed as its address.
#[cube]
pub(crate) fn mul_bf16x2(a: u32, b: u32) -> u32 {
    let d: u32;
    gpu_asm!(
        "fma.rn.bf16x2 {d}, {a}, {b}, {c};",
        d = out(_) d, a = in(_) a, b = in(_) b, c = in(_) 0x8000_8000u32, options(pure, nomem),
    );
    d
}

/// A part of a vector of codes, by its [`mask_of`], as the first operand of a product, times the scales of rows `g` and
/// `g + 8`: of codes of 4 bits a word is a part, of codes of 8 bits two.
#[cube]
pub(crate) fn operand(
    codes: Vector<u32, N4>,
    lo: u32,
    hi: u32,
    mask: u32,
    #[comptime] part: usize,
    #[comptime] of: Scaled,
    #[comptime] instructions: Instructions,
) -> Vector<u32, N4> {
    let mut four = Vector::<u32, N4>::empty();
    if comptime!(of.bytes) {
        let upper = codes.extract(comptime!(part * 2));
        let lower = codes.extract(comptime!(part * 2 + 1));
        four.insert(0usize, scaled(bytes0(upper, mask), lo, of, instructions));
        four.insert(1usize, scaled(bytes0(lower, mask), hi, of, instructions));
        four.insert(2usize, scaled(bytes1(upper, mask), lo, of, instructions));
        four.insert(3usize, scaled(bytes1(lower, mask), hi, of, instructions));
    } else {
        let word = codes.extract(part);
        four.insert(0usize, scaled(values0(word, mask), lo, of, instructions));
        four.insert(1usize, scaled(values1(word, mask), hi, of, instructions));
        four.insert(2usize, scaled(values2(word, mask), lo, of, instructions));
        four.insert(3usize, scaled(values3(word, mask), hi, of, instructions));
    }
    four
}

/// Two decoded values times a scale that [`scale_bf16`] gave: with [`mul_bf16x2`], or in plain code, which takes no subnormal
/// number for what it is.
#[cube]
pub(crate) fn scaled(
    values: u32,
    scale: u32,
    #[comptime] of: Scaled,
    #[comptime] instructions: Instructions,
) -> u32 {
    if comptime!(instructions == Instructions::Plain) {
        let first = plain(values & 0xFFFFu32, scale, of);
        let second = plain(values >> 16u32, scale, of);
        first | (second << 16u32)
    } else {
        mul_bf16x2(values, scale)
    }
}

/// The bits of a decoded value times a scale.
#[cube]
fn plain(bits: u32, scale: u32, #[comptime] of: Scaled) -> u32 {
    let value = if comptime!(of.bytes) {
        byte_of(bits)
    } else {
        code_of(bits)
    };
    // 2^-112, and what is left for `restore` to undo.
    let scale = low(scale) * comptime!(f32::from_bits(15 << 23)).runtime();
    (value * comptime!(1.0 / of.restore()).runtime() * scale).to_bits() >> 16u32
}

/// The number of a decoded 8-bit value.
#[cube]
pub(crate) fn byte_of(bits: u32) -> f32 {
    finite(((bits >> 8u32) & 0x80u32) | ((bits >> 4u32) & 0x7Fu32))
}

/// The number of a decoded 4-bit value.
#[cube]
pub(crate) fn code_of(bits: u32) -> f32 {
    let magnitude = (bits >> 6u32) & 7u32;
    let large = f32::from_bits((magnitude << 22u32) + 0x3F00_0000u32);
    let value = select(magnitude < 2u32, f32::cast_from(magnitude) * 0.5f32, large);
    select(bits >= 0x8000u32, -value, value)
}

/// `c` plus 16 rows x 16 columns of bf16 times 16 x 8.
#[cube]
pub(crate) fn mma(
    a0: u32,
    a1: u32,
    a2: u32,
    a3: u32,
    b0: u32,
    b1: u32,
    c: Vector<f32, N4>,
) -> Vector<f32, N4> {
    // A mutable vector handed to `in(_)` would be passed as its address: its components are.
    let c0 = c.extract(0usize);
    let c1 = c.extract(1usize);
    let c2 = c.extract(2usize);
    let c3 = c.extract(3usize);
    let d: Vector<f32, N4>;
    gpu_asm!(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {d}, {{{a0}, {a1}, {a2}, {a3}}}, {{{b0}, {b1}}}, {{{c0}, {c1}, {c2}, {c3}}};",
        a0 = in(_) a0, a1 = in(_) a1, a2 = in(_) a2, a3 = in(_) a3, b0 = in(_) b0, b1 = in(_) b1,
        c0 = in(_) c0, c1 = in(_) c1, c2 = in(_) c2, c3 = in(_) c3, d = out(_) d, options(pure, nomem),
    );
    d
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stored word of four codes of 8 bits.
    fn stored(codes: [u32; 4]) -> u32 {
        let table = columns(true);
        let set = (0..32).filter(|bit| codes[bit / 8] >> (bit % 8) & 1 == 1);
        set.fold(0, |word, bit| word ^ table[bit])
    }

    #[test]
    fn every_byte_at_every_place_comes_back() {
        let mut state = 1_u32;
        let mut other = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 24
        };
        for place in 0..4 {
            for code in 0..256 {
                let mut codes = [0; 4].map(|_| other());
                codes[place] = code;
                let word = stored(codes);
                let pairs = [bytes0(word, MASK_OF_BYTES), bytes1(word, MASK_OF_BYTES)];
                for (at, code) in codes.into_iter().enumerate() {
                    let bits = pairs[at / 2] >> (at % 2 * 16) & 0xFFFF;
                    assert_eq!(bits, (code & 0x80) << 8 | (code & 0x7F) << 4);
                }
            }
        }
    }
}
