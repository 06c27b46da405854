//! Products with a dense matrix: `x * weight^T + bias`, and causal convolutions as products over overlapping rows.

mod alone;
mod few;
mod tiled;

use crate::{Buffer, Matrix, On, Units};

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
    /// A unit for a few outputs, without shared memory.
    Alone,
}

impl Strategy {
    fn choose(units: Units, product: &Product<'_>) -> Self {
        const FEW_ROWS: usize = 8;
        const FEW_COLUMNS: usize = 8;
        if units == Units::Alone {
            Self::Alone
        } else if product.rows() <= FEW_ROWS || product.weight.rows <= FEW_COLUMNS {
            Self::Few
        } else {
            Self::Tiled
        }
    }
}

/// Forms the product in f32, rounded once to the type of `x`.
#[must_use]
pub fn linear<'a>(on: impl Into<On<'a>>, product: Product<'_>) -> Buffer {
    let On { client, units } = on.into();
    match Strategy::choose(units, &product) {
        Strategy::Few => few::launch(client, &product),
        Strategy::Tiled => tiled::launch(client, &product),
        Strategy::Alone => alone::launch(client, &product),
    }
}
