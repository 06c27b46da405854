//! The lanes of a group go through the rows of a weight together.

use cubecl::prelude::*;

use super::{ExpertMatrices, Work};
use crate::grid;
use crate::linear::{across, vector};
use crate::math::silu;
use crate::reduce::{Lanes, lanes_sum};

pub(super) fn launch(client: &Client, work: Work<'_>) {
    let Work {
        x,
        routes,
        matrices: ExpertMatrices { gate_up, down },
        inner,
        y,
    } = work;
    let (top_k, intermediate) = (routes.top_k, down.width);
    let lanes = Lanes::of(client);
    let wide = vector(&[x.width, x.stride, gate_up.stride]);
    gate_up_kernel::launch(
        client,
        grid::cubes_by_item(intermediate.div_ceil(lanes.groups), x.rows * top_k),
        lanes.dim(),
        wide,
        x.buffer.arg(),
        routes.ids.arg(),
        gate_up.buffer.arg(),
        inner.arg(),
        x.rows * top_k,
        top_k,
        intermediate,
        x.width / wide,
        x.stride / wide,
        gate_up.stride / wide,
        lanes,
        [x.buffer.elem, gate_up.buffer.elem],
    );
    let wide = vector(&[intermediate, down.stride]);
    down_kernel::launch(
        client,
        grid::cubes_by_item(x.width.div_ceil(lanes.groups), x.rows),
        lanes.dim(),
        wide,
        inner.arg(),
        routes.ids.arg(),
        routes.weights.arg(),
        down.buffer.arg(),
        y.arg(),
        x.rows,
        x.width,
        intermediate / wide,
        down.stride / wide,
        top_k,
        lanes,
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
    pairs: usize,
    top_k: usize,
    intermediate: usize,
    depth: usize,
    x_stride: usize,
    stride: usize,
    #[comptime] lanes: Lanes,
    #[define(X, W)] _elems: [ElemType; 2],
) {
    let pair = grid::item();
    if pair >= pairs {
        terminate!();
    }
    let lane = UNIT_POS_X as usize;
    let column = CUBE_POS_X as usize * comptime!(lanes.groups) + UNIT_POS_Y as usize;
    let mut gate = Vector::<f32, N>::new(0.0f32);
    let mut up = Vector::<f32, N>::new(0.0f32);
    if column < intermediate {
        let from = pair / top_k * x_stride;
        let gate_row = (ids[pair] as usize * 2 * intermediate + column) * stride;
        let up_row = gate_row + intermediate * stride;
        let mut k = lane;
        while k < depth {
            let v = Vector::<f32, N>::cast_from(x[from + k]);
            gate += v * Vector::<f32, N>::cast_from(gate_up[gate_row + k]);
            up += v * Vector::<f32, N>::cast_from(gate_up[up_row + k]);
            k += comptime!(lanes.count);
        }
    }
    let mut room = Shared::<[f32]>::new_slice(comptime!(lanes.units()));
    let gate = lanes_sum(across(gate), &mut room, lanes);
    let up = lanes_sum(across(up), &mut room, lanes);
    if lane == 0 && column < intermediate {
        inner[pair * intermediate + column] = silu(gate) * up;
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
    rows: usize,
    hidden: usize,
    depth: usize,
    stride: usize,
    top_k: usize,
    #[comptime] lanes: Lanes,
    #[define(X, W)] _elems: [ElemType; 2],
) {
    let row = grid::item();
    if row >= rows {
        terminate!();
    }
    let lane = UNIT_POS_X as usize;
    let column = CUBE_POS_X as usize * comptime!(lanes.groups) + UNIT_POS_Y as usize;
    let mut sum = Vector::<f32, N>::new(0.0f32);
    if column < hidden {
        for slot in 0..top_k {
            let pair = row * top_k + slot;
            let factor = Vector::<f32, N>::new(f32::cast_from(weights[pair]));
            let from = (ids[pair] as usize * hidden + column) * stride;
            let mut k = lane;
            while k < depth {
                let w = Vector::<f32, N>::cast_from(down[from + k]);
                sum += factor * inner[pair * depth + k] * w;
                k += comptime!(lanes.count);
            }
        }
    }
    let mut room = Shared::<[f32]>::new_slice(comptime!(lanes.units()));
    let sum = lanes_sum(across(sum), &mut room, lanes);
    if lane == 0 && column < hidden {
        y[row * hidden + column] = X::cast_from(sum);
    }
}
