//! Rows of activations in the form that matrix units take.

use cubecl::prelude::*;

use super::{Activations, ColumnOrder, Rounding};
use crate::grid::flat;
use crate::linear::vector;
use crate::{Buffer, Matrix};

/// Rows of `x` rounded to bf16 and padded to `columns`; with `split` each is followed by what the rounding took away.
///
/// - x: `[rows, width]`
/// - output: bf16 `[rows, 1 or 2, columns]`, each row in `order`
#[must_use]
pub fn round(
    client: &Client,
    x: &Matrix,
    (columns, order): (usize, ColumnOrder),
    split: bool,
) -> Activations {
    let halves = if split { 2 } else { 1 };
    let elem = half::bf16::elem_type_native();
    let rounded = Buffer::empty(client, elem, x.rows * halves * columns);
    round_into(client, x, &rounded, (columns, order), split);
    Activations {
        buffer: rounded,
        order,
        split,
    }
}

/// The same into a buffer, whatever its elements.
///
/// # Panics
/// When an odd number of columns is to be put into the order of products, which packed matrices never have.
pub fn round_into(
    client: &Client,
    x: &Matrix,
    rounded: &Buffer,
    (columns, order): (usize, ColumnOrder),
    split: bool,
) {
    let rows = x.rows;
    assert!(
        order == ColumnOrder::Natural
            || x.width.is_multiple_of(PAIR) && x.stride.is_multiple_of(PAIR),
        "rows of {} numbers have no pairs",
        x.width
    );
    let size = match order {
        ColumnOrder::Natural => vector(&[x.width, x.stride, columns]),
        ColumnOrder::Products(_) => PAIR,
    };
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
            order,
            split,
            [x.buffer.elem, rounded.elem],
        );
    }
}

/// Numbers that stay side by side in [`ColumnOrder::Products`].
const PAIR: usize = 2;

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
    Activations {
        buffer,
        order: ColumnOrder::Natural,
        split,
    }
}

/// Room for what lies between gate and up and down of so many choices, zero behind the width.
#[must_use]
pub fn between(
    client: &Client,
    choices: usize,
    rounding: Rounding,
    (width, stride): (usize, usize),
) -> Activations {
    let count = choices * rounding.halves() * stride;
    let buffer = if width < stride {
        zeros(client, count, rounding.split).buffer
    } else {
        Buffer::empty(client, half::bf16::elem_type_native(), count)
    };
    Activations::rounded(buffer, rounding)
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
    #[comptime] order: ColumnOrder,
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
    let mut source = column;
    if let ColumnOrder::Products(block) = comptime!(order) {
        source = source_pair(column, block);
    }
    if source < width {
        value = Vector::cast_from(x[row * stride as usize + source]);
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

/// Writes number `at` of row `row`, rounded.
///
/// - y: `[rows, 1 or 2, width]`, whose first number is number `first`
#[cube]
pub(crate) fn write_rounded<Y: Float>(
    y: &mut [Y],
    first: usize,
    row: usize,
    at: usize,
    width: usize,
    value: f32,
    #[comptime] rounding: Rounding,
) {
    let high = Y::cast_from(value);
    let mut place = at;
    if let ColumnOrder::Products(block) = comptime!(rounding.order) {
        place = place_in_products(at, block);
    }
    let to = first + row * comptime!(rounding.halves()) * width + place;
    y[to] = high;
    if comptime!(rounding.split) {
        y[to + width] = Y::cast_from(value - f32::cast_from(high));
    }
}

/// Which pair of columns is pair number `to` of [`ColumnOrder::Products`]: of 64 numbers the pairs `step`, `side` and `block` of
/// 4 x 2 x 4.
#[cube]
fn source_pair(to: usize, #[comptime] block: usize) -> usize {
    let (span, within) = (to / comptime!(2 * block), to % comptime!(2 * block));
    let (part, pair) = (within / 32usize, within % 32usize);
    let inside = part * 8usize + pair / 4usize;
    span * comptime!(2 * block) + pair % 4usize * comptime!(block / 2) + inside
}

/// Where the number of a column lies in [`ColumnOrder::Products`].
#[cube]
pub(crate) fn place_in_products(column: usize, #[comptime] block: usize) -> usize {
    let (span, within) = (column / comptime!(4 * block), column % comptime!(4 * block));
    let (of, inside) = (within / block, within % block);
    let (part, pair) = (inside / 16usize, inside % 16usize / 2usize);
    span * comptime!(4 * block) + part * 64usize + pair * 8usize + of * 2usize + inside % 2usize
}
