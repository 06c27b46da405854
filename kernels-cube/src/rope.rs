//! Rotary embedding, one unit a pair.

use cubecl::prelude::*;

use crate::{Buffer, Heads, grid};

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
