//! Without shared memory: a unit has one row of one head.

use cubecl::prelude::*;

use super::Attention;
use super::seen::{self, Sizes, seen_keys};
use crate::linear::{across, vector};
use crate::{Buffer, grid};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shape {
    /// Vectors of a head.
    vectors: usize,
    vector: usize,
    has_ranges: bool,
}

pub(super) fn launch(client: &Client, attention: &Attention<'_>) -> Buffer {
    let Attention { q, k, v, .. } = attention;
    let heads = q.rows * q.heads;
    let y = Buffer::empty(client, q.buffer.elem, heads * q.width);
    let strides = [q.strides, k.strides, v.strides].concat();
    let vector = vector(&strides).min(vector(&[q.width]));
    let (count, dim) = grid::flat(heads);
    alone_kernel::launch(
        client,
        count,
        dim,
        vector,
        q.buffer.arg(),
        k.buffer.arg(),
        v.buffer.arg(),
        seen::ranges(client, attention.seen).arg(),
        y.arg(),
        seen::sizes(attention, 0),
        Shape {
            vectors: q.width / vector,
            vector,
            has_ranges: attention.seen.has_ranges(),
        },
        [q.buffer.elem, k.buffer.elem],
    );
    y
}

#[cube(launch)]
fn alone_kernel<Q: Float, K: Float, N: Size>(
    q: &[Vector<Q, N>],
    k: &[Vector<K, N>],
    v: &[Vector<K, N>],
    ranges: &[u32],
    y: &mut [Vector<Q, N>],
    sizes: &Sizes,
    #[comptime] shape: Shape,
    #[define(Q, K)] _elems: [ElemType; 2],
) {
    let vectors = comptime!(shape.vectors);
    let vector = comptime!(shape.vector);
    let heads = sizes.group * sizes.kv_heads;
    let row = ABSOLUTE_POS / heads;
    let head = ABSOLUTE_POS % heads;
    if row < sizes.rows {
        let query = (row * sizes.q_row + head * sizes.q_head) / vector;
        let kv_head = head / sizes.group;
        let mut out = Array::<Vector<f32, N>>::new(vectors);
        #[unroll]
        for d in 0..vectors {
            out[d] = Vector::new(0.0f32);
        }
        let mut largest = f32::new(-1e30);
        let mut total = 0.0f32;
        let (start, end) = seen_keys(ranges, sizes, row, shape.has_ranges);
        for key in start..end {
            let at = (key * sizes.k_row + kv_head * sizes.k_head) / vector;
            let mut score = Vector::<f32, N>::new(0.0f32);
            #[unroll]
            for d in 0..vectors {
                let a = Vector::<f32, N>::cast_from(q[query + d]);
                score += a * Vector::<f32, N>::cast_from(k[at + d]);
            }
            let score = across(score) * sizes.scale;
            let now = select(score > largest, score, largest);
            let factor = (largest - now).exp();
            let weight = (score - now).exp();
            largest = now;
            total = total * factor + weight;
            let at = (key * sizes.v_row + kv_head * sizes.v_head) / vector;
            let (factors, weights) = (Vector::<f32, N>::new(factor), Vector::<f32, N>::new(weight));
            #[unroll]
            for d in 0..vectors {
                let value = Vector::<f32, N>::cast_from(v[at + d]);
                out[d] = out[d] * factors + value * weights;
            }
        }
        let share = Vector::<f32, N>::new(select(total > 0.0f32, 1.0f32 / total, 0.0f32));
        #[unroll]
        for d in 0..vectors {
            y[ABSOLUTE_POS * vectors + d] = Vector::cast_from(out[d] * share);
        }
    }
}
