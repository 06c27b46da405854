//! Random weights made where they are used, and copies: for figures without a checkpoint.

use cubecl::prelude::*;

use crate::{Buffer, grid};

/// Codes in a word.
const CODES: usize = 8;
/// Units of a cube that copies, and vectors of each.
const COPY_UNITS: usize = 256;
const COPY_VECTORS: usize = 4;
/// Copies are of multiples of this many words.
pub const COPY_WORDS: usize = 4 * COPY_VECTORS * COPY_UNITS;

/// What random words are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// Which of many streams.
    pub seed: u32,
    /// Words of a row.
    pub row: usize,
    /// 4-bit codes of a row; those behind them are zero.
    pub width: usize,
    /// The bits that are random.
    pub random: u32,
    /// What is added to them.
    pub base: u32,
}

/// Fills words.
pub fn draw_words(client: &Client, words: &Buffer, len: usize, drawn: Drawn) {
    let (count, dim) = grid::flat(len);
    words_kernel::launch(
        client,
        count,
        dim,
        words.arg(),
        len,
        drawn.seed,
        drawn.row,
        drawn.width,
        drawn.random,
        drawn.base,
    );
}

/// Fills floats with odd multiples of 2^-13 below 2^-5, which bf16 holds.
pub fn draw_floats(client: &Client, floats: &Buffer, len: usize, seed: u32) {
    let (count, dim) = grid::flat(len);
    floats_kernel::launch(client, count, dim, floats.arg(), len, seed, floats.elem);
}

/// Copies words.
///
/// # Panics
/// When their number is not a multiple of [`COPY_WORDS`].
#[expect(unsafe_code, reason = "bounds checks would cost bandwidth")]
pub fn copy(client: &Client, from: &Buffer, to: &Buffer) {
    assert!(from.len() == to.len() && to.len().is_multiple_of(COPY_WORDS));
    let cubes = to.len() / COPY_WORDS;
    // SAFETY: cubes beyond the words return.
    unsafe {
        copy_kernel::launch_unchecked(
            client,
            grid::cubes(cubes),
            CubeDim::new_1d(COPY_UNITS as u32),
            from.vectors(4),
            to.vectors(4),
        );
    }
}

#[cube]
fn hash(index: u32, seed: u32) -> u32 {
    let mut h = index * 0x9E37_79B1u32 + seed;
    h = (h ^ (h >> 15u32)) * 0x85EB_CA77u32;
    h = (h ^ (h >> 13u32)) * 0xC2B2_AE3Du32;
    h ^ (h >> 16u32)
}

#[cube(launch)]
fn words_kernel(
    words: &mut [u32],
    len: usize,
    seed: u32,
    row: usize,
    width: usize,
    random: u32,
    base: u32,
) {
    if ABSOLUTE_POS < len {
        let mut word = (hash(ABSOLUTE_POS as u32, seed) & random) + base;
        let column = ABSOLUTE_POS % row * CODES;
        if column >= width {
            word = 0u32;
        } else if column + CODES > width {
            word &= (1u32 << ((width - column) as u32 * 4u32)) - 1u32;
        }
        words[ABSOLUTE_POS] = word;
    }
}

#[cube(launch)]
fn floats_kernel<X: Float>(x: &mut [X], len: usize, seed: u32, #[define(X)] _elem: ElemType) {
    if ABSOLUTE_POS < len {
        let step = (hash(ABSOLUTE_POS as u32, seed) >> 24u32) * 2u32;
        x[ABSOLUTE_POS] = X::cast_from((f32::cast_from(step) - 255.0f32) * 0.000_122_070_31f32);
    }
}

#[cube(launch_unchecked)]
fn copy_kernel(from: &[Vector<u32, Const<4>>], to: &mut [Vector<u32, Const<4>>]) {
    let cube = ABSOLUTE_POS / COPY_UNITS;
    let start = cube * comptime!(COPY_UNITS * COPY_VECTORS) + ABSOLUTE_POS % COPY_UNITS;
    if start < to.len() {
        let mut kept = Array::<Vector<u32, Const<4>>>::new(COPY_VECTORS);
        #[unroll]
        for i in 0..COPY_VECTORS {
            kept[i] = from[start + i * COPY_UNITS];
        }
        #[unroll]
        for i in 0..COPY_VECTORS {
            to[start + i * COPY_UNITS] = kept[i];
        }
    }
}
