//! Rows written into a store that stays where it is.

use cubecl::prelude::*;

use crate::{Buffer, Heads, grid};

/// Writes `rows` into `store` from row `at` on, in the type of the store.
///
/// # Shapes
/// - store: `[capacity, heads, width]`, side by side
pub fn write_rows(client: &Client, rows: &Heads, store: &Buffer, at: usize) {
    let row = rows.heads * rows.width;
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
