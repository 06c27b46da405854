//! Streams that arrive in parts.

use cubecl::prelude::*;

use crate::activation::snake_of;
use crate::linear::vector;
use crate::packed::tiles::Activations;
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

/// [`snake`](crate::snake) of a stream's rows, rounded to bf16 as matrix units take them: of those that were kept, if any, and
/// behind them the new ones. With them the last of all rows as they came, as many as were kept.
///
/// # Shapes
/// - kept: `[reach, width]`, x: `[rows, width]`, of one type, both of at least one row
/// - alpha, inverse_beta: `[width]`, of one type
/// - output: bf16 `[reach + rows, 1 or 2, width]`, with `split` what rounding took away behind each row; and `[reach, width]`
#[must_use]
pub fn snaked(
    client: &Client,
    (kept, x): (Option<&Matrix>, &Matrix),
    [alpha, inverse_beta]: [&Buffer; 2],
    split: bool,
) -> (Activations, Option<Buffer>) {
    let halves = if split { 2 } else { 1 };
    let rows = x.rows + kept.map_or(0, |kept| kept.rows);
    let elem = half::bf16::elem_type_native();
    let rounded = Buffer::empty(client, elem, rows * halves * x.width);
    let last = snaked_into(client, (kept, x), [alpha, inverse_beta], &rounded, split);
    (Activations::new(rounded, split), last)
}

/// The same into a buffer of as many numbers, whatever their type.
pub fn snaked_into(
    client: &Client,
    (kept, x): (Option<&Matrix>, &Matrix),
    [alpha, inverse_beta]: [&Buffer; 2],
    rounded: &Buffer,
    split: bool,
) -> Option<Buffer> {
    let keeps = kept.is_some();
    let nothing = Matrix {
        rows: 0,
        ..x.clone()
    };
    let kept = kept.unwrap_or(&nothing);
    let size = vector(&[x.width, x.stride, kept.stride]);
    let last = Buffer::empty(client, x.buffer.elem, (kept.rows * x.width).max(size));
    let len = (kept.rows + x.rows) * x.width / size;
    let (count, dim) = grid::flat(len);
    snaked_kernel::launch(
        client,
        count,
        dim,
        size,
        kept.buffer.vectors(size),
        x.buffer.vectors(size),
        alpha.vectors(size),
        inverse_beta.vectors(size),
        rounded.vectors(size),
        last.vectors(size),
        len,
        x.width / size,
        kept.stride / size,
        x.stride / size,
        kept.rows,
        x.rows,
        keeps,
        split,
        [x.buffer.elem, alpha.elem, rounded.elem],
    );
    keeps.then_some(last)
}

#[cube(launch)]
fn snaked_kernel<X: Float, P: Float, Y: Float, N: Size>(
    kept: &[Vector<X, N>],
    x: &[Vector<X, N>],
    alpha: &[Vector<P, N>],
    inverse_beta: &[Vector<P, N>],
    rounded: &mut [Vector<Y, N>],
    last: &mut [Vector<X, N>],
    len: usize,
    width: usize,
    kept_stride: usize,
    stride: usize,
    reach: usize,
    rows: usize,
    #[comptime] keeps: bool,
    #[comptime] split: bool,
    #[define(X, P, Y)] _elems: [ElemType; 3],
) {
    if ABSOLUTE_POS < len {
        let (row, at) = (ABSOLUTE_POS / width, ABSOLUTE_POS % width);
        let mut value = x[select(row < reach, 0usize, row - reach) * stride + at];
        if comptime!(keeps) {
            if row < reach {
                value = kept[row * kept_stride + at];
            }
            if row >= rows {
                last[(row - rows) * width + at] = value;
            }
        }
        let value = snake_of::<N>(
            Vector::cast_from(value),
            Vector::cast_from(alpha[at]),
            Vector::cast_from(inverse_beta[at]),
        );
        let high = Vector::<Y, N>::cast_from(value);
        if comptime!(split) {
            let to = row * 2usize * width + at;
            rounded[to] = high;
            rounded[to + width] = Vector::cast_from(value - Vector::<f32, N>::cast_from(high));
        } else {
            rounded[ABSOLUTE_POS] = high;
        }
    }
}
