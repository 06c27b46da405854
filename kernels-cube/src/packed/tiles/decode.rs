//! From stored bits to operands of the matrix units.

use cubecl::prelude::*;

type N4 = Const<4>;

/// What undoes the scaling of decoded values that scales were multiplied into: 2^126 / 2^112.
pub(crate) const RESTORE: f32 = 16384.0;

/// Values 0 and 1 of a word: row `g`, its first two columns.
#[cube]
pub(crate) fn values0(word: u32) -> u32 {
    (word ^ (word >> 8u32)) & 0x81C0_81C0u32
}

/// Values 2 and 3: row `g + 8`, the same columns.
#[cube]
pub(crate) fn values1(word: u32) -> u32 {
    (word << 2u32) & 0x81C0_81C0u32
}

/// Values 4 and 5: row `g`, the other two columns.
#[cube]
pub(crate) fn values2(word: u32) -> u32 {
    (word << 6u32) & 0x81C0_81C0u32
}

/// Values 6 and 7: row `g + 8`, the same columns.
#[cube]
#[allow(clippy::manual_rotate, reason = "kernels have shifts alone")]
pub(crate) fn values3(word: u32) -> u32 {
    ((word << 12u32) | (word >> 20u32)) & 0x81C0_81C0u32
}

/// The bits of a stored word that each bit of the eight codes turns over: `[value][bit]`, bit 3 the sign.
///
/// The inverse, over GF(2), of [`values0`] to [`values3`] taken together.
#[must_use]
pub(crate) fn columns() -> [[u32; 4]; 8] {
    let bit = |b: u32| 1_u32 << (b % 32);
    let inside = |b: i32| u32::try_from(b).ok().filter(|b| *b < 32).map_or(0, bit);
    // The bits of the word that make bit `b` of each pair of values.
    let source = |pair: usize, b: i32| match pair {
        0 => inside(b) ^ inside(b + 8),
        1 => inside(b - 2),
        2 => inside(b - 6),
        _ => bit((b + 20) as u32),
    };
    let mut rows: Vec<(u32, u32)> = Vec::with_capacity(32);
    for pair in 0..4 {
        for half in 0..2 {
            for b in [6, 7, 8, 15] {
                rows.push((source(pair, b + 16 * half), 1 << rows.len()));
            }
        }
    }
    for column in 0..32 {
        let pivot = (column..32)
            .find(|row| rows[*row].0 >> column & 1 == 1)
            .expect("the four shifts can be inverted");
        rows.swap(column, pivot);
        let (bits, from) = rows[column];
        for (number, row) in rows.iter_mut().enumerate() {
            if number != column && row.0 >> column & 1 == 1 {
                row.0 ^= bits;
                row.1 ^= from;
            }
        }
    }
    let mut columns = [[0; 4]; 8];
    for (stored, (_, from)) in rows.iter().enumerate() {
        for wanted in 0..32 {
            if from >> wanted & 1 == 1 {
                columns[wanted / 4][wanted % 4] |= 1 << stored;
            }
        }
    }
    columns
}

/// Byte `index` of a word of scales, times 2^112, as bf16 in both halves of a word.
#[cube]
pub(crate) fn scale_bf16(word: u32, #[comptime] index: usize, #[comptime] e8m0: bool) -> u32 {
    let byte = scale_byte(word, index);
    if comptime!(e8m0) {
        byte * 0x0080_0080u32 + comptime!((112u32 << 7) * 0x0001_0001)
    } else {
        byte * 0x0010_0010u32 + comptime!((229u32 << 7) * 0x0001_0001)
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
