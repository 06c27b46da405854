//! Between the order of a checkpoint and tiles.

use cubecl::prelude::*;

use super::super::{COLUMNS, Shape};
use super::decode::{columns, values0, values1, values2, values3};
use super::{ROWS, Tiling};
use crate::Buffer;
use crate::grid::flat;

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
            tiling,
            shape,
        );
        pack_scales::launch_unchecked(
            client,
            flat(tiled_scales.len()).0,
            flat(tiled_scales.len()).1,
            scales.arg(),
            tiled_scales.arg(),
            tiling,
            shape,
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
            tiling,
            shape,
        );
    }
}

/// The row of a matrix that slot `slot` of tile `tile` holds, or at least `shape.rows` where it is padding.
#[cube]
fn row_of(tile: usize, slot: usize, #[comptime] shape: Shape) -> usize {
    if comptime!(shape.gated) {
        let half = comptime!(shape.rows / 2);
        let row = tile * comptime!(ROWS / 2) + slot % comptime!(ROWS / 2);
        let padding = row >= half;
        let gated = row + (slot / comptime!(ROWS / 2)) * half;
        select(padding, comptime!(shape.rows), gated)
    } else {
        tile * ROWS + slot
    }
}

/// The scale byte of a block, 0 in padding.
#[cube]
fn scale_of(
    scales: &[u32],
    matrix: usize,
    row: usize,
    block: usize,
    #[comptime] tiling: Tiling,
    #[comptime] shape: Shape,
) -> u32 {
    let blocks = comptime!(shape.width.next_multiple_of(COLUMNS).div_ceil(tiling.block));
    let mut byte = 0u32;
    if row < shape.rows && block < blocks {
        let at = (matrix * shape.rows + row) * blocks + block;
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
    #[comptime] tiling: Tiling,
    #[comptime] shape: Shape,
) {
    let word = ABSOLUTE_POS;
    if word >= tiled.len() {
        terminate!();
    }
    let chunks = comptime!(tiling.columns() / super::COLUMNS);
    let row_words = comptime!(shape.width.next_multiple_of(COLUMNS) / 8);
    let b = word % 4;
    let lane = word / 4 % 32;
    let chunk = word / 128 % chunks;
    let tile = word / (128 * chunks) % tiling.tiles;
    let matrix = word / (128 * chunks) / tiling.tiles;
    let steps = comptime!(tiling.block / 16);
    let column = (chunk / steps * 4 + lane % 4) * tiling.block + chunk % steps * 16 + b * 4;
    let mut stored = 0u32;
    #[unroll]
    for upper in 0..2usize {
        let row = row_of(tile, lane / 4 + upper * 8, shape);
        let scale = scale_of(scales, matrix, row, column / tiling.block, tiling, shape);
        // Columns behind the row's words are padding; so are rows, and blocks of scale 0 are made so.
        if row < shape.rows && column / 8 < row_words && (scale != 0 || tiling.e8m0) {
            let four = codes[(matrix * shape.rows + row) * row_words + column / 8]
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
    #[comptime] tiling: Tiling,
    #[comptime] shape: Shape,
) {
    let word = ABSOLUTE_POS;
    if word >= tiled.len() {
        terminate!();
    }
    let lane = word % 32;
    let pair = word / 32 % tiling.pairs;
    let tile = word / (32 * tiling.pairs) % tiling.tiles;
    let matrix = word / (32 * tiling.pairs) / tiling.tiles;
    let mut stored = 0u32;
    #[unroll]
    for byte in 0..4usize {
        let row = row_of(tile, lane / 4 + comptime!(byte % 2 * 8), shape);
        let block = pair * 8 + comptime!(byte / 2 * 4) + lane % 4;
        let scale = scale_of(scales, matrix, row, block, tiling, shape);
        let scale = if comptime!(tiling.e8m0) {
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
    #[comptime] tiling: Tiling,
    #[comptime] shape: Shape,
) {
    let at = ABSOLUTE_POS;
    if at >= values.len() {
        terminate!();
    }
    let column = at % shape.width;
    let row = at / shape.width % shape.rows;
    let matrix = at / shape.width / shape.rows;
    let mut tile = row / ROWS;
    let mut slot = row % ROWS;
    if comptime!(shape.gated) {
        let half = comptime!(shape.rows / 2);
        tile = row % half / comptime!(ROWS / 2);
        slot = row % half % comptime!(ROWS / 2) + row / half * comptime!(ROWS / 2);
    }
    let tile = matrix * tiling.tiles + tile;
    let chunks = comptime!(tiling.columns() / super::COLUMNS);
    let steps = comptime!(tiling.block / 16);
    let block = column / tiling.block;
    let lane = slot % 8 * 4 + block % 4;
    let chunk = block / 4 * steps + column % tiling.block / 16;
    let word = codes[((tile * chunks + chunk) * 32 + lane) * 4 + column % 16 / 4];
    let upper = slot >= 8;
    let first = select(upper, values1(word), values0(word));
    let second = select(upper, values3(word), values2(word));
    let pair = select(column % 4 < 2, first, second);
    let bits = (pair >> ((column % 2) as u32 * 16u32)) & 0xFFFFu32;
    let magnitude = (bits >> 6u32) & 7u32;
    let large = f32::from_bits((magnitude << 22u32) + 0x3F00_0000u32);
    let value = select(magnitude < 2u32, f32::cast_from(magnitude) * 0.5f32, large);
    let scale_word = scales[(tile * tiling.pairs + block / 8) * 32 + lane];
    let byte = (scale_word >> ((block % 8 / 4 * 16 + slot / 8 * 8) as u32)) & 0xFFu32;
    let scale = if comptime!(tiling.e8m0) {
        f32::from_bits(byte << 23u32)
    } else {
        f32::from_bits((byte << 20u32) + comptime!(117u32 << 23))
    };
    let product = value * scale * gains[matrix * shape.rows + row];
    values[at] = select(bits >= 0x8000u32, -product, product);
}
