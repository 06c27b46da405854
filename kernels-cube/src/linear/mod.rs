//! Products with a dense matrix: `x * weight^T + bias`, and causal convolutions as products over overlapping rows.

mod few;
mod tiled;

use cubecl::prelude::*;

use crate::{Buffer, Matrix};

pub(crate) use few::{across, vector};

/// A product `[rows, depth] x [out, depth] -> [rows, out]`.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a> {
    /// The inputs of a row, or with taps, rows of `depth / taps` of them.
    pub x: &'a Matrix,
    /// `[out, depth]`
    pub weight: &'a Matrix,
    /// `[out]`, of the type of `x`.
    pub bias: Option<&'a Buffer>,
    /// The input rows that make the inputs of one output row.
    pub taps: Taps,
}

/// Input rows `t, t + dilation, …` side by side are the inputs of output row `t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taps {
    /// How many rows.
    pub count: usize,
    /// Rows from one to the next.
    pub dilation: usize,
}

impl Taps {
    /// An output row for every input row.
    pub const ONE: Self = Self {
        count: 1,
        dilation: 1,
    };
}

impl Product<'_> {
    /// Output rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.x.rows - (self.taps.count - 1) * self.taps.dilation
    }
}

/// The ways to form a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strategy {
    /// A group of lanes for every output column.
    Few,
    /// Tiles in shared memory, sums in registers.
    Tiled,
}

impl Strategy {
    fn choose(product: &Product<'_>) -> Self {
        const FEW_ROWS: usize = 8;
        const FEW_COLUMNS: usize = 8;
        if product.rows() <= FEW_ROWS || product.weight.rows <= FEW_COLUMNS {
            Self::Few
        } else {
            Self::Tiled
        }
    }
}

/// Forms the product in f32, rounded once to the type of `x`.
#[must_use]
pub fn linear(client: &Client, product: Product<'_>) -> Buffer {
    match Strategy::choose(&product) {
        Strategy::Few => few::launch(client, &product),
        Strategy::Tiled => tiled::launch(client, &product),
    }
}
