//! Norms of the last axis; statistics in f32.

mod alone;
mod together;

use cubecl::prelude::*;

use crate::packed::tiles::Activations;
use crate::{Buffer, Heads, Matrix, On, Units};

/// Factors, offsets and epsilon of a norm.
#[derive(Clone, Copy, Debug)]
pub struct NormParameters<'a> {
    /// `[width]`
    pub weight: &'a Buffer,
    /// `[width]`, of the type of the weight; with a bias the mean is taken away first, as layer norm does.
    pub bias: Option<&'a Buffer>,
    /// Added to the mean square.
    pub eps: f32,
}

/// Root-mean-square norm, or layer norm where there is a bias, of every head; heads lie side by side in the output.
#[must_use]
pub fn norm<'a>(on: impl Into<On<'a>>, x: &Heads, parameters: NormParameters<'_>) -> Buffer {
    let On { client, units } = on.into();
    match units {
        Units::Together => together::launch(client, x, parameters),
        Units::Alone => alone::launch(client, x, parameters),
    }
}

/// [`norm()`] of rows as matrix units take them: rounded to bf16, with `split` what rounding took away behind each.
///
/// # Shapes
/// - x: `[rows, width]`
/// - output: bf16 `[rows, 1 or 2, width]`
#[must_use]
pub fn norm_rounded(
    client: &Client,
    x: &Matrix,
    parameters: NormParameters<'_>,
    split: bool,
) -> Activations {
    let halves = if split { 2 } else { 1 };
    let elem = half::bf16::elem_type_native();
    let y = Buffer::empty(client, elem, x.rows * halves * x.width);
    together::launch_into(client, &x.clone().into(), parameters, (&y, split));
    Activations::new(y, split)
}

/// The number normed: `(v - mean) * factor * weight`, and the bias where there is one.
#[cube]
fn normed<W: Float>(v: f32, weight: &[W], bias: &[W], i: usize, #[comptime] has_bias: bool) -> f32 {
    let scaled = v * f32::cast_from(weight[i]);
    if comptime!(has_bias) {
        scaled + f32::cast_from(bias[i])
    } else {
        scaled
    }
}
