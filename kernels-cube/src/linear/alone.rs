//! Without shared memory: a unit forms a few rows and columns of the output.

use cubecl::prelude::*;

use super::Product;
use super::few::{across, vector};
use crate::{Buffer, grid};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shape {
    /// Rows and columns of a unit.
    rows: usize,
    columns: usize,
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
        rows: rows.next_power_of_two().min(4),
        columns: weight.rows.next_power_of_two().min(2),
        has_bias: bias.is_some(),
        overlapping: taps.count > 1,
    };
    let across = weight.rows.div_ceil(shape.columns);
    let (count, dim) = grid::flat(rows.div_ceil(shape.rows) * across);
    alone_kernel::launch(
        client,
        count,
        dim,
        vector,
        x.buffer.arg(),
        weight.buffer.arg(),
        bias.unwrap_or(&x.buffer).arg(),
        y.arg(),
        rows,
        weight.rows,
        across,
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

#[cube(launch)]
fn alone_kernel<X: Float, W: Float, N: Size>(
    x: &[Vector<X, N>],
    weight: &[Vector<W, N>],
    bias: &[X],
    y: &mut [X],
    rows: usize,
    out: usize,
    across_count: usize,
    depth: usize,
    x_stride: usize,
    weight_stride: usize,
    width: usize,
    dilation: usize,
    #[comptime] shape: Shape,
    #[define(X, W)] _elems: [ElemType; 2],
) {
    let first_row = ABSOLUTE_POS / across_count * comptime!(shape.rows);
    let first_column = ABSOLUTE_POS % across_count * comptime!(shape.columns);
    if first_row < rows {
        let mut sums = Array::<Vector<f32, N>>::new(comptime!(shape.rows * shape.columns));
        #[unroll]
        for i in 0..comptime!(shape.rows * shape.columns) {
            sums[i] = Vector::new(0.0f32);
        }
        let mut left = Array::<Vector<f32, N>>::new(comptime!(shape.rows));
        for k in 0..depth {
            let mut inside = k;
            if comptime!(shape.overlapping) {
                inside = k / width * dilation * x_stride + k % width;
            }
            #[unroll]
            for i in 0..comptime!(shape.rows) {
                let row = select(first_row + i < rows, first_row + i, first_row);
                left[i] = Vector::cast_from(x[row * x_stride + inside]);
            }
            #[unroll]
            for j in 0..comptime!(shape.columns) {
                let column = select(first_column + j < out, first_column + j, first_column);
                let w = Vector::<f32, N>::cast_from(weight[column * weight_stride + k]);
                #[unroll]
                for i in 0..comptime!(shape.rows) {
                    sums[i * comptime!(shape.columns) + j] += left[i] * w;
                }
            }
        }
        #[unroll]
        for i in 0..comptime!(shape.rows) {
            #[unroll]
            for j in 0..comptime!(shape.columns) {
                let (row, column) = (first_row + i, first_column + j);
                if row < rows && column < out {
                    let mut sum = across(sums[i * comptime!(shape.columns) + j]);
                    if comptime!(shape.has_bias) {
                        sum += f32::cast_from(bias[column]);
                    }
                    y[row * out + column] = X::cast_from(sum);
                }
            }
        }
    }
}
