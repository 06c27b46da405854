//! Few rows: the lanes of a group go through one row of the weight together, for several rows of `x` at once.

use cubecl::prelude::*;

use super::Product;
use crate::reduce::{Lanes, lanes_sum};
use crate::{Buffer, grid};

/// Rows of `x` that one reading of the weight serves.
const ROWS: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shape {
    lanes: Lanes,
    /// Rows of `x` that a group serves.
    rows: usize,
    has_bias: bool,
    overlapping: bool,
}

pub(super) fn launch(client: &Client, product: &Product<'_>) -> Buffer {
    let Product {
        x,
        weight,
        bias,
        taps,
    } = product;
    let rows = product.rows();
    let elems = [x.buffer.elem, weight.buffer.elem];
    let y = Buffer::empty(client, elems[0], rows * weight.rows);
    let vector = vector(&[x.width, x.stride, weight.stride]);
    let shape = Shape {
        lanes: Lanes::of(client),
        rows: rows.next_power_of_two().min(ROWS),
        has_bias: bias.is_some(),
        overlapping: taps.count > 1,
    };
    few_kernel::launch(
        client,
        grid::cubes_by_item(
            weight.rows.div_ceil(shape.lanes.groups),
            rows.div_ceil(shape.rows),
        ),
        shape.lanes.dim(),
        vector,
        x.buffer.arg(),
        weight.buffer.arg(),
        bias.unwrap_or(&x.buffer).arg(),
        y.arg(),
        rows,
        weight.rows,
        weight.width / vector,
        x.stride / vector,
        weight.stride / vector,
        x.width / vector,
        taps.dilation,
        shape,
        elems,
    );
    y
}

/// The widest vector of at most four numbers that all sizes are multiples of.
pub(crate) fn vector(sizes: &[usize]) -> usize {
    let fits = |vector: &usize| sizes.iter().all(|size| size % vector == 0);
    [4, 2].into_iter().find(fits).unwrap_or(1)
}

#[cube(launch)]
fn few_kernel<X: Float, W: Float, N: Size>(
    x: &[Vector<X, N>],
    weight: &[Vector<W, N>],
    bias: &[X],
    y: &mut [X],
    rows: usize,
    out: usize,
    depth: usize,
    x_stride: usize,
    weight_stride: usize,
    width: usize,
    dilation: usize,
    #[comptime] shape: Shape,
    #[define(X, W)] _elems: [ElemType; 2],
) {
    let lanes = comptime!(shape.lanes);
    let lane = UNIT_POS_X as usize;
    let column = CUBE_POS_X as usize * comptime!(lanes.groups) + UNIT_POS_Y as usize;
    let first = grid::item() * comptime!(shape.rows);
    if first >= rows {
        terminate!();
    }
    let mut sums = Array::<Vector<f32, N>>::new(comptime!(shape.rows));
    #[unroll]
    for r in 0..comptime!(shape.rows) {
        sums[r] = Vector::new(0.0f32);
    }
    if column < out {
        let mut k = lane;
        while k < depth {
            let w = Vector::<f32, N>::cast_from(weight[column * weight_stride + k]);
            let mut inside = k;
            if comptime!(shape.overlapping) {
                inside = k / width * dilation * x_stride + k % width;
            }
            #[unroll]
            for r in 0..comptime!(shape.rows) {
                let row = select(first + r < rows, first + r, first);
                sums[r] += w * Vector::<f32, N>::cast_from(x[row * x_stride + inside]);
            }
            k += comptime!(lanes.count);
        }
    }
    let mut room = Shared::<[f32]>::new_slice(comptime!(lanes.units()));
    #[unroll]
    for r in 0..comptime!(shape.rows) {
        let sum = lanes_sum(across(sums[r]), &mut room, lanes);
        if lane == 0 && column < out && first + r < rows {
            if comptime!(shape.has_bias) {
                y[(first + r) * out + column] = X::cast_from(sum + f32::cast_from(bias[column]));
            } else {
                y[(first + r) * out + column] = X::cast_from(sum);
            }
        }
    }
}

/// The sum of a vector's numbers.
#[cube]
pub(crate) fn across<N: Size>(vector: Vector<f32, N>) -> f32 {
    let mut sum = 0.0f32;
    #[unroll]
    for i in 0..N::value() {
        sum += vector.extract(i);
    }
    sum
}
