//! Rotary embedding, one unit a pair.

use cubecl::prelude::*;

use crate::norm::{NormParameters, norm};
use crate::reduce::{Lanes, lanes_sum};
use crate::{Buffer, Heads, On, Units, grid};

/// Cosines and sines of the angles of every row, `[rows, width / 2]` each, of one type.
#[derive(Clone, Copy, Debug)]
pub struct Angles<'a> {
    /// Cosines.
    pub cos: &'a Buffer,
    /// Sines.
    pub sin: &'a Buffer,
}

/// Turns the pairs `(j, j + width / 2)` of every head; heads lie side by side in the output.
#[must_use]
pub fn rope(client: &Client, x: &Heads, angles: Angles<'_>) -> Buffer {
    let half = x.width / 2;
    let count = x.rows * x.heads * half;
    let y = Buffer::empty(client, x.buffer.elem, 2 * count);
    let (cubes, dim) = grid::flat(count);
    rope_kernel::launch(
        client,
        cubes,
        dim,
        x.buffer.arg(),
        angles.cos.arg(),
        angles.sin.arg(),
        y.arg(),
        count,
        x.heads,
        half,
        x.strides[0],
        x.strides[1],
        [x.buffer.elem, angles.cos.elem],
    );
    y
}

/// [`rope`] of the root-mean-square norm of every head.
///
/// # Panics
/// When the norm has a bias.
#[must_use]
pub fn normed_rope<'a>(
    on: impl Into<On<'a>>,
    x: &Heads,
    parameters: NormParameters<'_>,
    angles: Angles<'_>,
) -> Buffer {
    let On { client, units } = on.into();
    assert!(parameters.bias.is_none(), "heads are normed without a bias");
    if units == Units::Alone {
        let normed = Heads {
            buffer: norm(On { client, units }, x, parameters),
            strides: [x.heads * x.width, x.width],
            ..x.clone()
        };
        return rope(client, &normed, angles);
    }
    let y = Buffer::empty(client, x.buffer.elem, x.rows * x.heads * x.width);
    let lanes = Lanes::of(client);
    normed_kernel::launch(
        client,
        grid::cubes((x.rows * x.heads).div_ceil(lanes.groups)),
        lanes.dim(),
        x.buffer.arg(),
        parameters.weight.arg(),
        angles.cos.arg(),
        angles.sin.arg(),
        y.arg(),
        x.rows * x.heads,
        x.heads,
        x.width / 2,
        x.strides[0],
        x.strides[1],
        parameters.eps,
        lanes,
        [x.buffer.elem, parameters.weight.elem, angles.cos.elem],
    );
    y
}

/// The lanes of a group share a head.
#[cube(launch)]
fn normed_kernel<X: Float, W: Float, A: Float>(
    x: &[X],
    weight: &[W],
    cos: &[A],
    sin: &[A],
    y: &mut [X],
    count: usize,
    heads: usize,
    half: usize,
    row_stride: usize,
    head_stride: usize,
    eps: f32,
    #[comptime] lanes: Lanes,
    #[define(X, W, A)] _elems: [ElemType; 3],
) {
    let lane = UNIT_POS_X as usize;
    let head = CUBE_POS * comptime!(lanes.groups) + UNIT_POS_Y as usize;
    // Groups behind the last head take part in the sums with it, and write nothing.
    let inside = head < count;
    let head = select(inside, head, count - 1);
    let row = head / heads;
    let from = row * row_stride + head % heads * head_stride;
    let mut squares = 0.0f32;
    let mut pair = lane;
    while pair < half {
        let a = f32::cast_from(x[from + pair]);
        let b = f32::cast_from(x[from + half + pair]);
        squares += a * a + b * b;
        pair += comptime!(lanes.count);
    }
    let mut room = Shared::<[f32]>::new_slice(comptime!(lanes.units()));
    let mean = lanes_sum(squares, &mut room, lanes) / f32::cast_from(2 * half);
    let factor = 1.0f32 / (mean + eps).sqrt();
    let mut pair = lane;
    while pair < half && inside {
        let a = f32::cast_from(x[from + pair]) * factor * f32::cast_from(weight[pair]);
        let b =
            f32::cast_from(x[from + half + pair]) * factor * f32::cast_from(weight[half + pair]);
        let c = f32::cast_from(cos[row * half + pair]);
        let s = f32::cast_from(sin[row * half + pair]);
        let to = head * 2 * half + pair;
        y[to] = X::cast_from(a * c - b * s);
        y[to + half] = X::cast_from(b * c + a * s);
        pair += comptime!(lanes.count);
    }
}

#[cube(launch)]
fn rope_kernel<X: Float, A: Float>(
    x: &[X],
    cos: &[A],
    sin: &[A],
    y: &mut [X],
    count: usize,
    heads: usize,
    half: usize,
    row_stride: usize,
    head_stride: usize,
    #[define(X, A)] _elems: [ElemType; 2],
) {
    if ABSOLUTE_POS < count {
        let pair = ABSOLUTE_POS % half;
        let head = ABSOLUTE_POS / half;
        let row = head / heads;
        let from = row * row_stride + head % heads * head_stride + pair;
        let (a, b) = (f32::cast_from(x[from]), f32::cast_from(x[from + half]));
        let c = f32::cast_from(cos[row * half + pair]);
        let s = f32::cast_from(sin[row * half + pair]);
        let to = head * 2 * half + pair;
        y[to] = X::cast_from(a * c - b * s);
        y[to + half] = X::cast_from(b * c + a * s);
    }
}
