//! Rows of activations in the form that matrix units take.

use cubecl::prelude::*;

use super::Activations;
use crate::grid::flat;
use crate::linear::vector;
use crate::{Buffer, Matrix};

/// Rows of `x` rounded to bf16 and padded to `columns`; with `split` each is followed by what the rounding took away.
///
/// - x: `[rows, width]`
/// - output: bf16 `[rows, 1 or 2, columns]`
#[must_use]
pub fn round(client: &Client, x: &Matrix, columns: usize, split: bool) -> Activations {
    let halves = if split { 2 } else { 1 };
    let rows = x.rows;
    let elem = half::bf16::elem_type_native();
    let rounded = Buffer::empty(client, elem, rows * halves * columns);
    let size = vector(&[x.width, x.stride, columns]);
    let (cubes, dim) = flat(rows * columns / size);
    #[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
    // SAFETY: units beyond the rounded numbers return.
    unsafe {
        round_kernel::launch_unchecked(
            client,
            cubes,
            dim,
            size,
            x.buffer.vectors(size),
            rounded.vectors(size),
            (rows * columns / size) as u32,
            (x.width / size) as u32,
            (x.stride / size) as u32,
            (columns / size) as u32,
            split,
            [x.buffer.elem, elem],
        );
    }
    Activations {
        buffer: rounded,
        split,
    }
}

/// So many zeros.
#[must_use]
pub fn zeros(client: &Client, count: usize, split: bool) -> Activations {
    let buffer = Buffer::empty(client, half::bf16::elem_type_native(), count);
    let (cubes, dim) = flat(count);
    #[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
    // SAFETY: units beyond the numbers return.
    unsafe {
        zeros_kernel::launch_unchecked(client, cubes, dim, buffer.arg());
    }
    Activations { buffer, split }
}

#[cube(launch_unchecked)]
fn zeros_kernel(x: &mut [half::bf16]) {
    if ABSOLUTE_POS < x.len() {
        x[ABSOLUTE_POS] = half::bf16::cast_from(0.0f32);
    }
}

/// A unit a vector of a row.
#[cube(launch_unchecked)]
fn round_kernel<X: Float, Y: Float, N: Size>(
    x: &[Vector<X, N>],
    rounded: &mut [Vector<Y, N>],
    count: u32,
    width: u32,
    stride: u32,
    columns: u32,
    #[comptime] split: bool,
    #[define(X, Y)] _elems: [ElemType; 2],
) {
    let at = ABSOLUTE_POS;
    if at >= count as usize {
        terminate!();
    }
    let (width, columns) = (width as usize, columns as usize);
    let (row, column) = (at / columns, at % columns);
    let mut value = Vector::<f32, N>::new(0.0f32);
    if column < width {
        value = Vector::cast_from(x[row * stride as usize + column]);
    }
    let high = Vector::<Y, N>::cast_from(value);
    if comptime!(split) {
        let to = row * 2usize * columns + column;
        rounded[to] = high;
        rounded[to + columns] = Vector::cast_from(value - Vector::<f32, N>::cast_from(high));
    } else {
        rounded[at] = high;
    }
}
