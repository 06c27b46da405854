//! One unit a head.

use cubecl::prelude::*;

use super::{NormParameters, normed};
use crate::{Buffer, Heads, grid};

pub(super) fn launch(client: &Client, x: &Heads, parameters: NormParameters<'_>) -> Buffer {
    let NormParameters { weight, bias, eps } = parameters;
    let y = Buffer::empty(client, x.buffer.elem, x.rows * x.heads * x.width);
    let (count, dim) = grid::flat(x.rows * x.heads);
    norm_kernel::launch(
        client,
        count,
        dim,
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
        [x.buffer.elem, weight.elem],
    );
    y
}

#[cube(launch)]
fn norm_kernel<X: Float, W: Float>(
    x: &[X],
    weight: &[W],
    bias: &[W],
    y: &mut [X],
    count: usize,
    heads: usize,
    width: usize,
    row_stride: usize,
    head_stride: usize,
    eps: f32,
    #[comptime] centered: bool,
    #[define(X, W)] _elems: [ElemType; 2],
) {
    let head = ABSOLUTE_POS;
    if head < count {
        let from = head / heads * row_stride + head % heads * head_stride;
        let mut mean = 0.0f32;
        if comptime!(centered) {
            let mut sum = 0.0f32;
            for i in 0..width {
                sum += f32::cast_from(x[from + i]);
            }
            mean = sum / f32::cast_from(width);
        }
        let mut squares = 0.0f32;
        for i in 0..width {
            let v = f32::cast_from(x[from + i]) - mean;
            squares += v * v;
        }
        let factor = 1.0f32 / (squares / f32::cast_from(width) + eps).sqrt();
        for i in 0..width {
            let v = (f32::cast_from(x[from + i]) - mean) * factor;
            y[head * width + i] = X::cast_from(normed::<W>(v, weight, bias, i, centered));
        }
    }
}
