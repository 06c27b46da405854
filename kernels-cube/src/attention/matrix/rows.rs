//! The query rows of a cube: which keys they see, what they ask, what they get.

use cubecl::prelude::*;

use super::{GROUP, N2, N4, Room, STEP, Shape, Sums, TILE};
use crate::attention::seen::{Sizes, seen_keys};
use crate::matrix_units::{Exchange, pack_bf16, quad_sum, unit};
use crate::packed::tiles::ColumnOrder;
use crate::packed::tiles::activations::place_in_products;

/// Rows of one key head: query row `i / group` with the `i % group`-th of its heads is row `i`.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Block {
    first: usize,
    last: usize,
    pub(super) kv_head: usize,
    /// The keys that any of the rows sees.
    pub(super) start: usize,
    pub(super) end: usize,
    /// The keys that all of them see.
    pub(super) all_start: usize,
    pub(super) all_end: usize,
}

/// The keys that the rows of a lane see: by tile and row the first, and one more than the last.
#[derive(CubeType)]
pub(super) struct Visible {
    pub(super) starts: Array<u32>,
    pub(super) ends: Array<u32>,
}

/// The block of this cube. Those that see most come first, so that none of them is left for the end.
#[cube]
pub(super) fn block(ranges: &[u32], sizes: &Sizes, #[comptime] shape: Shape) -> Block {
    let rows = shape.blocking.rows();
    let count = sizes.rows * sizes.group;
    let first = ((count - 1usize) / rows - CUBE_POS_Y as usize) * rows;
    let last = select(first + rows < count, first + rows, count) - 1usize;
    let (lowest, highest) = (first / sizes.group, last / sizes.group);
    let (from, to) = seen_keys(ranges, sizes, lowest, shape.has_ranges);
    let (last_from, last_to) = seen_keys(ranges, sizes, highest, shape.has_ranges);
    let mut start = from;
    let mut end = last_to;
    let mut all_start = last_from;
    let mut all_end = to;
    if comptime!(shape.has_ranges) {
        for row in lowest..highest + 1usize {
            let (from, to) = seen_keys(ranges, sizes, row, shape.has_ranges);
            start = select(from < start, from, start);
            end = select(to > end, to, end);
            all_start = select(from > all_start, from, all_start);
            all_end = select(to < all_end, to, all_end);
        }
    }
    Block {
        first,
        last,
        kv_head: CUBE_POS_X as usize,
        start,
        end,
        all_start,
        all_end,
    }
}

/// The row of a tile of this plane that is this lane's upper or lower one; more than the last is padding.
#[cube]
fn row_of(
    block: &Block,
    #[comptime] tile: usize,
    #[comptime] half: usize,
    #[comptime] shape: Shape,
) -> usize {
    let plane = UNIT_POS_Y as usize * comptime!(shape.blocking.tiles * TILE);
    block.first + plane + comptime!(tile * TILE + half * 8) + UNIT_POS_X as usize / 4usize
}

/// The keys that this lane's rows see.
#[cube]
pub(super) fn seen(
    ranges: &[u32],
    sizes: &Sizes,
    block: &Block,
    #[comptime] shape: Shape,
) -> Visible {
    let mut starts = Array::<u32>::new(comptime!(shape.blocking.tiles * 2));
    let mut ends = Array::<u32>::new(comptime!(shape.blocking.tiles * 2));
    #[unroll]
    for tile in 0..shape.blocking.tiles {
        #[unroll]
        for half in 0..2usize {
            let at = row_of(block, tile, half, shape);
            let at = select(at < block.last, at, block.last);
            let (start, end) = seen_keys(ranges, sizes, at / sizes.group, shape.has_ranges);
            starts[comptime!(tile * 2 + half)] = start as u32;
            ends[comptime!(tile * 2 + half)] = end as u32;
        }
    }
    Visible { starts, ends }
}

/// The queries as first operands, `[tiles, steps, 2, 4]`: of step `s`, lane `t` has numbers `32 s + 8 t .. + 8`, as keys
/// are read.
#[cube]
pub(super) fn load<Q: Float>(
    q: &[Vector<Q, N4>],
    queries: &mut Array<u32>,
    room: &mut Room,
    sizes: &Sizes,
    block: &Block,
    #[comptime] shape: Shape,
) {
    let t = UNIT_POS_X as usize % 4usize;
    let instructions = shape.instructions;
    #[unroll]
    for tile in 0..shape.blocking.tiles {
        #[unroll]
        for half in 0..2usize {
            let at = row_of(block, tile, half, shape);
            let at = select(at < block.last, at, block.last);
            let head = block.kv_head * sizes.group + at % sizes.group;
            let from = (at / sizes.group * sizes.q_row + head * sizes.q_head) / 4usize;
            #[unroll]
            for step in 0..shape.steps() {
                let mut first = Vector::<f32, N4>::new(0.0f32);
                let mut second = Vector::<f32, N4>::new(0.0f32);
                let d = comptime!(step * STEP) + t * 8usize;
                if comptime!((step + 1) * STEP <= shape.width) || d < shape.width {
                    first = Vector::cast_from(q[from + d / 4usize]);
                    second = Vector::cast_from(q[from + d / 4usize + 1usize]);
                }
                let to = comptime!((tile * shape.steps() + step) * 8 + half);
                #[unroll]
                for pair in 0..2usize {
                    queries[comptime!(to + pair * 2)] = pack_bf16(
                        first.extract(comptime!(pair * 2)),
                        first.extract(comptime!(pair * 2 + 1)),
                        instructions,
                    );
                    queries[comptime!(to + 4 + pair * 2)] = pack_bf16(
                        second.extract(comptime!(pair * 2)),
                        second.extract(comptime!(pair * 2 + 1)),
                        instructions,
                    );
                }
            }
        }
    }
    if comptime!(!shape.blocking.held) {
        #[unroll]
        for i in 0..comptime!(shape.blocking.tiles * shape.steps() * 2) {
            let mut words = Vector::<u32, N4>::new(0u32);
            #[unroll]
            for word in 0..4usize {
                words.insert(word, queries[comptime!(i * 4 + word)]);
            }
            room.queries[i * shape.blocking.units() + unit()] = words;
        }
    }
}

/// Writes what the rows summed, divided by the sums of their weights.
#[cube]
pub(super) fn store<Y: Float>(
    y: &mut [Vector<Y, N2>],
    sums: &Sums,
    exchange: &mut Exchange,
    sizes: &Sizes,
    block: &Block,
    #[comptime] shape: Shape,
) {
    let t = UNIT_POS_X as usize % 4usize;
    let groups = shape.groups();
    let heads = sizes.group * sizes.kv_heads;
    #[unroll]
    for tile in 0..shape.blocking.tiles {
        #[unroll]
        for half in 0..2usize {
            let own = sums.totals[comptime!(tile * 2 + half)];
            let total = quad_sum(own, exchange, shape.instructions);
            let share = select(total > 0.0f32, 1.0f32 / total, 0.0f32);
            let at = row_of(block, tile, half, shape);
            if at <= block.last {
                let row = at / sizes.group;
                let head = block.kv_head * sizes.group + at % sizes.group;
                #[unroll]
                for group in 0..groups {
                    let sum = sums.outputs[comptime!(tile * groups + group)];
                    let mut two = Vector::<f32, N2>::new(0.0f32);
                    two.insert(0usize, sum.extract(comptime!(half * 2)) * share);
                    two.insert(1usize, sum.extract(comptime!(half * 2 + 1)) * share);
                    let pair = head * comptime!(shape.width / 2) + comptime!(group * GROUP / 2) + t;
                    let pairs = heads * comptime!(shape.width / 2);
                    put::<Y>(y, row, pair, pairs, two, shape);
                }
            }
        }
    }
}

/// Writes a pair of numbers of a row of so many pairs.
#[cube]
fn put<Y: Float>(
    y: &mut [Vector<Y, N2>],
    row: usize,
    pair: usize,
    pairs: usize,
    two: Vector<f32, N2>,
    #[comptime] shape: Shape,
) {
    let high = Vector::<Y, N2>::cast_from(two);
    if let Some(rounding) = comptime!(shape.rounding) {
        let mut place = pair;
        if let ColumnOrder::Products(block) = comptime!(rounding.order) {
            place = place_in_products(pair * 2usize, block) / 2usize;
        }
        let to = row * comptime!(rounding.halves()) * pairs + place;
        y[to] = high;
        if comptime!(rounding.split) {
            y[to + pairs] = Vector::cast_from(two - Vector::<f32, N2>::cast_from(high));
        }
    } else {
        y[row * pairs + pair] = high;
    }
}
