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
    let [rounded, _] = norm_rounded_twice(client, x, parameters, (Rounding::natural(split), None));
    rounded
}

/// The same rows as products take them that read them in one form, or in two.
///
/// # Shapes
/// - x: `[rows, width]`
/// - output: bf16 `[rows, 1 or 2, width]`, rounded in the first way and in the second; without a second, the first twice
#[must_use]
pub fn norm_rounded_twice(
    client: &Client,
    x: &Matrix,
    parameters: NormParameters<'_>,
    roundings: (Rounding, Option<Rounding>),
) -> [Activations; 2] {
    let (first, second) = roundings;
    let numbers = |rounding: Rounding| x.rows * rounding.halves() * x.width;
    let all = numbers(first) + second.map_or(0, numbers);
    let y = Buffer::empty(client, half::bf16::elem_type_native(), all);
    norm_rounded_into(client, x, parameters, (&y, roundings));
    let mut at = 0;
    [first, second.unwrap_or(first)].map(|rounding| {
        let len = numbers(rounding);
        let start = if second.is_some() { at } else { 0 };
        at += len;
        Activations {
            buffer: y.part(start, len),
            order: rounding.order,
            split: rounding.split,
        }
    })
}

/// The same into a buffer, whatever its elements: first all rows in the first form, behind them all in the second.
pub fn norm_rounded_into(
    client: &Client,
    x: &Matrix,
    parameters: NormParameters<'_>,
    (y, roundings): (&Buffer, (Rounding, Option<Rounding>)),
) {
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
