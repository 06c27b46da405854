//! Feed-forward blocks of which every row passes a few, without sorting rows by expert: every row, expert and output
//! column on its own. Right for any number of rows, made for few.

mod alone;
mod together;

use cubecl::prelude::*;

use crate::{Buffer, Matrix, On, Routes, Units};

/// The matrices of all experts, one expert after another.
#[derive(Clone, Copy, Debug)]
pub struct ExpertMatrices<'a> {
    /// `[experts * 2 * intermediate, hidden]`, of each expert the gates' rows first.
    pub gate_up: &'a Matrix,
    /// `[experts * hidden, intermediate]`, of the type of the others.
    pub down: &'a Matrix,
}

/// The weighted sum over each row's experts of `down(silu(gate x) * up x)`.
///
/// # Shapes
/// - x, output: `[rows, hidden]`
#[must_use]
pub fn experts<'a>(
    on: impl Into<On<'a>>,
    x: &Matrix,
    routes: &Routes,
    matrices: ExpertMatrices<'_>,
) -> Buffer {
    let On { client, units } = on.into();
    let intermediate = matrices.down.width;
    // [rows * top_k, intermediate]
    let inner = Buffer::empty(
        client,
        f32::elem_type_native(),
        x.rows * routes.top_k * intermediate,
    );
    let y = Buffer::empty(client, x.buffer.elem, x.rows * x.width);
    let work = Work {
        x,
        routes,
        matrices,
        inner: &inner,
        y: &y,
    };
    match units {
        Units::Together => together::launch(client, work),
        Units::Alone => alone::launch(client, work),
    }
    y
}

/// What the kernels read and write.
#[derive(Clone, Copy)]
struct Work<'a> {
    x: &'a Matrix,
    routes: &'a Routes,
    matrices: ExpertMatrices<'a>,
    /// `silu(gate x) * up x` of every row and each of its experts, `[rows * top_k, intermediate]`.
    inner: &'a Buffer,
    y: &'a Buffer,
}
