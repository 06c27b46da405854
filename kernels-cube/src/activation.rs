//! Functions of each element, or of a channel's elements that follow one another.

use cubecl::prelude::*;

use crate::linear::vector;
use crate::math::{erf, silu, sine_squared, tanh};
use crate::packed::tiles::activations::write_rounded;
use crate::packed::tiles::{Activations, Rounding};
use crate::{Buffer, Matrix, grid};

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Function {
    /// `x * (1 + erf(x / sqrt(2))) / 2`
    Gelu,
    /// `x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))) / 2`
    GeluTanh,
}

/// `function` of `len` numbers that lie side by side.
#[must_use]
pub fn map(client: &Client, x: &Buffer, len: usize, function: Function) -> Buffer {
    let y = Buffer::empty(client, x.elem, len);
    let (count, dim) = grid::flat(len);
    map_kernel::launch(client, count, dim, x.arg(), y.arg(), len, function, x.elem);
    y
}

#[cube(launch)]
fn map_kernel<X: Float>(
    x: &[X],
    y: &mut [X],
    len: usize,
    #[comptime] function: Function,
    #[define(X)] _elem: ElemType,
) {
    if ABSOLUTE_POS < len {
        let v = f32::cast_from(x[ABSOLUTE_POS]);
        let inner = match comptime!(function) {
            Function::Gelu => erf(v * comptime!(core::f32::consts::FRAC_1_SQRT_2)),
            Function::GeluTanh => tanh((v + 0.044_715f32 * v * v * v) * 0.797_884_6f32),
        };
        y[ABSOLUTE_POS] = X::cast_from(v * (1.0f32 + inner) * 0.5f32);
    }
}

/// `silu(gate) * up` of rows that hold gate and up side by side.
///
/// # Shapes
/// - gate_up: `[rows, 2 * width]`
/// - output: `[rows, width]`
#[must_use]
pub fn swiglu(client: &Client, gate_up: &Matrix) -> Buffer {
    let width = gate_up.width / 2;
    let len = gate_up.rows * width;
    let y = Buffer::empty(client, gate_up.buffer.elem, len);
    swiglu_into(client, gate_up, (&y, false));
    y
}

/// [`swiglu`] as matrix units take it: rounded to bf16, with `split` what rounding took away behind each row.
///
/// # Shapes
/// - gate_up: `[rows, 2 * width]`
/// - output: bf16 `[rows, 1 or 2, width]`
#[must_use]
pub fn swiglu_rounded(client: &Client, gate_up: &Matrix, split: bool) -> Activations {
    let len = gate_up.rows * gate_up.width / if split { 1 } else { 2 };
    let y = Buffer::empty(client, half::bf16::elem_type_native(), len);
    swiglu_into(client, gate_up, (&y, split));
    Activations::new(y, split)
}

fn swiglu_into(client: &Client, gate_up: &Matrix, (y, split): (&Buffer, bool)) {
    let width = gate_up.width / 2;
    let len = gate_up.rows * width;
    let (count, dim) = grid::flat(len);
    swiglu_kernel::launch(
        client,
        count,
        dim,
        gate_up.buffer.arg(),
        y.arg(),
        len,
        width,
        gate_up.stride,
        split,
        [gate_up.buffer.elem, y.elem],
    );
}

#[cube(launch)]
fn swiglu_kernel<X: Float, Y: Float>(
    gate_up: &[X],
    y: &mut [Y],
    len: usize,
    width: usize,
    stride: usize,
    #[comptime] split: bool,
    #[define(X, Y)] _elems: [ElemType; 2],
) {
    if ABSOLUTE_POS < len {
        let (row, column) = (ABSOLUTE_POS / width, ABSOLUTE_POS % width);
        let at = row * stride + column;
        let (gate, up) = (
            f32::cast_from(gate_up[at]),
            f32::cast_from(gate_up[at + width]),
        );
        let rounding = comptime!(Rounding::natural(split));
        let value = silu(gate) * up;
        write_rounded::<Y>(y, 0usize, row, column, width, value, rounding);
    }
}

/// `x + sin(alpha * x)^2 * inverse_beta`, a channel a column.
///
/// # Shapes
/// - x, output: `[rows, channels]`
/// - alpha, inverse_beta: `[channels]`, of one type
#[must_use]
pub fn snake(client: &Client, x: &Matrix, alpha: &Buffer, inverse_beta: &Buffer) -> Buffer {
    let elems = [x.buffer.elem, alpha.elem];
    let y = Buffer::empty(client, x.buffer.elem, x.rows * x.width);
    let size = vector(&[x.width, x.stride]);
    let len = x.rows * x.width / size;
    let (count, dim) = grid::flat(len);
    snake_kernel::launch(
        client,
        count,
        dim,
        size,
        x.buffer.vectors(size),
        alpha.vectors(size),
        inverse_beta.vectors(size),
        y.vectors(size),
        len,
        x.width / size,
        x.stride / size,
        elems,
    );
    y
}

#[cube(launch)]
fn snake_kernel<X: Float, P: Float, N: Size>(
    x: &[Vector<X, N>],
    alpha: &[Vector<P, N>],
    inverse_beta: &[Vector<P, N>],
    y: &mut [Vector<X, N>],
    len: usize,
    width: usize,
    stride: usize,
    #[define(X, P)] _elems: [ElemType; 2],
) {
    if ABSOLUTE_POS < len {
        let channel = ABSOLUTE_POS % width;
        let value = Vector::<f32, N>::cast_from(x[ABSOLUTE_POS / width * stride + channel]);
        let value = snake_of::<N>(
            value,
            Vector::cast_from(alpha[channel]),
            Vector::cast_from(inverse_beta[channel]),
        );
        y[ABSOLUTE_POS] = Vector::cast_from(value);
    }
}

/// `x + sin(alpha * x)^2 * inverse_beta`.
#[cube]
pub(crate) fn snake_of<N: Size>(
    x: Vector<f32, N>,
    alpha: Vector<f32, N>,
    inverse_beta: Vector<f32, N>,
) -> Vector<f32, N> {
    let angle = x * alpha;
    let mut waves = Vector::<f32, N>::new(0.0f32);
    #[unroll]
    for i in 0..N::value() {
        waves.insert(i, sine_squared(angle.extract(i)));
    }
    x + waves * inverse_beta
}

/// `y + x * scale`, a channel a column.
///
/// # Shapes
/// - y, x, output: `[rows, channels]`, of one type
/// - scale: `[channels]`, of the same
#[must_use]
pub fn add_scaled(client: &Client, y: &Matrix, x: &Matrix, scale: &Buffer) -> Buffer {
    let elem = y.buffer.elem;
    let sum = Buffer::empty(client, elem, y.rows * y.width);
    let size = vector(&[y.width, y.stride, x.stride]);
    let len = y.rows * y.width / size;
    let (count, dim) = grid::flat(len);
    add_scaled_kernel::launch(
        client,
        count,
        dim,
        size,
        y.buffer.vectors(size),
        x.buffer.vectors(size),
        scale.vectors(size),
        sum.vectors(size),
        len,
        y.width / size,
        y.stride / size,
        x.stride / size,
        elem,
    );
    sum
}

#[cube(launch)]
fn add_scaled_kernel<X: Float, N: Size>(
    y: &[Vector<X, N>],
    x: &[Vector<X, N>],
    scale: &[Vector<X, N>],
    sum: &mut [Vector<X, N>],
    len: usize,
    width: usize,
    y_stride: usize,
    x_stride: usize,
    #[define(X)] _elem: ElemType,
) {
    if ABSOLUTE_POS < len {
        let (row, channel) = (ABSOLUTE_POS / width, ABSOLUTE_POS % width);
        let own = Vector::<f32, N>::cast_from(y[row * y_stride + channel]);
        let other = Vector::<f32, N>::cast_from(x[row * x_stride + channel]);
        let scale = Vector::<f32, N>::cast_from(scale[channel]);
        sum[ABSOLUTE_POS] = Vector::cast_from(own + other * scale);
    }
}

/// Every output row is the sum of the input rows that end with it, each times the weight of its tap, and the bias.
///
/// # Shapes
/// - x: `[taps - 1 + rows, channels]`
/// - weight: `[taps, channels]`, oldest first, of the type of `x`
/// - bias: `[channels]`, of the same
/// - output: `[rows, channels]`
#[must_use]
pub fn depthwise_conv1d(
    client: &Client,
    x: &Matrix,
    (weight, taps): (&Buffer, usize),
    bias: &Buffer,
) -> Buffer {
    let elem = x.buffer.elem;
    let rows = x.rows + 1 - taps;
    let y = Buffer::empty(client, elem, rows * x.width);
    let size = vector(&[x.width, x.stride]);
    let len = rows * x.width / size;
    let (count, dim) = grid::flat(len);
    depthwise_kernel::launch(
        client,
        count,
        dim,
        size,
        x.buffer.vectors(size),
        weight.vectors(size),
        bias.vectors(size),
        y.vectors(size),
        len,
        x.width / size,
        x.stride / size,
        taps,
        elem,
    );
    y
}

#[cube(launch)]
fn depthwise_kernel<X: Float, N: Size>(
    x: &[Vector<X, N>],
    weight: &[Vector<X, N>],
    bias: &[Vector<X, N>],
    y: &mut [Vector<X, N>],
    len: usize,
    width: usize,
    stride: usize,
    taps: usize,
    #[define(X)] _elem: ElemType,
) {
    if ABSOLUTE_POS < len {
        let (row, channel) = (ABSOLUTE_POS / width, ABSOLUTE_POS % width);
        let mut sum = Vector::<f32, N>::cast_from(bias[channel]);
        for tap in 0..taps {
            let value = x[(row + tap) * stride + channel];
            let weight = weight[tap * width + channel];
            sum += Vector::<f32, N>::cast_from(value) * Vector::cast_from(weight);
        }
        y[ABSOLUTE_POS] = Vector::cast_from(sum);
    }
}
