//! One block of query rows over one split of the keys.

use cubecl::prelude::*;

use super::seen::{self, Sizes, seen_keys};
use super::tile::{self, Block, Room, UNIT_ROWS};
use super::{Attention, KEYS, Parts, Plan, ROWS, UNITS};
use crate::{Buffer, e4m3};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub(super) head_dim: usize,
    pub(super) has_ranges: bool,
    /// Whether keys and values are words of E4M3.
    pub(super) e4m3: bool,
    is_split: bool,
}

impl Shape {
    /// Width of a head in shared memory.
    pub(super) fn width(self) -> usize {
        self.head_dim.next_multiple_of(UNITS[1])
    }

    /// Numbers from one key of a tile to the next; one more than a head, so that units that read a number of several
    /// keys do not wait for one another.
    pub(super) fn tile_stride(self) -> usize {
        self.width() + 1
    }

    /// Numbers of a head that a unit sums.
    pub(super) fn columns(self) -> usize {
        self.width() / UNITS[1]
    }
}

pub(super) fn launch(client: &Client, attention: &Attention<'_>, plan: Plan) -> Parts {
    let Attention { q, k, v, .. } = attention;
    let heads = q.rows * q.heads;
    let is_split = plan.splits > 1;
    let elem = if is_split {
        f32::elem_type_native()
    } else {
        q.buffer.elem
    };
    let parts = Parts {
        sums: Buffer::empty(client, elem, plan.splits * heads * q.width),
        scales: Buffer::empty(client, f32::elem_type_native(), plan.splits * heads * 2),
    };
    let [(keys, keys_elem), (values, _)] = [k, v].map(|heads| e4m3::readable(&heads.buffer));
    let axis = |count: usize| u32::try_from(count).expect("there are less than 2^32 blocks");
    block_kernel::launch(
        client,
        CubeCount::Static(axis(plan.blocks), axis(k.heads), axis(plan.splits)),
        CubeDim::new_1d((UNITS[0] * UNITS[1]) as u32),
        q.buffer.arg(),
        keys,
        values,
        seen::ranges(client, attention.seen).arg(),
        parts.sums.arg(),
        parts.scales.arg(),
        seen::sizes(attention, plan.split_keys),
        Shape {
            head_dim: q.width,
            has_ranges: attention.seen.has_ranges(),
            e4m3: e4m3::are_in(&k.buffer),
            is_split,
        },
        [q.buffer.elem, keys_elem, elem],
    );
    parts
}

#[cube(launch)]
fn block_kernel<Q: Float, K: Numeric, Y: Float>(
    q: &[Q],
    k: &[K],
    v: &[K],
    ranges: &[u32],
    sums: &mut [Y],
    scales: &mut [f32],
    sizes: &Sizes,
    #[comptime] shape: Shape,
    #[define(Q, K, Y)] _elems: [ElemType; 3],
) {
    let columns = comptime!(shape.columns());
    let first = CUBE_POS_X as usize * ROWS;
    let count = sizes.rows * sizes.group;
    let last = select(first + ROWS < count, first + ROWS, count) - 1;
    // The keys that any row of the block sees, as far as they are in this split.
    let (start, _) = seen_keys(ranges, sizes, first / sizes.group, shape.has_ranges);
    let (_, end) = seen_keys(ranges, sizes, last / sizes.group, shape.has_ranges);
    let split = CUBE_POS_Z as usize * sizes.split_keys;
    let split_end = split + sizes.split_keys;
    let block = Block {
        first,
        last,
        kv_head: CUBE_POS_Y as usize,
        end: select(end < split_end, end, split_end),
    };

    let mut room = tile::room(shape);
    tile::load_queries::<Q>(q, &mut room, sizes, &block, shape);
    let mut out = Array::<f32>::new(comptime!(UNIT_ROWS * columns));
    #[unroll]
    for i in 0..comptime!(UNIT_ROWS * columns) {
        out[i] = 0.0f32;
    }
    let mut key = select(start > split, start, split);
    while key < block.end {
        sync_cube();
        let (head, row) = (block.kv_head * sizes.k_head, sizes.k_row);
        tile::load::<K>(k, &mut room.tile, key, block.end, head, row, shape);
        sync_cube();
        tile::score(&mut room, ranges, sizes, &block, key, shape);
        sync_cube();
        tile::weigh(&mut room);
        let (head, row) = (block.kv_head * sizes.v_head, sizes.v_row);
        tile::load::<K>(v, &mut room.tile, key, block.end, head, row, shape);
        sync_cube();
        tile::add(&mut out, &room, shape);
        key += KEYS;
    }
    sync_cube();
    write::<Y>(sums, scales, &out, &room, sizes, &block, shape);
}

/// The sums of a split with their scales, or where there is one split, the sums divided by those of the weights.
#[cube]
fn write<Y: Float>(
    sums: &mut [Y],
    scales: &mut [f32],
    out: &Array<f32>,
    room: &Room,
    sizes: &Sizes,
    block: &Block,
    #[comptime] shape: Shape,
) {
    let columns = comptime!(shape.columns());
    let head_dim = comptime!(shape.head_dim);
    let unit = UNIT_POS as usize;
    let (down, right) = (unit / comptime!(UNITS[1]), unit % comptime!(UNITS[1]));
    let heads = sizes.group * sizes.kv_heads;
    #[unroll]
    for i in 0..UNIT_ROWS {
        let row = down + i * comptime!(UNITS[0]);
        let at = block.first + row;
        if at <= block.last {
            let head = at / sizes.group * heads + block.kv_head * sizes.group + at % sizes.group;
            let head = CUBE_POS_Z as usize * sizes.rows * heads + head;
            let total = room.total[row];
            let mut factor = 1.0f32;
            if comptime!(shape.is_split) {
                if right == 0 {
                    scales[head * 2] = room.largest[row];
                    scales[head * 2 + 1] = total;
                }
            } else {
                factor = select(total > 0.0f32, 1.0f32 / total, 0.0f32);
            }
            #[unroll]
            for j in 0..columns {
                let d = right + j * comptime!(UNITS[1]);
                if d < head_dim {
                    sums[head * head_dim + d] = Y::cast_from(out[i * columns + j] * factor);
                }
            }
        }
    }
}
