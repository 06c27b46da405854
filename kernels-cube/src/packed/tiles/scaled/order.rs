//! Which lane multiplies what: kernels and the emulation in the tests ask here.
//!
//! A product is **step** by step, 64 columns each; two steps are a **chunk**. With `g = lane / 4` and `t = lane % 4`, the
//! instruction has in registers 0 and 1 of its first operand, and 0 of its second, columns `8 t .. + 8` of a step, and
//! in the others columns `32 + 8 t .. + 8`: two **halves**. Rows are `g` and `g + 8`, columns of the result `g`.

use cubecl::prelude::*;

use crate::packed::tiles::Scaled;

/// Columns of one product.
pub(super) const STEP: usize = 64;
/// Columns of two products.
pub(super) const CHUNK: usize = 128;

/// The chunks of a pair of spans, which has `128 * chunks` pairs of words and eight vectors of scales a tile.
pub(super) const fn chunks(scaled: Scaled) -> usize {
    scaled.block / 16
}

/// Which pair of words of a tile has a lane's codes of one half of a step, both rows.
///
/// A block of 16 lies with one lane of the tile, and the instruction wants it with two; a block of 32 lies with one lane
/// in two chunks of the tile, and is wanted with four. So lanes read one another's words, never a byte twice.
#[cube]
pub(super) fn code_pair(
    chunk: usize,
    #[comptime] step: usize,
    #[comptime] half: usize,
    lane: usize,
    #[comptime] scaled: Scaled,
) -> usize {
    let (g, t) = (lane / 4usize, lane % 4usize);
    if comptime!(scaled.block == 16) {
        (chunk * 2usize + step) * 64usize + g * 8usize + comptime!(half * 4) + t
    } else {
        (chunk * 2usize + t / 2usize) * 64usize
            + g * 8usize
            + comptime!(step * 4 + half * 2)
            + t % 2usize
    }
}

/// Which vector of four words of a tile's scales a lane gathers its scales of a chunk from.
#[cube]
pub(super) fn scale_vector(chunk: usize, lane: usize, #[comptime] scaled: Scaled) -> usize {
    if comptime!(scaled.block == 16) {
        chunk * 8usize + lane / 4usize
    } else {
        chunk / 2usize * 8usize + lane / 4usize
    }
}

/// Which byte of each of these words it takes. The instruction has the scales of row `g` from an even lane and those of
/// row `g + 8` from the odd lane behind it. Of NVFP4, lanes 0 and 1 of four hold those of the first step and lanes 2 and
/// 3 those of the second; of MXFP4, all hold those of both.
#[cube]
pub(super) fn scale_byte(chunk: usize, lane: usize, #[comptime] scaled: Scaled) -> usize {
    if comptime!(scaled.block == 16) {
        lane % 4usize
    } else {
        chunk % 2usize * 2usize + lane % 2usize
    }
}

/// The `thread-id-a` of a step: which two lanes of four the scales come from.
pub(super) const fn scale_thread(step: usize, scaled: Scaled) -> u32 {
    if scaled.block == 16 { step as u32 } else { 0 }
}

/// Which word of a row of activations has the codes of columns `64 step + 32 half + 8 t .. + 8`: a lane finds those of
/// a chunk side by side.
#[cube]
pub(super) fn activation_word(step: usize, half: usize, t: usize) -> usize {
    step / 2usize * 16usize + t * 4usize + step % 2usize * 2usize + half
}
