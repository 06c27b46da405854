//! A tile of keys or values in shared memory, and what a block of query rows makes of it.

use cubecl::prelude::*;

use super::block::Shape;
use super::seen::{Sizes, seen_keys};
use super::{KEYS, ROWS, UNITS};
use crate::e4m3::number;

/// Rows and keys that a unit forms the scores of.
pub(super) const UNIT_ROWS: usize = ROWS / UNITS[0];
const UNIT_KEYS: usize = KEYS / UNITS[1];
/// Score of a key that is not seen.
const UNSEEN: f32 = -1e30;

/// Rows of one key head: query row `i / group` with the `i % group`-th of its heads is row `i`.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Block {
    pub(super) first: usize,
    pub(super) last: usize,
    pub(super) kv_head: usize,
    /// One more than the last key that is looked at.
    pub(super) end: usize,
}

/// What the units of a cube share.
#[derive(CubeType)]
pub(super) struct Room {
    /// Scaled queries, `[ROWS, width]`.
    queries: Shared<[f32]>,
    /// Keys or values, `[KEYS, tile_stride]`.
    pub(super) tile: Shared<[f32]>,
    /// Scores, then weights, `[ROWS, KEYS]`.
    weights: Shared<[f32]>,
    /// By row the largest score, the sum of weights, and the factor on what was summed before this tile.
    pub(super) largest: Shared<[f32]>,
    pub(super) total: Shared<[f32]>,
    correction: Shared<[f32]>,
}

#[cube]
pub(super) fn room(#[comptime] shape: Shape) -> Room {
    Room {
        queries: Shared::new_slice(comptime!(ROWS * shape.width())),
        tile: Shared::new_slice(comptime!(KEYS * shape.tile_stride())),
        weights: Shared::new_slice(comptime!(ROWS * KEYS)),
        largest: Shared::new_slice(ROWS),
        total: Shared::new_slice(ROWS),
        correction: Shared::new_slice(ROWS),
    }
}

/// The block's queries times the scale, and empty sums.
#[cube]
pub(super) fn load_queries<Q: Float>(
    q: &[Q],
    room: &mut Room,
    sizes: &Sizes,
    block: &Block,
    #[comptime] shape: Shape,
) {
    let width = comptime!(shape.width());
    let unit = UNIT_POS as usize;
    let mut i = unit;
    while i < comptime!(ROWS * width) {
        let (at, d) = (block.first + i / width, i % width);
        let mut value = 0.0f32;
        if at <= block.last && d < comptime!(shape.head_dim) {
            let head = block.kv_head * sizes.group + at % sizes.group;
            let from = at / sizes.group * sizes.q_row + head * sizes.q_head + d;
            value = f32::cast_from(q[from]) * sizes.scale;
        }
        room.queries[i] = value;
        i += comptime!(UNITS[0] * UNITS[1]);
    }
    if unit < ROWS {
        room.largest[unit] = UNSEEN;
        room.total[unit] = 0.0f32;
    }
}

/// Some rows of one head of keys or values, zero from `end` on, where nothing may have been written yet.
#[cube]
pub(super) fn load<K: Numeric>(
    from: &[K],
    tile: &mut Shared<[f32]>,
    key: usize,
    end: usize,
    offset: usize,
    stride: usize,
    #[comptime] shape: Shape,
) {
    let width = comptime!(shape.width());
    let mut i = UNIT_POS as usize;
    while i < comptime!(KEYS * width) {
        let (place, d) = (i / width, i % width);
        let mut value = 0.0f32;
        if key + place < end && d < comptime!(shape.head_dim) {
            value = number(from, (key + place) * stride + offset + d, shape.e4m3);
        }
        tile[place * comptime!(shape.tile_stride()) + d] = value;
        i += comptime!(UNITS[0] * UNITS[1]);
    }
}

/// The scores of the tile's keys.
#[cube]
pub(super) fn score(
    room: &mut Room,
    ranges: &[u32],
    sizes: &Sizes,
    block: &Block,
    key: usize,
    #[comptime] shape: Shape,
) {
    let (width, stride) = comptime!((shape.width(), shape.tile_stride()));
    let unit = UNIT_POS as usize;
    let (down, right) = (unit / comptime!(UNITS[1]), unit % comptime!(UNITS[1]));
    let mut scores = Array::<f32>::new(comptime!(UNIT_ROWS * UNIT_KEYS));
    #[unroll]
    for i in 0..comptime!(UNIT_ROWS * UNIT_KEYS) {
        scores[i] = 0.0f32;
    }
    for d in 0..comptime!(shape.head_dim) {
        #[unroll]
        for j in 0..UNIT_KEYS {
            let value = room.tile[(right + j * comptime!(UNITS[1])) * stride + d];
            #[unroll]
            for i in 0..UNIT_ROWS {
                let query = room.queries[(down + i * comptime!(UNITS[0])) * width + d];
                scores[i * UNIT_KEYS + j] += query * value;
            }
        }
    }
    #[unroll]
    for i in 0..UNIT_ROWS {
        let row = down + i * comptime!(UNITS[0]);
        let at = select(
            block.first + row < block.last,
            block.first + row,
            block.last,
        );
        let (start, end) = seen_keys(ranges, sizes, at / sizes.group, shape.has_ranges);
        #[unroll]
        for j in 0..UNIT_KEYS {
            let place = right + j * comptime!(UNITS[1]);
            let here = key + place;
            let is_seen = here >= start && here < end && here < block.end;
            room.weights[row * KEYS + place] = select(is_seen, scores[i * UNIT_KEYS + j], UNSEEN);
        }
    }
}

/// Scores to weights, a unit a row: exponentials over the largest score so far.
#[cube]
pub(super) fn weigh(room: &mut Room) {
    let row = UNIT_POS as usize;
    if row < ROWS {
        let before = room.largest[row];
        let mut now = before;
        for j in 0..KEYS {
            let score = room.weights[row * KEYS + j];
            now = select(score > now, score, now);
        }
        let factor = (before - now).exp();
        let mut sum = room.total[row] * factor;
        for j in 0..KEYS {
            let score = room.weights[row * KEYS + j];
            let weight = select(score > UNSEEN, (score - now).exp(), 0.0f32);
            room.weights[row * KEYS + j] = weight;
            sum += weight;
        }
        room.largest[row] = now;
        room.total[row] = sum;
        room.correction[row] = factor;
    }
}

/// Adds the tile's weighted values.
#[cube]
pub(super) fn add(out: &mut Array<f32>, room: &Room, #[comptime] shape: Shape) {
    let (columns, stride) = comptime!((shape.columns(), shape.tile_stride()));
    let unit = UNIT_POS as usize;
    let (down, right) = (unit / comptime!(UNITS[1]), unit % comptime!(UNITS[1]));
    #[unroll]
    for i in 0..UNIT_ROWS {
        let factor = room.correction[down + i * comptime!(UNITS[0])];
        #[unroll]
        for j in 0..columns {
            out[i * columns + j] *= factor;
        }
    }
    for at in 0..KEYS {
        #[unroll]
        for j in 0..columns {
            let value = room.tile[at * stride + right + j * comptime!(UNITS[1])];
            #[unroll]
            for i in 0..UNIT_ROWS {
                let weight = room.weights[(down + i * comptime!(UNITS[0])) * KEYS + at];
                out[i * columns + j] += weight * value;
            }
        }
    }
}
