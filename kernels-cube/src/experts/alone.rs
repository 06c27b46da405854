//! A unit goes through the rows of a weight alone.

use cubecl::prelude::*;

use super::{ExpertMatrices, Work};
use crate::grid;
use crate::linear::{across, vector};
use crate::math::silu;

pub(super) fn launch(client: &Client, work: Work<'_>) {
    let Work {
        x,
        routes,
        matrices: ExpertMatrices { gate_up, down },
        inner,
        y,
    } = work;
    let (top_k, intermediate) = (routes.top_k, down.width);
    let (count, dim) = grid::flat(x.rows * top_k * intermediate);
    let wide = vector(&[x.width, x.stride, gate_up.stride]);
    gate_up_kernel::launch(
        client,
        count,
        dim,
        wide,
        x.buffer.arg(),
        routes.ids.arg(),
        gate_up.buffer.arg(),
        inner.arg(),
        x.rows * top_k * intermediate,
        top_k,
        intermediate,
        x.width / wide,
        x.stride / wide,
        gate_up.stride / wide,
        [x.buffer.elem, gate_up.buffer.elem],
    );
    let (count, dim) = grid::flat(x.rows * x.width);
    let wide = vector(&[intermediate, down.stride]);
    down_kernel::launch(
        client,
        count,
        dim,
        wide,
        inner.arg(),
        routes.ids.arg(),
        routes.weights.arg(),
        down.buffer.arg(),
        y.arg(),
        x.rows * x.width,
        x.width,
        intermediate / wide,
        down.stride / wide,
        top_k,
        [x.buffer.elem, down.buffer.elem],
    );
}

/// `silu(gate x) * up x` of every row and each of its experts.
#[cube(launch)]
fn gate_up_kernel<X: Float, W: Float, N: Size>(
    x: &[Vector<X, N>],
    ids: &[i32],
    gate_up: &[Vector<W, N>],
    inner: &mut [f32],
    count: usize,
    top_k: usize,
    intermediate: usize,
    depth: usize,
    x_stride: usize,
    stride: usize,
    #[define(X, W)] _elems: [ElemType; 2],
) {
    if ABSOLUTE_POS < count {
        let pair = ABSOLUTE_POS / intermediate;
        let column = ABSOLUTE_POS % intermediate;
        let from = pair / top_k * x_stride;
        let gate_row = (ids[pair] as usize * 2 * intermediate + column) * stride;
        let up_row = gate_row + intermediate * stride;
        let mut gate = Vector::<f32, N>::new(0.0f32);
        let mut up = Vector::<f32, N>::new(0.0f32);
        for k in 0..depth {
            let v = Vector::<f32, N>::cast_from(x[from + k]);
            gate += v * Vector::<f32, N>::cast_from(gate_up[gate_row + k]);
            up += v * Vector::<f32, N>::cast_from(gate_up[up_row + k]);
        }
        inner[ABSOLUTE_POS] = silu(across(gate)) * across(up);
    }
}

/// The weighted sum of the experts' down products.
#[cube(launch)]
fn down_kernel<X: Float, W: Float, N: Size>(
    inner: &[Vector<f32, N>],
    ids: &[i32],
    weights: &[X],
    down: &[Vector<W, N>],
    y: &mut [X],
    count: usize,
    hidden: usize,
    depth: usize,
    stride: usize,
    top_k: usize,
    #[define(X, W)] _elems: [ElemType; 2],
) {
    if ABSOLUTE_POS < count {
        let row = ABSOLUTE_POS / hidden;
        let column = ABSOLUTE_POS % hidden;
        let mut sum = Vector::<f32, N>::new(0.0f32);
        for slot in 0..top_k {
            let pair = row * top_k + slot;
            let factor = Vector::<f32, N>::new(f32::cast_from(weights[pair]));
            let from = (ids[pair] as usize * hidden + column) * stride;
            for k in 0..depth {
                let w = Vector::<f32, N>::cast_from(down[from + k]);
                sum += factor * inner[pair * depth + k] * w;
            }
        }
        y[ABSOLUTE_POS] = X::cast_from(across(sum));
    }
}
