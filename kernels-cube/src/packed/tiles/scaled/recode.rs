//! From the words of tiles to the codes and scale bytes that the instruction takes.

use cubecl::prelude::*;

/// The column, of eight, whose code is in each nibble of a word. Rows of activations have the same order, so that the
/// sum over the columns is the same.
pub(super) const fn column(nibble: usize) -> usize {
    const ORDER: [usize; 8] = [2, 0, 6, 4, 3, 1, 7, 5];
    ORDER[nibble]
}

/// The codes of a tile's row `g`, eight columns, from the two stored words that have them: what `values0` and `values2`
/// decode, moved to nibbles.
#[cube]
pub(super) fn upper(first: u32, second: u32) -> u32 {
    let x = first ^ (first >> 8u32);
    let y = second ^ (second >> 8u32);
    let magnitudes = (first & 0x0007_0007u32)
        | ((x >> 2u32) & 0x0070_0070u32)
        | ((second << 8u32) & 0x0700_0700u32)
        | ((y << 6u32) & 0x7000_7000u32);
    let signs = ((first >> 6u32) & 0x0008_0008u32)
        | ((x >> 8u32) & 0x0080_0080u32)
        | ((second << 2u32) & 0x0800_0800u32)
        | (y & 0x8000_8000u32);
    magnitudes | signs
}

/// The same of row `g + 8`: what `values1` and `values3` decode.
#[cube]
#[allow(clippy::manual_rotate, reason = "kernels have shifts alone")]
pub(super) fn lower(first: u32, second: u32) -> u32 {
    let magnitudes = (((first << 6u32) | (first >> 26u32)) & 0x0007_0007u32)
        | (first & 0x0070_0070u32)
        | (((second << 14u32) | (second >> 18u32)) & 0x0700_0700u32)
        | ((second << 8u32) & 0x7000_7000u32);
    let signs = (first & 0x0008_0008u32)
        | ((first >> 6u32) & 0x0080_0080u32)
        | ((second << 8u32) & 0x0800_0800u32)
        | ((second << 2u32) & 0x8000_8000u32);
    magnitudes | signs
}

/// Four bytes of five exponent bits, as tiles have them, as E4M3. Every byte that tiles have is one that was widened, so
/// this is exact; 0 stays 0.
#[cube]
pub(super) fn narrow(word: u32) -> u32 {
    // A byte of 32 or more is normal in E4M3, whose exponents are smaller by three.
    let is_normal = ((word + 0x6060_6060u32) & 0x8080_8080u32) >> 7u32;
    let normal = is_normal * 0xFFu32;
    // Below, exponents 1 to 3 with up to two bits of mantissa are 1 to 7 times the smallest number.
    let (a, b, c, d) = (word >> 4u32, word >> 3u32, word >> 2u32, word >> 1u32);
    let ones = ((b & (d | (a ^ 0xFFFF_FFFFu32))) | (a & c & (b ^ 0xFFFF_FFFFu32))) & 0x0101_0101u32;
    let twos = (a & (c | (b ^ 0xFFFF_FFFFu32))) & 0x0101_0101u32;
    let fours = (a & b) & 0x0101_0101u32;
    let small = ones | (twos << 1u32) | (fours << 2u32);
    let large = (word & normal) - (0x1818_1818u32 & normal);
    large | (small & (normal ^ 0xFFFF_FFFFu32))
}

/// Byte `byte` of each of four words.
#[cube]
pub(super) fn gather(word0: u32, word1: u32, word2: u32, word3: u32, byte: u32) -> u32 {
    let shift = byte * 8u32;
    ((word0 >> shift) & 0xFFu32)
        | (((word1 >> shift) & 0xFFu32) << 8u32)
        | (((word2 >> shift) & 0xFFu32) << 16u32)
        | ((word3 >> shift) << 24u32)
}
