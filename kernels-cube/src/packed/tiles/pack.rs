//! Between the order of a checkpoint and tiles.

use cubecl::prelude::*;

use super::super::{COLUMNS, Shape};
use super::decode::{columns, values0, values1, values2, values3};
use super::{ROWS, Scaled, Tiling};
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
/// - codes, scales: words of bytes in checkpoint order, rows of [`COLUMNS`] columns
/// - tiled_codes, tiled_scales: [`Tiling::code_words`] and [`Tiling::scale_words`] words
#[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
pub fn pack(
    client: &Client,
    [codes, scales]: [&Buffer; 2],
    [tiled_codes, tiled_scales]: [&Buffer; 2],
    tiling: Tiling,
    shape: Shape,
) {
    let table: Vec<u32> = columns().into_iter().flatten().collect();
    let table = Buffer::numbers(client, &table);
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

/// The scale byte of a block, 0 in padding.
#[cube]
fn scale_of(
    scales: &[u32],
    matrix: usize,
    row: usize,
    block: usize,
    sizes: &Sizes,
    #[comptime] form: Form,
) -> u32 {
    let blocks = padded(sizes.width) / form.scaled.block;
    let mut byte = 0u32;
    if row < sizes.rows && block < blocks {
        let at = (matrix * sizes.rows + row) * blocks + block;
        byte = (scales[at / 4] >> ((at % 4) as u32 * 8u32)) & 0xFFu32;
    }
    byte
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
    let row_words = padded(sizes.width) / 8;
    let b = word % 4;
    let lane = word / 4 % 32;
    let chunk = word / 128 % chunks;
    let tile = word / (128 * chunks) % sizes.tiles;
    let matrix = word / (128 * chunks) / sizes.tiles;
    let steps = comptime!(form.scaled.block / 16);
    let column = (chunk / steps * 4 + lane % 4) * form.scaled.block + chunk % steps * 16 + b * 4;
    let mut stored = 0u32;
    #[unroll]
    for upper in 0..2usize {
        let row = row_of(tile, lane / 4 + upper * 8, &sizes, form);
        let scale = scale_of(
            scales,
            matrix,
            row,
            column / form.scaled.block,
            &sizes,
            form,
        );
        // Columns behind the row's words are padding; so are rows, and blocks of scale 0 are made so.
        if row < sizes.rows && column / 8 < row_words && (scale != 0 || form.scaled.e8m0) {
            let four = codes[(matrix * sizes.rows + row) * row_words + column / 8]
                >> ((column % 8) as u32 * 4u32);
            #[unroll]
            for k in 0..4usize {
                // The order of `values0` to `values3`: columns 0 and 1 of both rows, then 2 and 3.
                let place = comptime!((k / 2 * 2 + upper) * 2 + k % 2);
                #[unroll]
                for bit in 0..4usize {
                    let set = (four >> comptime!((k * 4 + bit) as u32)) & 1u32;
                    stored ^= set * table[comptime!(place * 4 + bit)];
                }
            }
        }
    }
    tiled[word] = stored;
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
    let lane = word % 32;
    let pair = word / 32 % sizes.pairs;
    let tile = word / (32 * sizes.pairs) % sizes.tiles;
    let matrix = word / (32 * sizes.pairs) / sizes.tiles;
    let mut stored = 0u32;
    #[unroll]
    for byte in 0..4usize {
        let row = row_of(tile, lane / 4 + comptime!(byte % 2 * 8), &sizes, form);
        let block = pair * 8 + comptime!(byte / 2 * 4) + lane % 4;
        let scale = scale_of(scales, matrix, row, block, &sizes, form);
        let scale = if comptime!(form.scaled.e8m0) {
            // Larger ones could not be multiplied into values; no weight is that large.
            select(scale < 142u32, scale, 142u32)
        } else {
            widen(scale)
        };
        stored |= scale << comptime!(byte as u32 * 8);
    }
    tiled[word] = stored;
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
    let chunk = block / 4 * steps + column % form.scaled.block / 16;
    let word = codes[((tile * chunks + chunk) * 32 + lane) * 4 + column % 16 / 4];
    let upper = slot >= 8;
    let first = select(upper, values1(word), values0(word));
    let second = select(upper, values3(word), values2(word));
    let pair = select(column % 4 < 2, first, second);
    let bits = (pair >> ((column % 2) as u32 * 16u32)) & 0xFFFFu32;
    let magnitude = (bits >> 6u32) & 7u32;
    let large = f32::from_bits((magnitude << 22u32) + 0x3F00_0000u32);
    let value = select(magnitude < 2u32, f32::cast_from(magnitude) * 0.5f32, large);
    let scale_word = scales[(tile * sizes.pairs + block / 8) * 32 + lane];
    let byte = (scale_word >> ((block % 8 / 4 * 16 + slot / 8 * 8) as u32)) & 0xFFu32;
    let scale = if comptime!(form.scaled.e8m0) {
        f32::from_bits(byte << 23u32)
    } else {
        f32::from_bits((byte << 20u32) + comptime!(117u32 << 23))
    };
    let product = value * scale * gains[matrix * sizes.rows + row];
    values[at] = select(bits >= 0x8000u32, -product, product);
}
