//! Products with many rows of activations on matrix units, as in prefill and in convolutions.
//!
//! Weights never touch shared memory: a plane loads its tiles of them into registers (packed ones are decoded there with
//! their scales to bf16, exactly: six significant bits) and multiplies them with every column of the cube. Sums are in units
//! of the scales where these are f32, and rescaled from block to block. Activations are staged through shared memory by
//! asynchronous copies, several chunks ahead.
//!
//! Where four planes multiply together (`sm_90a`), they take the staged rows from shared memory as they lie there, so rows
//! come in the order of the decoded weights: [`order`] says which.
//!
//! The same kernel computes the experts of a layer: a cube then belongs to one expert, and its columns are the rows of
//! activations that [`Plan`] listed for it.

mod experts;
mod kernel;
mod plan;
mod rows;
mod stage;
mod tiles;
mod warpgroup;
mod work;
mod write;

use cubecl::prelude::*;

pub use experts::Experts;
pub use plan::{Added, Plan, sum_slots};
pub use work::Blocking;

use crate::Buffer;
use crate::few::Weights;
use crate::linear::Taps;
use crate::matrix_units::Instructions;
use crate::packed::tiles::{Activations, ColumnOrder, Rounding};
use kernel::Launch;
use work::{Form, Mode, Work};

/// A product of many rows.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a> {
    /// One matrix, `[out, depth]`.
    pub weights: &'a Weights,
    /// bf16 `[rows of x, 1 or 2, columns]`; with taps, `taps.count * columns` is the depth.
    pub x: &'a Activations,
    /// Rows of the output.
    pub rows: usize,
    /// Which rows of `x` make a row of the output; packed weights have one.
    pub taps: Taps,
    /// f32 `[out]`, for weights in rows.
    pub bias: Option<&'a Buffer>,
    /// f32 `[rows, out]`, what the product is added to.
    pub onto: Option<&'a Buffer>,
    /// How much a cube computes.
    pub blocking: Blocking,
    /// [`Instructions::Plain`] serves tests.
    pub instructions: Instructions,
}

impl<'a> Product<'a> {
    /// A product with packed weights or a matrix in rows, an output row for every row of `x`.
    #[must_use]
    pub fn new(weights: &'a Weights, x: &'a Activations, rows: usize) -> Self {
        Self {
            weights,
            x,
            rows,
            taps: Taps::ONE,
            bias: None,
            onto: None,
            blocking: Blocking::in_order(x.order, rows * x.halves(), weights.tiles_of(false)),
            instructions: instructions(x.order),
        }
    }

    /// The same on top of rows. Tiles of MXFP4 below one another in a plane then leave too few registers (on sm_100): planes have
    /// one each.
    #[must_use]
    pub fn onto(mut self, rows: &'a Buffer) -> Self {
        let is_mxfp4 = match self.weights {
            Weights::Tiles(matrix) => matrix.tiling.scaled.e8m0() && !matrix.tiling.scaled.bytes,
            Weights::Rows(_) => false,
        };
        if is_mxfp4 {
            self.blocking.down *= self.blocking.tiles;
            self.blocking.tiles = 1;
        }
        self.onto = Some(rows);
        self
    }
}

/// Rows of f32 from which on packed weights meet them rounded to bf16: prompts, where the matrix units are the limit. Fewer rows
/// keep 16 significant bits, as two halves.
pub const ROUNDED: usize = 64;

/// How rows of f32 are rounded for products with these weights, one after another. With weights of bf16 what rounding takes away is
/// always multiplied too.
#[must_use]
pub fn rounding(client: &Client, weights: &[&Weights], rows: usize) -> Rounding {
    let are_packed = weights
        .iter()
        .all(|weights| matches!(weights, Weights::Tiles(_)));
    Rounding {
        order: order(client, weights),
        split: !are_packed || rows < ROUNDED,
    }
}

/// The order in which products with these weights, one after another, take rows of activations.
#[must_use]
pub fn order(client: &Client, weights: &[&Weights]) -> ColumnOrder {
    let blocks: Option<Vec<usize>> = weights.iter().map(|weights| block_of(weights)).collect();
    match blocks.as_deref() {
        Some([first, rest @ ..])
            if rest.iter().all(|block| block == first) && crate::warpgroup::runs_on(client) =>
        {
            ColumnOrder::Products(*first)
        }
        _ => ColumnOrder::Natural,
    }
}

/// The blocks in whose order warpgroups multiply these weights, if they do: sums of theirs cannot be scaled on the way.
fn block_of(weights: &Weights) -> Option<usize> {
    match weights {
        Weights::Tiles(matrix) if !matrix.tiling.scaled.in_sums() => {
            Some(matrix.tiling.scaled.block)
        }
        _ => None,
    }
}

/// What products take rows in an order with.
const fn instructions(order: ColumnOrder) -> Instructions {
    match order {
        ColumnOrder::Natural => Instructions::Native,
        ColumnOrder::Products(_) => Instructions::Warpgroup,
    }
}

/// Panics where rows do not lie as the instructions take them, or a cube is none of warpgroups: the numbers would be wrong.
fn agree(weights: &Weights, x: &Activations, blocking: Blocking, instructions: Instructions) {
    let suits = match x.order {
        ColumnOrder::Natural => !instructions.are_of_warpgroups(),
        ColumnOrder::Products(block) => {
            instructions.are_of_warpgroups()
                && block_of(weights) == Some(block)
                && blocking.is_of_warpgroups()
        }
    };
    assert!(
        suits,
        "rows in {:?} are not multiplied by {blocking:?} with {instructions:?}",
        x.order
    );
}

/// Forms the product.
///
/// - y: `[rows, out]`
///
/// # Panics
/// When the order of `x` is not that of the instructions, or packed weights have a bias.
pub fn many(client: &Client, product: Product<'_>, y: &Buffer) {
    let Product {
        weights,
        x,
        rows,
        taps,
        bias,
        onto,
        blocking,
        instructions,
    } = product;
    agree(weights, x, blocking, instructions);
    let columns = rows * x.halves();
    let form = match weights {
        Weights::Tiles(matrix) => {
            assert!(bias.is_none(), "packed weights have no bias");
            Form::Tiles {
                scaled: matrix.tiling.scaled,
                onto: onto.is_some(),
            }
        }
        Weights::Rows(_) => Form::Rows {
            taps: taps.count > 1,
            bias: bias.is_some(),
            onto: onto.is_some(),
        },
    };
    let unused = weights.memory();
    let launch = Launch {
        weights,
        work: Work {
            mode: Mode::Dense,
            form,
            blocking,
            split: x.split,
            instructions,
        },
        grid: columns.div_ceil(blocking.columns()),
        columns,
        depth: weights.width_of_many() / taps.count,
        reach: taps.dilation * weights.width_of_many() / taps.count * x.halves(),
        stride: weights.rows(),
        slots: 1,
        gains: bias,
    };
    let onto = onto.unwrap_or(unused);
    launch.go(client, [&x.buffer, y, unused, unused, onto]);
}

/// `silu(gate) * up` of the chosen experts of each row, in the plan's order.
///
/// - x: `[rows, 1 or 2, columns]`
/// - h: bf16 `[rows * slots, 1 or 2, stride]`, in the order of `x`
///
/// # Panics
/// When the order of `x` is not the plan's.
pub fn gate_up(
    client: &Client,
    weights: &Weights,
    x: &Activations,
    plan: &Plan,
    (h, stride): (&Buffer, usize),
) {
    let launch = Launch::listed(weights, Mode::GateUp, x, plan, stride);
    let unused = weights.memory();
    launch.go(client, [&x.buffer, h, &plan.order, &plan.blocks, unused]);
}

/// The chosen experts' outputs times their weights, one row a choice.
///
/// - h: what [`gate_up`] wrote
/// - shares: f32 `[rows, slots]`
/// - parts: `[rows, slots, rows of the matrix]`
///
/// # Panics
/// When the order of `h` is not the plan's.
pub fn down(
    client: &Client,
    weights: &Weights,
    h: &Activations,
    (plan, shares): (&Plan, &Buffer),
    parts: &Buffer,
) {
    let launch = Launch::listed(weights, Mode::Down, h, plan, weights.rows());
    launch.go(
        client,
        [&h.buffer, parts, &plan.order, &plan.blocks, shares],
    );
}

impl<'a> Launch<'a> {
    fn listed(
        weights: &'a Weights,
        mode: Mode,
        x: &Activations,
        plan: &Plan,
        stride: usize,
    ) -> Self {
        agree(weights, x, plan.blocking, plan.instructions);
        let form = match weights {
            Weights::Tiles(matrix) => Form::Tiles {
                scaled: matrix.tiling.scaled,
                onto: false,
            },
            Weights::Rows(_) => Form::Rows {
                taps: false,
                bias: false,
                onto: false,
            },
        };
        Self {
            weights,
            work: Work {
                mode,
                form,
                blocking: plan.blocking,
                split: x.split,
                instructions: plan.instructions,
            },
            grid: plan.capacity(),
            columns: 0,
            depth: weights.width_of_many(),
            reach: 0,
            stride,
            slots: plan.slots,
            gains: None,
        }
    }
}
