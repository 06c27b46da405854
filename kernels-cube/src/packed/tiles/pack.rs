//! Between the order of a checkpoint and tiles.

use cubecl::prelude::*;

use super::super::{COLUMNS, Scaling, Shape};
use super::decode::{
    MASK, MASK_OF_BYTES, byte_of, bytes0, bytes1, code_of, columns, values0, values1, values2,
    values3,
};
use super::{BLOCKS, ROWS, Scaled, Tiling};
use crate::Buffer;
use crate::grid::flat;

/// What a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Form {
    scaled: Scaled,
    gated: bool,
}

impl Form {
    const fn new(tiling: Tiling, shape: Shape) -> Self {
        Self {
            scaled: tiling.scaled,
            gated: shape.gated,
        }
    }
}

/// The sizes of a matrix.
#[derive(CubeType)]
struct Sizes {
    /// Tiles below one another, and pairs of spans side by side.
    tiles: usize,
    pairs: usize,
    rows: usize,
    width: usize,
}

/// Puts codes and scales of matrices in rows into tiles.
///
/// - codes, scales: words in checkpoint order, rows of a multiple of [`COLUMNS`] columns
/// - tiled_codes, tiled_scales: [`Tiling::code_words`] and [`Tiling::scale_words`] words; without scales the second is
///   not written
#[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
pub fn pack(
    client: &Client,
    [codes, scales]: [&Buffer; 2],
    [tiled_codes, tiled_scales]: [&Buffer; 2],
    tiling: Tiling,
    shape: Shape,
) {
    let table = Buffer::numbers(client, &columns(tiling.scaled.bytes));
    // SAFETY: units beyond the words return, and reads stay inside what `Shape` describes.
    unsafe {
        pack_codes::launch_unchecked(
            client,
            flat(tiled_codes.len()).0,
            flat(tiled_codes.len()).1,
            codes.arg(),
            scales.arg(),
            table.arg(),
            tiled_codes.arg(),
            tiling.tiles as u32,
            tiling.pairs as u32,
            shape.rows as u32,
            shape.width as u32,
            Form::new(tiling, shape),
        );
        if tiling.scaled.scaling == Scaling::None {
            return;
        }
        pack_scales::launch_unchecked(
            client,
            flat(tiled_scales.len()).0,
            flat(tiled_scales.len()).1,
            scales.arg(),
            tiled_scales.arg(),
            tiling.tiles as u32,
            tiling.pairs as u32,
            shape.rows as u32,
            shape.width as u32,
            Form::new(tiling, shape),
        );
    }
}

/// The values of tiled matrices in f32, `[matrices * rows, width]`.
#[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
pub fn unpack(
    client: &Client,
    [codes, scales, gains]: [&Buffer; 3],
    values: &Buffer,
    tiling: Tiling,
    shape: Shape,
) {
    // SAFETY: units beyond the values return.
    unsafe {
        unpack_values::launch_unchecked(
            client,
            flat(values.len()).0,
            flat(values.len()).1,
            codes.arg(),
            scales.arg(),
            gains.arg(),
            values.arg(),
            tiling.tiles as u32,
            tiling.pairs as u32,
            shape.rows as u32,
            shape.width as u32,
            Form::new(tiling, shape),
        );
    }
}

/// The row of a matrix that slot `slot` of tile `tile` holds, or at least `sizes.rows` where it is padding.
#[cube]
fn row_of(tile: usize, slot: usize, sizes: &Sizes, #[comptime] form: Form) -> usize {
    if comptime!(form.gated) {
        let half = sizes.rows / 2;
        let row = tile * comptime!(ROWS / 2) + slot % comptime!(ROWS / 2);
        let padding = row >= half;
        let gated = row + (slot / comptime!(ROWS / 2)) * half;
        select(padding, sizes.rows, gated)
    } else {
        tile * ROWS + slot
    }
}

/// Columns of a row in checkpoint order.
#[cube]
fn padded(width: usize) -> usize {
    width.div_ceil(COLUMNS) * COLUMNS
}

/// The scale of a block, a byte or the bits of an f32, 0 in padding; the block of a pair of spans where they are f32.
#[cube]
fn scale_of(
    scales: &[u32],
    matrix: usize,
    row: usize,
    block: usize,
    sizes: &Sizes,
    #[comptime] form: Form,
) -> u32 {
    let columns = comptime!(if form.scaled.in_sums() {
        BLOCKS * form.scaled.block
    } else {
        form.scaled.block
    });
    let blocks = padded(sizes.width).div_ceil(columns);
    let mut scale = 0u32;
    if row < sizes.rows && block < blocks {
        let at = (matrix * sizes.rows + row) * blocks + block;
        if comptime!(form.scaled.in_sums()) {
            scale = scales[at];
        } else {
            scale = (scales[at / 4] >> ((at % 4) as u32 * 8u32)) & 0xFFu32;
        }
    }
    scale
}

/// Whether no value of the block of a column is another than 0.
#[cube]
fn is_zero(
    scales: &[u32],
    matrix: usize,
    row: usize,
    column: usize,
    sizes: &Sizes,
    #[comptime] form: Form,
) -> bool {
    let mut zero = false;
    if comptime!(form.scaled.scaling == Scaling::E4m3) {
        let block = column / form.scaled.block;
        zero = scale_of(scales, matrix, row, block, sizes, form) == 0u32;
    } else if comptime!(form.scaled.in_sums()) {
        let block = column / comptime!(BLOCKS * form.scaled.block);
        zero = vanishes(scale_of(scales, matrix, row, block, sizes, form));
    }
    zero
}

/// Whether an f32 is so small that sums in units of it could overflow: below 2^-64.
#[cube]
fn vanishes(bits: u32) -> bool {
    (bits & 0x7FFF_FFFFu32) < comptime!((127u32 - 64) << 23)
}

#[cube(launch_unchecked)]
fn pack_codes(
    codes: &[u32],
    scales: &[u32],
    table: &[u32],
    tiled: &mut [u32],
    tiles: u32,
    pairs: u32,
    rows: u32,
    width: u32,
    #[comptime] form: Form,
) {
    let sizes = Sizes {
        tiles: tiles as usize,
        pairs: pairs as usize,
        rows: rows as usize,
        width: width as usize,
    };
    let word = ABSOLUTE_POS;
    if word >= tiled.len() {
        terminate!();
    }
    let chunks = sizes.pairs * comptime!(form.scaled.chunks());
    let vectors = comptime!(form.scaled.vectors());
    let (number, lane) = (word % 4, word / 4 % 32);
    let vector = word / 128;
    let chunk = vector / vectors % chunks;
    let tile = vector / (vectors * chunks) % sizes.tiles;
    let matrix = vector / (vectors * chunks) / sizes.tiles;
    // Of 8 bits, a word has one row of two.
    let (mut b, mut slot) = (number, lane / 4);
    if comptime!(form.scaled.bytes) {
        b = vector % vectors * 2 + number / 2;
        slot += number % 2 * 8;
    }
    let steps = comptime!(form.scaled.block / 16);
    let column = (chunk / steps * 4 + lane % 4) * form.scaled.block + chunk % steps * 16 + b * 4;
    let row = row_of(tile, slot, &sizes, form);
    let four = Four {
        matrix,
        row,
        column,
    };
    let mut stored = stored_of(codes, scales, table, &four, &sizes, 0usize, form);
    if comptime!(!form.scaled.bytes) {
        let row = row_of(tile, lane / 4 + 8, &sizes, form);
        let four = Four {
            matrix,
            row,
            column,
        };
        stored ^= stored_of(codes, scales, table, &four, &sizes, 1usize, form);
    }
    tiled[word] = stored;
}

/// Four columns of a row of a matrix, from `column` on.
#[derive(CubeType)]
struct Four {
    matrix: usize,
    row: usize,
    column: usize,
}

/// The bits that four codes turn over in a stored word, of whose two rows they are the first or the second.
#[cube]
fn stored_of(
    codes: &[u32],
    scales: &[u32],
    table: &[u32],
    four: &Four,
    sizes: &Sizes,
    #[comptime] lower: usize,
    #[comptime] form: Form,
) -> u32 {
    let (matrix, row, column) = (four.matrix, four.row, four.column);
    let per_word = comptime!(if form.scaled.bytes { 4usize } else { 8usize });
    let bits = comptime!(32 / per_word);
    let row_words = padded(sizes.width) / per_word;
    let mut stored = 0u32;
    // Columns behind the row's words are padding; so are rows, and blocks of scale 0 are made so.
    let inside = row < sizes.rows && column / per_word < row_words;
    if inside && !is_zero(scales, matrix, row, column, sizes, form) {
        let word = codes[(matrix * sizes.rows + row) * row_words + column / per_word];
        let four = word >> ((column % per_word) as u32 * bits as u32);
        #[unroll]
        for k in 0..4usize {
            // The order of `values0` to `values3`: columns 0 and 1 of both rows, then 2 and 3; or of `bytes0` and `bytes1`.
            let place = comptime!(if form.scaled.bytes {
                k
            } else {
                (k / 2 * 2 + lower) * 2 + k % 2
            });
            #[unroll]
            for bit in 0..bits {
                let set = (four >> comptime!((k * bits + bit) as u32)) & 1u32;
                stored ^= set * table[comptime!(place * bits + bit)];
            }
        }
    }
    stored
}

#[cube(launch_unchecked)]
fn pack_scales(
    scales: &[u32],
    tiled: &mut [u32],
    tiles: u32,
    pairs: u32,
    rows: u32,
    width: u32,
    #[comptime] form: Form,
) {
    let sizes = Sizes {
        tiles: tiles as usize,
        pairs: pairs as usize,
        rows: rows as usize,
        width: width as usize,
    };
    let word = ABSOLUTE_POS;
    if word >= tiled.len() {
        terminate!();
    }
    let words = comptime!(if form.scaled.in_sums() { ROWS } else { 32usize });
    let lane = word % words;
    let pair = word / words % sizes.pairs;
    let tile = word / (words * sizes.pairs) % sizes.tiles;
    let matrix = word / (words * sizes.pairs) / sizes.tiles;
    if comptime!(form.scaled.in_sums()) {
        let row = row_of(tile, lane, &sizes, form);
        let scale = scale_of(scales, matrix, row, pair, &sizes, form);
        // What is multiplied with it is 0.
        tiled[word] = select(vanishes(scale), 0x3F80_0000u32, scale);
    } else {
        let mut stored = 0u32;
        #[unroll]
        for byte in 0..4usize {
            let row = row_of(tile, lane / 4 + comptime!(byte % 2 * 8), &sizes, form);
            let block = pair * 8 + comptime!(byte / 2 * 4) + lane % 4;
            let scale = scale_of(scales, matrix, row, block, &sizes, form);
            let scale = if comptime!(form.scaled.e8m0()) {
                // Larger ones could not be multiplied into values; no weight is that large.
                select(scale < 142u32, scale, 142u32)
            } else {
                widen(scale)
            };
            stored |= scale << comptime!(byte as u32 * 8);
        }
        tiled[word] = stored;
    }
}

/// An E4M3 byte with five exponent bits, bias 10: no value but 0 is subnormal, and 0 stays 0.
#[cube]
fn widen(byte: u32) -> u32 {
    // 0, 2^-9, 2^-8, 1.5 * 2^-8, 2^-7, 1.25 * 2^-7, 1.5 * 2^-7, 1.75 * 2^-7
    let small = select(byte < 3u32, byte * 8u32, byte * 2u32 + 16u32);
    let small = select(byte == 3u32, 20u32, small);
    select(byte < 8u32, small, byte + 24u32)
}

#[cube(launch_unchecked)]
fn unpack_values(
    codes: &[u32],
    scales: &[u32],
    gains: &[f32],
    values: &mut [f32],
    tiles: u32,
    pairs: u32,
    rows: u32,
    width: u32,
    #[comptime] form: Form,
) {
    let sizes = Sizes {
        tiles: tiles as usize,
        pairs: pairs as usize,
        rows: rows as usize,
        width: width as usize,
    };
    let at = ABSOLUTE_POS;
    if at >= values.len() {
        terminate!();
    }
    let column = at % sizes.width;
    let row = at / sizes.width % sizes.rows;
    let matrix = at / sizes.width / sizes.rows;
    let mut tile = row / ROWS;
    let mut slot = row % ROWS;
    if comptime!(form.gated) {
        let half = sizes.rows / 2;
        tile = row % half / comptime!(ROWS / 2);
        slot = row % half % comptime!(ROWS / 2) + row / half * comptime!(ROWS / 2);
    }
    let tile = matrix * sizes.tiles + tile;
    let chunks = sizes.pairs * comptime!(form.scaled.chunks());
    let steps = comptime!(form.scaled.block / 16);
    let block = column / form.scaled.block;
    let lane = slot % 8 * 4 + block % 4;
    let chunk = tile * chunks + block / 4 * steps + column % form.scaled.block / 16;
    let value = if comptime!(form.scaled.bytes) {
        byte_value(codes, chunk, lane, slot / 8, column)
    } else {
        code_value(codes, chunk, lane, slot / 8, column)
    };
    let scale = unpacked_scale(scales, tile * sizes.pairs, block, slot, form);
    values[at] = value * scale * gains[matrix * sizes.rows + row];
}

/// The value of an 8-bit code in a tile.
#[cube]
fn byte_value(codes: &[u32], chunk: usize, lane: usize, lower: usize, column: usize) -> f32 {
    let b = column % 16 / 4;
    let word = codes[((chunk * 2 + b / 2) * 32 + lane) * 4 + b % 2 * 2 + lower];
    let pair = select(
        column % 4 < 2,
        bytes0(word, MASK_OF_BYTES),
        bytes1(word, MASK_OF_BYTES),
    );
    byte_of((pair >> ((column % 2) as u32 * 16u32)) & 0xFFFFu32)
}

/// The value of a 4-bit code in a tile.
#[cube]
fn code_value(codes: &[u32], chunk: usize, lane: usize, lower: usize, column: usize) -> f32 {
    let word = codes[(chunk * 32 + lane) * 4 + column % 16 / 4];
    let first = select(lower == 1, values1(word, MASK), values0(word, MASK));
    let second = select(lower == 1, values3(word, MASK), values2(word, MASK));
    let pair = select(column % 4 < 2, first, second);
    code_of((pair >> ((column % 2) as u32 * 16u32)) & 0xFFFFu32)
}

/// The scale of a block of a tile's row, where the tile's first pair of spans is number `first` of all.
#[cube]
fn unpacked_scale(
    scales: &[u32],
    first: usize,
    block: usize,
    slot: usize,
    #[comptime] form: Form,
) -> f32 {
    if comptime!(form.scaled.scaling == Scaling::None) {
        f32::new(1.0)
    } else if comptime!(form.scaled.in_sums()) {
        f32::from_bits(scales[(first + block / BLOCKS) * ROWS + slot])
    } else {
        let lane = slot % 8 * 4 + block % 4;
        let word = scales[(first + block / BLOCKS) * 32 + lane];
        let byte = (word >> ((block % 8 / 4 * 16 + slot / 8 * 8) as u32)) & 0xFFu32;
        if comptime!(form.scaled.e8m0()) {
            f32::from_bits(byte << 23u32)
        } else {
            f32::from_bits((byte << 20u32) + comptime!(117u32 << 23))
        }
    }
}
