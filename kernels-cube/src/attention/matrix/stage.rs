//! Keys and values on their way to the matrix units.

use cubecl::prelude::*;

use super::rows::Block;
use super::{N4, STAGES, STEP, Shape, VECTOR};
use crate::attention::seen::Sizes;
use crate::e4m3::{self, number};
use crate::grid::flat;
use crate::matrix_units::{Instructions, copy_vector, pack_bf16, unit};
use crate::{Buffer, Heads};

/// The first `count` keys and values in bf16, side by side.
pub(super) fn round(
    client: &Client,
    [k, v]: [&Heads; 2],
    count: usize,
    instructions: Instructions,
) -> [Heads; 2] {
    let size = k.heads * k.width;
    let rounded = [k, v].map(|heads| Heads {
        buffer: Buffer::empty(client, half::bf16::elem_type_native(), count * size),
        rows: count,
        strides: [size, k.width],
        ..*heads
    });
    let words = count * size / 2;
    let [(keys, elem), (values, _)] = [k, v].map(|heads| e4m3::readable(&heads.buffer));
    let (cubes, dim) = flat(words);
    #[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
    // SAFETY: units beyond the words return.
    unsafe {
        round_kernel::launch_unchecked(
            client,
            cubes,
            dim,
            keys,
            values,
            rounded[0].buffer.vectors(2),
            rounded[1].buffer.vectors(2),
            words,
            k.heads,
            k.width / 2,
            k.strides[0],
            k.strides[1],
            v.strides[0],
            v.strides[1],
            instructions,
            e4m3::are_in(&k.buffer),
            elem,
        );
    }
    rounded
}

#[cube(launch_unchecked)]
fn round_kernel<K: Numeric>(
    k: &[K],
    v: &[K],
    keys: &mut [u32],
    values: &mut [u32],
    words: usize,
    heads: usize,
    pairs: usize,
    k_row: usize,
    k_head: usize,
    v_row: usize,
    v_head: usize,
    #[comptime] instructions: Instructions,
    #[comptime] e4m3: bool,
    #[define(K)] _elem: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < words {
        let d = at % pairs * 2usize;
        let head = at / pairs % heads;
        let row = at / pairs / heads;
        let from = row * k_row + head * k_head + d;
        let (first, second) = (number(k, from, e4m3), number(k, from + 1usize, e4m3));
        keys[at] = pack_bf16(first, second, instructions);
        let from = row * v_row + head * v_head + d;
        let (first, second) = (number(v, from, e4m3), number(v, from + 1usize, e4m3));
        values[at] = pack_bf16(first, second, instructions);
    }
}

/// Starts the copies of the tile of keys and values from `key` on; behind the last comes the last again, where nothing
/// may have been written yet.
#[cube]
#[allow(
    clippy::too_many_arguments,
    reason = "what a kernel has, its parts need"
)]
pub(super) fn copy(
    k: &[Vector<u32, N4>],
    v: &[Vector<u32, N4>],
    stage: &mut Shared<[Vector<u32, N4>]>,
    sizes: &Sizes,
    block: &Block,
    key: usize,
    side: usize,
    #[comptime] shape: Shape,
) {
    let units = shape.blocking.units();
    let vectors = comptime!(shape.width / VECTOR);
    let count = comptime!(shape.blocking.keys * vectors);
    let last = block.end - 1usize;
    let (k_head, v_head) = (block.kv_head * sizes.k_head, block.kv_head * sizes.v_head);
    #[unroll]
    for i in 0..comptime!(count.div_ceil(units)) {
        let at = i * units + unit();
        if comptime!(count.is_multiple_of(units)) || at < count {
            let (place, vector) = (at / vectors, at % vectors);
            let row = select(key + place < last, key + place, last);
            let from = (row * sizes.k_row + k_head) / VECTOR + vector;
            let to = side + place * shape.key_stride() + vector;
            copy_vector(k, from, stage, to, shape.instructions);
            let from = (row * sizes.v_row + v_head) / VECTOR + vector;
            let to = side + shape.key_vectors() + place * shape.value_stride() + vector;
            copy_vector(v, from, stage, to, shape.instructions);
        }
    }
}

/// Zeros behind the numbers of keys, up to whole steps; queries have zeros there too.
#[cube]
pub(super) fn pad(stage: &mut Shared<[Vector<u32, N4>]>, #[comptime] shape: Shape) {
    let vectors = comptime!(shape.width / VECTOR);
    let behind = comptime!(shape.steps() * STEP / VECTOR - vectors);
    if comptime!(behind > 0) {
        let mut at = unit();
        while at < comptime!(STAGES * shape.blocking.keys * behind) {
            let (row, vector) = (at / behind, vectors + at % behind);
            let tile = row / shape.blocking.keys * shape.vectors();
            let to = tile + row % shape.blocking.keys * shape.key_stride() + vector;
            stage[to] = Vector::new(0u32);
            at += shape.blocking.units();
        }
    }
}
