//! Rows written into a store that stays where it is, and read from it.

use cubecl::prelude::*;

use crate::e4m3::{self, WORD, byte_of, number};
use crate::{Buffer, Heads, grid};

/// Writes `rows` into `store` from row `at` on, in the type of the store: to [`crate::E4M3`] with the nearest numbers, ±448
/// beyond those.
///
/// # Shapes
/// - store: `[capacity, heads, width]`, side by side; E4M3 in whole words
///
/// # Panics
/// When a store of E4M3 has heads that are no whole words.
pub fn write_rows(client: &Client, rows: &Heads, store: &Buffer, at: usize) {
    let row = rows.heads * rows.width;
    if e4m3::are_in(store) {
        assert!(rows.width.is_multiple_of(WORD), "heads are whole words");
        let words = rows.rows * row / WORD;
        let (count, dim) = grid::flat(words);
        encode_kernel::launch(
            client,
            count,
            dim,
            rows.buffer.arg(),
            store.vectors(WORD),
            at * row / WORD,
            words,
            rows.heads,
            rows.width,
            rows.strides[0],
            rows.strides[1],
            rows.buffer.elem,
        );
        return;
    }
    let (count, dim) = grid::flat(rows.rows * row);
    let place = store.part(at * row, rows.rows * row);
    write_kernel::launch(
        client,
        count,
        dim,
        rows.buffer.arg(),
        place.arg(),
        rows.rows * row,
        rows.heads,
        rows.width,
        rows.strides[0],
        rows.strides[1],
        [rows.buffer.elem, store.elem],
    );
}

/// The first `count` rows of a store of [`crate::E4M3`] in f32, side by side.
#[must_use]
pub fn read_rows(client: &Client, store: &Heads, count: usize) -> Heads {
    let row = store.heads * store.width;
    let read = Heads {
        buffer: Buffer::empty(client, f32::elem_type_native(), count * row),
        rows: count,
        strides: [row, store.width],
        ..*store
    };
    let (cubes, dim) = grid::flat(count * row);
    let (numbers, elem) = e4m3::readable(&store.buffer);
    read_kernel::launch(
        client,
        cubes,
        dim,
        numbers,
        read.buffer.arg(),
        count * row,
        store.heads,
        store.width,
        store.strides[0],
        store.strides[1],
        e4m3::are_in(&store.buffer),
        elem,
    );
    read
}

#[cube(launch)]
fn write_kernel<X: Float, S: Float>(
    x: &[X],
    store: &mut [S],
    len: usize,
    heads: usize,
    width: usize,
    row_stride: usize,
    head_stride: usize,
    #[define(X, S)] _elems: [ElemType; 2],
) {
    let at = ABSOLUTE_POS;
    if at < len {
        let row = at / width / heads;
        let head = at / width % heads;
        let from = row * row_stride + head * head_stride + at % width;
        store[at] = S::cast_from(f32::cast_from(x[from]));
    }
}

/// A unit has a word.
#[cube(launch)]
fn encode_kernel<X: Float>(
    x: &[X],
    store: &mut [u32],
    first: usize,
    words: usize,
    heads: usize,
    width: usize,
    row_stride: usize,
    head_stride: usize,
    #[define(X)] _elem: ElemType,
) {
    if ABSOLUTE_POS < words {
        let at = ABSOLUTE_POS * WORD;
        let row = at / width / heads;
        let head = at / width % heads;
        let from = row * row_stride + head * head_stride + at % width;
        let mut word = 0u32;
        #[unroll]
        for i in 0..WORD {
            word |= byte_of(f32::cast_from(x[from + i])) << comptime!(i as u32 * 8);
        }
        store[first + ABSOLUTE_POS] = word;
    }
}

#[cube(launch)]
fn read_kernel<S: Numeric>(
    store: &[S],
    y: &mut [f32],
    len: usize,
    heads: usize,
    width: usize,
    row_stride: usize,
    head_stride: usize,
    #[comptime] e4m3: bool,
    #[define(S)] _elem: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < len {
        let row = at / width / heads;
        let head = at / width % heads;
        let from = row * row_stride + head * head_stride + at % width;
        y[at] = number(store, from, e4m3);
    }
}
