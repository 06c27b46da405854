//! Rows of activations in the form that matrix units take.

use cubecl::prelude::*;

use super::Activations;
use crate::Buffer;
use crate::grid::flat;

/// Rows of `x` rounded to bf16 and padded to `columns`; with `split` each is followed by what the rounding took away.
///
/// - x: `[rows, width]`
/// - output: bf16 `[rows, 1 or 2, columns]`
#[must_use]
pub fn round(
    client: &Client,
    (x, width): (&Buffer, usize),
    columns: usize,
    split: bool,
) -> Activations {
    let halves = if split { 2 } else { 1 };
    let count = x.len() / width * halves * columns;
    let rounded = Buffer::empty(client, half::bf16::elem_type_native(), count);
    let (cubes, dim) = flat(count);
    #[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
    // SAFETY: units beyond the rounded numbers return.
    unsafe {
        round_kernel::launch_unchecked(
            client,
            cubes,
            dim,
            x.arg(),
            rounded.arg(),
            width as u32,
            columns as u32,
            split,
            x.elem,
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

#[cube(launch_unchecked)]
fn round_kernel<X: Float>(
    x: &[X],
    rounded: &mut [half::bf16],
    width: u32,
    columns: u32,
    #[comptime] split: bool,
    #[define(X)] _elem: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at >= rounded.len() {
        terminate!();
    }
    let (width, columns) = (width as usize, columns as usize);
    let column = at % columns;
    let mut row = at / columns;
    let mut value = 0.0f32;
    if comptime!(split) {
        let rest = row % 2usize;
        row /= 2usize;
        if column < width {
            value = f32::cast_from(x[row * width + column]);
            if rest == 1usize {
                value -= f32::cast_from(half::bf16::cast_from(value));
            }
        }
    } else if column < width {
        value = f32::cast_from(x[row * width + column]);
    }
    rounded[at] = half::bf16::cast_from(value);
}
