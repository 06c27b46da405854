//! Streams that arrive in parts.

use cubecl::prelude::*;

use crate::linear::vector;
use crate::{Buffer, Matrix, grid};

/// New rows of a stream behind those that were kept of it, and of all together the last, as many as were kept.
///
/// # Shapes
/// - kept: `[reach, width]`, x: `[rows, width]`, of one type, both of at least one row
/// - output: `[reach + rows, width]` and `[reach, width]`
#[must_use]
pub fn extend(client: &Client, kept: &Matrix, x: &Matrix) -> [Buffer; 2] {
    let elem = x.buffer.elem;
    let size = vector(&[x.width, x.stride, kept.stride]);
    let [all, last] =
        [kept.rows + x.rows, kept.rows].map(|rows| Buffer::empty(client, elem, rows * x.width));
    let len = all.len() / size;
    let (count, dim) = grid::flat(len);
    extend_kernel::launch(
        client,
        count,
        dim,
        size,
        kept.buffer.vectors(size),
        x.buffer.vectors(size),
        all.vectors(size),
        last.vectors(size),
        len,
        x.width / size,
        kept.stride / size,
        x.stride / size,
        kept.rows,
        x.rows,
        elem,
    );
    [all, last]
}

#[cube(launch)]
fn extend_kernel<X: Float, N: Size>(
    kept: &[Vector<X, N>],
    x: &[Vector<X, N>],
    all: &mut [Vector<X, N>],
    last: &mut [Vector<X, N>],
    len: usize,
    width: usize,
    kept_stride: usize,
    stride: usize,
    reach: usize,
    rows: usize,
    #[define(X)] _elem: ElemType,
) {
    if ABSOLUTE_POS < len {
        let (row, at) = (ABSOLUTE_POS / width, ABSOLUTE_POS % width);
        if row < reach {
            all[ABSOLUTE_POS] = kept[row * kept_stride + at];
        } else {
            all[ABSOLUTE_POS] = x[(row - reach) * stride + at];
        }
        if row >= rows {
            last[(row - rows) * width + at] = all[ABSOLUTE_POS];
        }
    }
}
