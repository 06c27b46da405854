//! One cube a head.

use cubecl::prelude::*;

use super::{NormParameters, normed};
use crate::packed::tiles::Rounding;
use crate::packed::tiles::activations::write_rounded;
use crate::reduce::cube_sum;
use crate::{Buffer, Heads, grid};

pub(super) fn launch(client: &Client, x: &Heads, parameters: NormParameters<'_>) -> Buffer {
    let y = Buffer::empty(client, x.buffer.elem, x.rows * x.heads * x.width);
    launch_into(
        client,
        x,
        parameters,
        (&y, (Rounding::natural(false), None)),
    );
    y
}

/// - y: `[heads, 1 or 2, width]`, rounded in the first way, and behind that in the second
pub(super) fn launch_into(
    client: &Client,
    x: &Heads,
    parameters: NormParameters<'_>,
    (y, roundings): (&Buffer, (Rounding, Option<Rounding>)),
) {
    let NormParameters { weight, bias, eps } = parameters;
    let units = (x.width / 2).next_power_of_two().clamp(16, 256);
    norm_kernel::launch(
        client,
        grid::cubes(x.rows * x.heads),
        CubeDim::new_1d(units as u32),
        x.buffer.arg(),
        weight.arg(),
        bias.unwrap_or(weight).arg(),
        y.arg(),
        x.rows * x.heads,
        x.heads,
        x.width,
        x.strides[0],
        x.strides[1],
        eps,
        bias.is_some(),
        roundings,
        units,
        [x.buffer.elem, weight.elem, y.elem],
    );
}

#[cube(launch)]
fn norm_kernel<X: Float, W: Float, Y: Float>(
    x: &[X],
    weight: &[W],
    bias: &[W],
    y: &mut [Y],
    count: usize,
    heads: usize,
    width: usize,
    row_stride: usize,
    head_stride: usize,
    eps: f32,
    #[comptime] centered: bool,
    #[comptime] roundings: (Rounding, Option<Rounding>),
    #[comptime] units: usize,
    #[define(X, W, Y)] _elems: [ElemType; 3],
) {
    let head = CUBE_POS;
    if head >= count {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let from = head / heads * row_stride + head % heads * head_stride;
    let mut room = Shared::<[f32]>::new_slice(units);
    let mut mean = 0.0f32;
    if comptime!(centered) {
        let mut sum = 0.0f32;
        let mut i = unit;
        while i < width {
            sum += f32::cast_from(x[from + i]);
            i += units;
        }
        mean = cube_sum(sum, &mut room, units) / f32::cast_from(width);
    }
    let mut squares = 0.0f32;
    let mut i = unit;
    while i < width {
        let v = f32::cast_from(x[from + i]) - mean;
        squares += v * v;
        i += units;
    }
    let square = cube_sum(squares, &mut room, units) / f32::cast_from(width);
    let factor = 1.0f32 / (square + eps).sqrt();
    let mut i = unit;
    while i < width {
        let v = (f32::cast_from(x[from + i]) - mean) * factor;
        let value = normed::<W>(v, weight, bias, i, centered);
        write_rounded::<Y>(y, 0usize, head, i, width, value, comptime!(roundings.0));
        if let Some(second) = comptime!(roundings.1) {
            let first = count * comptime!(roundings.0.halves()) * width;
            write_rounded::<Y>(y, first, head, i, width, value, second);
        }
        i += units;
    }
}
