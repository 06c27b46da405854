//! From fused rows to queries, and to a cache.

use cubecl::prelude::*;

use crate::decode::Cache;
use crate::linear::{across, vector};
use crate::reduce::{Lanes, lanes_sum};
use crate::rope::{Angles, normed_rope};
use crate::store::write_rows;
use crate::{Buffer, Heads, NormParameters, e4m3, grid};

/// Rows of queries, keys and values side by side.
#[derive(Clone, Copy, Debug)]
pub struct Fused<'a> {
    /// `[rows, heads + 2 * kv_heads, head_dim]`
    pub qkv: &'a Heads,
    /// How many are queries, and how many are keys.
    pub heads: [usize; 2],
    /// Weights of the norms of queries and keys, of one type.
    pub norms: [&'a Buffer; 2],
    /// What is added to their mean squares.
    pub eps: f32,
    /// Of every row.
    pub angles: Angles<'a>,
}

/// The queries of fused rows, normed by head and rotated; keys, likewise, and values are written into the cache, from row `at` on.
///
/// # Shapes
/// - cache: `[capacity, kv_heads, head_dim]` each
/// - output: `[rows, heads, head_dim]`, of the type of the rows, or with `rounds` in bf16 where the cache is not E4M3
#[must_use]
pub fn queries(
    client: &Client,
    fused: Fused<'_>,
    (cache, at): (&Cache, usize),
    rounds: bool,
) -> Buffer {
    if e4m3::are_in(&cache.keys) {
        return one_by_one(client, fused, (cache, at));
    }
    let Fused {
        qkv,
        heads: [heads, kv_heads],
        norms,
        eps,
        angles,
    } = fused;
    let width = qkv.width;
    let elem = if rounds {
        half::bf16::elem_type_native()
    } else {
        qkv.buffer.elem
    };
    let y = Buffer::empty(client, elem, qkv.rows * heads * width);
    let new = |store: &Buffer| store.part(at * kv_heads * width, qkv.rows * kv_heads * width);
    let lanes = Lanes::of(client);
    let all = qkv.rows * (heads + 2 * kv_heads);
    let [row, head] = qkv.strides;
    let size = vector(&[width / 2, row, head]).min(2);
    queries_kernel::launch(
        client,
        grid::cubes(all.div_ceil(lanes.groups)),
        lanes.dim(),
        size,
        qkv.buffer.vectors(size),
        norms[0].vectors(size),
        norms[1].vectors(size),
        angles.cos.vectors(size),
        angles.sin.vectors(size),
        y.vectors(size),
        new(&cache.keys).vectors(size),
        new(&cache.values).vectors(size),
        qkv.rows,
        heads,
        kv_heads,
        row / size,
        head / size,
        eps,
        width / 2 / size,
        lanes,
        [
            qkv.buffer.elem,
            norms[0].elem,
            angles.cos.elem,
            elem,
            cache.keys.elem,
        ],
    );
    y
}

/// The same for a cache of E4M3, whose words are of four numbers side by side.
fn one_by_one(client: &Client, fused: Fused<'_>, (cache, at): (&Cache, usize)) -> Buffer {
    let Fused {
        qkv,
        heads: [heads, kv_heads],
        norms,
        eps,
        angles,
    } = fused;
    let part = |first: usize, count: usize| {
        let start = first * qkv.strides[1];
        Heads {
            buffer: qkv.buffer.part(start, qkv.buffer.len() - start),
            heads: count,
            ..*qkv
        }
    };
    let [q, k] =
        [(0, heads, norms[0]), (heads, kv_heads, norms[1])].map(|(first, count, weight)| {
            let bias = None;
            let parameters = NormParameters { weight, bias, eps };
            normed_rope(client, &part(first, count), parameters, angles)
        });
    let k = Heads {
        buffer: k,
        heads: kv_heads,
        strides: [kv_heads * qkv.width, qkv.width],
        ..*qkv
    };
    write_rows(client, &k, &cache.keys, at);
    write_rows(client, &part(heads + kv_heads, kv_heads), &cache.values, at);
    q
}

/// The lanes of a group share a head.
///
/// - half: vectors of half a head
#[cube(launch)]
fn queries_kernel<X: Float, W: Float, A: Float, Q: Float, S: Float, N: Size>(
    qkv: &[Vector<X, N>],
    q_norm: &[Vector<W, N>],
    k_norm: &[Vector<W, N>],
    cos: &[Vector<A, N>],
    sin: &[Vector<A, N>],
    y: &mut [Vector<Q, N>],
    keys: &mut [Vector<S, N>],
    values: &mut [Vector<S, N>],
    rows: usize,
    heads: usize,
    kv_heads: usize,
    row_stride: usize,
    head_stride: usize,
    eps: f32,
    #[comptime] half: usize,
    #[comptime] lanes: Lanes,
    #[define(X, W, A, Q, S)] _elems: [ElemType; 5],
) {
    let lane = UNIT_POS_X as usize;
    let number = CUBE_POS * comptime!(lanes.groups) + UNIT_POS_Y as usize;
    let all = heads + 2usize * kv_heads;
    // Groups behind the last head take part in the sums with it, and write nothing.
    let inside = number < rows * all;
    let number = select(inside, number, rows * all - 1usize);
    let (row, head) = (number / all, number % all);
    let from = row * row_stride + head * head_stride;
    let each = comptime!(half.div_ceil(lanes.count));
    let mut firsts = Array::<Vector<f32, N>>::new(each);
    let mut seconds = Array::<Vector<f32, N>>::new(each);
    let mut squares = Vector::<f32, N>::new(0.0f32);
    #[unroll]
    for i in 0..each {
        let at = lane + i * comptime!(lanes.count);
        firsts[i] = Vector::new(0.0f32);
        seconds[i] = Vector::new(0.0f32);
        if at < half {
            firsts[i] = Vector::cast_from(qkv[from + at]);
            seconds[i] = Vector::cast_from(qkv[from + half + at]);
        }
        squares += firsts[i] * firsts[i] + seconds[i] * seconds[i];
    }
    let mut room = Shared::<[f32]>::new_slice(comptime!(lanes.units()));
    let numbers = comptime!(2 * half) * N::value();
    let mean = lanes_sum(across(squares), &mut room, lanes) / f32::cast_from(numbers);
    let factor = Vector::new(1.0f32 / (mean + eps).sqrt());
    let is_query = head < heads;
    let is_value = head >= heads + kv_heads;
    // Of keys and values, which head.
    let stored = (head - select(is_value, heads + kv_heads, heads)) % kv_heads;
    let store = (row * kv_heads + stored) * comptime!(2 * half);
    #[unroll]
    for i in 0..each {
        let at = lane + i * comptime!(lanes.count);
        if at < half && inside {
            let (a, b) = (firsts[i], seconds[i]);
            if is_value {
                values[store + at] = Vector::cast_from(a);
                values[store + half + at] = Vector::cast_from(b);
            } else {
                let low = Vector::<f32, N>::cast_from(select(is_query, q_norm[at], k_norm[at]));
                let high = select(is_query, q_norm[half + at], k_norm[half + at]);
                let (a, b) = (a * factor * low, b * factor * Vector::cast_from(high));
                let c = Vector::<f32, N>::cast_from(cos[row * half + at]);
                let s = Vector::<f32, N>::cast_from(sin[row * half + at]);
                let (first, second) = (a * c - b * s, b * c + a * s);
                if is_query {
                    let to = (row * heads + head) * comptime!(2 * half) + at;
                    y[to] = Vector::cast_from(first);
                    y[to + half] = Vector::cast_from(second);
                } else {
                    keys[store + at] = Vector::cast_from(first);
                    keys[store + half + at] = Vector::cast_from(second);
                }
            }
        }
    }
}
