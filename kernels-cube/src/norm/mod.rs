//! Norms of the last axis; statistics in f32.

mod alone;
mod together;

use cubecl::prelude::*;

use crate::packed::tiles::{Activations, Rounding};
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

/// [`norm()`] of rows as matrix units take them.
///
/// # Shapes
/// - x: `[rows, width]`
/// - output: bf16 `[rows, 1 or 2, width]`
///
/// # Panics
/// When rows are no whole spans of the order.
#[must_use]
pub fn norm_rounded(
    client: &Client,
    x: &Matrix,
    parameters: NormParameters<'_>,
    rounding: Rounding,
) -> Activations {
    let count = x.rows * rounding.halves() * x.width;
    let y = Buffer::empty(client, half::bf16::elem_type_native(), count);
    norm_rounded_into(client, x, parameters, (&y, (rounding, None)));
    Activations::rounded(y, rounding)
}

/// The same for two products that take rows in different ways, both times in one launch.
///
/// # Panics
/// When rows are no whole spans of an order.
#[must_use]
pub fn norm_rounded_twice(
    client: &Client,
    x: &Matrix,
    parameters: NormParameters<'_>,
    [first, second]: [Rounding; 2],
) -> [Activations; 2] {
    let [here, there] = [first, second].map(|rounding| x.rows * rounding.halves() * x.width);
    let y = Buffer::empty(client, half::bf16::elem_type_native(), here + there);
    norm_rounded_into(client, x, parameters, (&y, (first, Some(second))));
    [
        Activations::rounded(y.part(0, here), first),
        Activations::rounded(y.part(here, there), second),
    ]
}

/// The same into a buffer, whatever its elements: all rows rounded in the first way, and behind them all in the second.
///
/// # Panics
/// When rows are no whole spans of an order.
pub fn norm_rounded_into(
    client: &Client,
    x: &Matrix,
    parameters: NormParameters<'_>,
    (y, roundings): (&Buffer, (Rounding, Option<Rounding>)),
) {
    roundings.0.fits(x.width);
    if let Some(second) = roundings.1 {
        second.fits(x.width);
    }
    together::launch_into(client, &x.clone().into(), parameters, (y, roundings));
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
