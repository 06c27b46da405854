//! Many rows: a cube forms a tile of the output from tiles of both operands in shared memory; a unit keeps its part in
//! registers. Plain multiply-adds, so it runs everywhere.

use cubecl::prelude::*;

use super::Product;
use crate::Buffer;

/// Units along each side of a cube.
const SIDE: usize = 8;
/// Columns of the output that a unit forms.
const COLUMNS: usize = 8;
/// Depth of a tile.
const DEPTH: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shape {
    /// Rows of the output that a unit forms.
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
    let shape = Shape {
        rows: rows.div_ceil(SIDE).next_power_of_two().min(8),
        has_bias: bias.is_some(),
        overlapping: taps.count > 1,
    };
    let tiles = |count: usize, size: usize| {
        u32::try_from(count.div_ceil(size)).expect("a matrix has less than 2^32 rows")
    };
    tiled_kernel::launch(
        client,
        // Rows first, of which there can be more than an axis other than the first has cubes.
        CubeCount::Static(
            tiles(rows, SIDE * shape.rows),
            tiles(weight.rows, SIDE * COLUMNS),
            1,
        ),
        CubeDim::new_1d((SIDE * SIDE) as u32),
        x.buffer.arg(),
        weight.buffer.arg(),
        bias.unwrap_or(&x.buffer).arg(),
        y.arg(),
        rows,
        weight.rows,
        weight.width,
        x.stride,
        weight.stride,
        x.width,
        taps.dilation,
        shape,
        elems,
    );
    y
}

#[cube(launch)]
#[allow(
    clippy::too_many_lines,
    reason = "one loop over what is staged and multiplied"
)]
fn tiled_kernel<X: Float, W: Float>(
    x: &[X],
    weight: &[W],
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
    let unit = UNIT_POS as usize;
    let (down, right) = (unit / SIDE, unit % SIDE);
    let (tall, wide) = comptime!((SIDE * shape.rows, SIDE * COLUMNS));
    let first_row = CUBE_POS_X as usize * tall;
    let first_column = CUBE_POS_Y as usize * wide;
    // [DEPTH, tall] and [DEPTH, wide], with a number between, so that units that write a column do not wait.
    let mut left_tile = Shared::<[f32]>::new_slice(comptime!(DEPTH * (tall + 1)));
    let mut right_tile = Shared::<[f32]>::new_slice(comptime!(DEPTH * (wide + 1)));
    let mut sums = Array::<f32>::new(comptime!(shape.rows * COLUMNS));
    #[unroll]
    for i in 0..comptime!(shape.rows * COLUMNS) {
        sums[i] = 0.0f32;
    }
    let mut start = 0usize;
    while start < depth {
        let k = start + unit % DEPTH;
        let mut inside = k;
        if comptime!(shape.overlapping) {
            inside = k / width * dilation * x_stride + k % width;
        }
        let rows_left = select(k < depth, rows, 0);
        load::<X>(
            x,
            &mut left_tile,
            inside,
            x_stride,
            first_row,
            rows_left,
            tall,
        );
        let columns_left = select(k < depth, out, 0);
        load::<W>(
            weight,
            &mut right_tile,
            k,
            weight_stride,
            first_column,
            columns_left,
            wide,
        );
        sync_cube();
        multiply(&mut sums, &left_tile, &right_tile, shape);
        sync_cube();
        start += DEPTH;
    }
    #[unroll]
    for i in 0..comptime!(shape.rows) {
        let row = first_row + down + i * SIDE;
        #[unroll]
        for j in 0..COLUMNS {
            let column = first_column + right + j * SIDE;
            if row < rows && column < out {
                let mut sum = sums[i * COLUMNS + j];
                if comptime!(shape.has_bias) {
                    sum += f32::cast_from(bias[column]);
                }
                y[row * out + column] = X::cast_from(sum);
            }
        }
    }
}

/// A tile of `size` rows from `first` on, a unit one column of it; zero from row `rows` on.
#[cube]
fn load<F: Float>(
    from: &[F],
    tile: &mut Shared<[f32]>,
    inside: usize,
    stride: usize,
    first: usize,
    rows: usize,
    #[comptime] size: usize,
) {
    let unit = UNIT_POS as usize;
    #[unroll]
    for i in 0..comptime!(size * DEPTH / (SIDE * SIDE)) {
        let row = unit / DEPTH + i * comptime!(SIDE * SIDE / DEPTH);
        let mut value = 0.0f32;
        if first + row < rows {
            value = f32::cast_from(from[(first + row) * stride + inside]);
        }
        tile[unit % DEPTH * comptime!(size + 1) + row] = value;
    }
}

/// Adds the product of two tiles.
#[cube]
fn multiply(
    sums: &mut Array<f32>,
    left_tile: &Shared<[f32]>,
    right_tile: &Shared<[f32]>,
    #[comptime] shape: Shape,
) {
    let unit = UNIT_POS as usize;
    let (down, right) = (unit / SIDE, unit % SIDE);
    let mut left = Array::<f32>::new(comptime!(shape.rows));
    for d in 0..DEPTH {
        #[unroll]
        for i in 0..comptime!(shape.rows) {
            left[i] = left_tile[d * comptime!(SIDE * shape.rows + 1) + down + i * SIDE];
        }
        #[unroll]
        for j in 0..COLUMNS {
            let w = right_tile[d * comptime!(SIDE * COLUMNS + 1) + right + j * SIDE];
            #[unroll]
            for i in 0..comptime!(shape.rows) {
                sums[i * COLUMNS + j] += left[i] * w;
            }
        }
    }
}
