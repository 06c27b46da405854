//! One block of query rows over one split of the keys.

use cubecl::prelude::*;

use super::seen::{self, Sizes, seen_keys};
use super::{Attention, KEYS, Parts, Plan, ROWS, UNITS};
use crate::Buffer;

/// Rows and keys that a unit forms the scores of.
const UNIT_ROWS: usize = ROWS / UNITS[0];
const UNIT_KEYS: usize = KEYS / UNITS[1];
/// Score of a key that is not seen.
const UNSEEN: f32 = -1e30;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shape {
    head_dim: usize,
    has_ranges: bool,
    is_split: bool,
}

impl Shape {
    /// Width of a head in shared memory.
    fn width(self) -> usize {
        self.head_dim.next_multiple_of(UNITS[1])
    }

    /// Numbers of a head that a unit sums.
    fn columns(self) -> usize {
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
    let axis = |count: usize| u32::try_from(count).expect("there are less than 2^32 blocks");
    block_kernel::launch(
        client,
        CubeCount::Static(axis(plan.blocks), axis(k.heads), axis(plan.splits)),
        CubeDim::new_1d((UNITS[0] * UNITS[1]) as u32),
        q.buffer.arg(),
        k.buffer.arg(),
        v.buffer.arg(),
        seen::ranges(client, attention.seen).arg(),
        parts.sums.arg(),
        parts.scales.arg(),
        seen::sizes(attention, plan.split_keys),
        Shape {
            head_dim: q.width,
            has_ranges: attention.seen.has_ranges(),
            is_split,
        },
        [q.buffer.elem, k.buffer.elem, elem],
    );
    parts
}

#[cube(launch)]
#[allow(
    clippy::too_many_lines,
    reason = "one pass over the keys with its state in registers"
)]
fn block_kernel<Q: Float, K: Float, Y: Float>(
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
    let unit = UNIT_POS as usize;
    let (down, right) = (unit / comptime!(UNITS[1]), unit % comptime!(UNITS[1]));
    let units = comptime!(UNITS[0] * UNITS[1]);
    let head_dim = comptime!(shape.head_dim);
    let width = comptime!(shape.width());
    let columns = comptime!(shape.columns());
    let kv_head = CUBE_POS_Y as usize;
    let first = CUBE_POS_X as usize * ROWS;
    let count = sizes.rows * sizes.group;

    // [ROWS, width], [KEYS, width], [ROWS, KEYS], and by row: largest score, sum of weights, last correction
    let mut queries = Shared::<[f32]>::new_slice(comptime!(ROWS * width));
    let mut tile = Shared::<[f32]>::new_slice(comptime!(KEYS * width));
    let mut weights = Shared::<[f32]>::new_slice(comptime!(ROWS * KEYS));
    let mut largest = Shared::<[f32]>::new_slice(ROWS);
    let mut total = Shared::<[f32]>::new_slice(ROWS);
    let mut correction = Shared::<[f32]>::new_slice(ROWS);

    let mut i = unit;
    while i < comptime!(ROWS * width) {
        let (at, d) = (first + i / width, i % width);
        let mut value = 0.0f32;
        if at < count && d < head_dim {
            let head = kv_head * sizes.group + at % sizes.group;
            let from = at / sizes.group * sizes.q_row + head * sizes.q_head + d;
            value = f32::cast_from(q[from]) * sizes.scale;
        }
        queries[i] = value;
        i += units;
    }
    if unit < ROWS {
        largest[unit] = UNSEEN;
        total[unit] = 0.0f32;
    }
    let mut out = Array::<f32>::new(comptime!(UNIT_ROWS * columns));
    #[unroll]
    for i in 0..comptime!(UNIT_ROWS * columns) {
        out[i] = 0.0f32;
    }

    // The keys that any row of the block sees, as far as they are in this split.
    let last = select(first + ROWS < count, first + ROWS, count) - 1;
    let (start, _) = seen_keys(ranges, sizes, first / sizes.group, shape.has_ranges);
    let (_, end) = seen_keys(ranges, sizes, last / sizes.group, shape.has_ranges);
    let split = CUBE_POS_Z as usize * sizes.split_keys;
    let end = select(
        end < split + sizes.split_keys,
        end,
        split + sizes.split_keys,
    );
    let mut key = select(start > split, start, split);
    while key < end {
        sync_cube();
        load_tile::<K>(
            k,
            &mut tile,
            key,
            end,
            kv_head * sizes.k_head,
            sizes.k_row,
            shape,
        );
        sync_cube();
        let mut scores = Array::<f32>::new(comptime!(UNIT_ROWS * UNIT_KEYS));
        #[unroll]
        for i in 0..comptime!(UNIT_ROWS * UNIT_KEYS) {
            scores[i] = 0.0f32;
        }
        for d in 0..head_dim {
            #[unroll]
            for j in 0..UNIT_KEYS {
                let value = tile[(right + j * comptime!(UNITS[1])) * width + d];
                #[unroll]
                for i in 0..UNIT_ROWS {
                    scores[i * UNIT_KEYS + j] +=
                        queries[(down + i * comptime!(UNITS[0])) * width + d] * value;
                }
            }
        }
        #[unroll]
        for i in 0..UNIT_ROWS {
            let row = down + i * comptime!(UNITS[0]);
            let at = select(first + row < count, first + row, last);
            let (start, stop) = seen_keys(ranges, sizes, at / sizes.group, shape.has_ranges);
            #[unroll]
            for j in 0..UNIT_KEYS {
                let place = right + j * comptime!(UNITS[1]);
                let here = key + place;
                let is_seen = here >= start && here < stop && here < end;
                weights[row * KEYS + place] = select(is_seen, scores[i * UNIT_KEYS + j], UNSEEN);
            }
        }
        sync_cube();
        if unit < ROWS {
            let before = largest[unit];
            let mut now = before;
            for j in 0..KEYS {
                let score = weights[unit * KEYS + j];
                now = select(score > now, score, now);
            }
            let factor = (before - now).exp();
            let mut sum = total[unit] * factor;
            for j in 0..KEYS {
                let score = weights[unit * KEYS + j];
                let weight = select(score > UNSEEN, (score - now).exp(), 0.0f32);
                weights[unit * KEYS + j] = weight;
                sum += weight;
            }
            largest[unit] = now;
            total[unit] = sum;
            correction[unit] = factor;
        }
        load_tile::<K>(
            v,
            &mut tile,
            key,
            end,
            kv_head * sizes.v_head,
            sizes.v_row,
            shape,
        );
        sync_cube();
        #[unroll]
        for i in 0..UNIT_ROWS {
            let factor = correction[down + i * comptime!(UNITS[0])];
            #[unroll]
            for j in 0..columns {
                out[i * columns + j] *= factor;
            }
        }
        for at in 0..KEYS {
            #[unroll]
            for j in 0..columns {
                let value = tile[at * width + right + j * comptime!(UNITS[1])];
                #[unroll]
                for i in 0..UNIT_ROWS {
                    out[i * columns + j] +=
                        weights[(down + i * comptime!(UNITS[0])) * KEYS + at] * value;
                }
            }
        }
        key += KEYS;
    }
    sync_cube();
    let heads = sizes.group * sizes.kv_heads;
    #[unroll]
    for i in 0..UNIT_ROWS {
        let row = down + i * comptime!(UNITS[0]);
        let at = first + row;
        if at < count {
            let head = at / sizes.group * heads + kv_head * sizes.group + at % sizes.group;
            let head = CUBE_POS_Z as usize * sizes.rows * heads + head;
            let mut factor = 1.0f32;
            if comptime!(shape.is_split) {
                if right == 0 {
                    scales[head * 2] = largest[row];
                    scales[head * 2 + 1] = total[row];
                }
            } else {
                factor = select(total[row] > 0.0f32, 1.0f32 / total[row], 0.0f32);
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

/// Some rows of one head of keys or values, zero from `end` on, where nothing may have been written yet.
#[cube]
fn load_tile<K: Float>(
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
        let (at, d) = (key + i / width, i % width);
        let mut value = 0.0f32;
        if at < end && d < comptime!(shape.head_dim) {
            value = f32::cast_from(from[at * stride + offset + d]);
        }
        tile[i] = value;
        i += comptime!(UNITS[0] * UNITS[1]);
    }
}
