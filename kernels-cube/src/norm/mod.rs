//! Norms of the last axis; statistics in f32.

mod alone;
mod together;

use cubecl::prelude::*;

use crate::{Buffer, Heads, On, Units};

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

/// The number normed: `(v - mean) * factor * weight`, and the bias where there is one.
#[cube]
fn normed<X: Float, W: Float>(
    v: f32,
    weight: &[W],
    bias: &[W],
    i: usize,
    #[comptime] has_bias: bool,
) -> X {
    let scaled = v * f32::cast_from(weight[i]);
    if comptime!(has_bias) {
        X::cast_from(scaled + f32::cast_from(bias[i]))
    } else {
        X::cast_from(scaled)
    }
}
