//! Products with a few rows of activations on matrix units: up to 16 read the weights once, at the speed of memory.
//!
//! A column of the second operand is a row of activations. Packed weights lie in tiles; scales of 8 bits are multiplied into
//! the decoded values: both have six significant bits together, so bf16 holds the product exactly. Scales of f32 would not
//! fit: the sum of the 128 columns of each is formed for itself and multiplied with it. Weights of bf16 lie in rows.
//! Everything accumulates in the matrix units.
//!
//! A cube owns the rows of a few tiles and sums all columns, its planes share them; sums are formed in a fixed order.
//! For chosen experts a cube belongs to one choice (gate and up) or sums the choices of a row (down), so that nothing is
//! sorted and nothing is added by atomics.
//!
//! A decoded token is one [`Row`]. Its products take what stands around them along: the division by the root mean
//! square, and the sum with the residual row.

mod kernel;
mod late;
mod single;
mod turn;
mod weights;
mod work;
mod write;

use cubecl::prelude::*;

pub use weights::{Rows, Weights};

use crate::Buffer;
use crate::packed::tiles::{Activations, ColumnOrder};
use kernel::Launch;
use work::{Mode, Work};

/// Columns of a cube at most: rows of activations, or halves of them.
pub const FEW: usize = 16;
/// Columns up to which [`few`] is faster than [`many`](crate::many): it reads the weights once for every [`FEW`] of them,
/// but its planes share a row of the weights.
pub const SEVERAL: usize = 6 * FEW;

/// Rows of a matrix of bf16, such as a router, that lies in the cache and is better read again for every few columns.
const LOW: usize = 128;
/// Columns up to which it is.
const SEVERAL_OF_LOW: usize = 1024;

/// Whether [`few_onto`] is faster than [`many`](crate::many) for so many columns, and takes rows as wide as they are.
#[must_use]
pub fn suits(weights: &Weights, columns: usize) -> bool {
    let low = matches!(weights, Weights::Rows(rows) if rows.rows <= LOW);
    let most = if low { SEVERAL_OF_LOW } else { SEVERAL };
    columns <= most && weights.columns() == weights.width_of_many()
}

/// The residual row of a token, as the next product takes it.
#[derive(Clone, Debug)]
pub struct Row {
    /// f32 `[width]`
    pub h: Buffer,
    /// `h` times the weight of the norm that follows, not divided by the root mean square.
    pub x: Activations,
    /// The sums of the squares of `h` over 16 numbers each, f32.
    pub squares: Buffer,
    /// Numbers of the row.
    pub width: usize,
    /// Numbers of a row of `x`, padding included.
    pub columns: usize,
    /// What is added to the mean square.
    pub eps: f32,
}

impl Row {
    /// Room for a row. Padding is zero.
    #[must_use]
    pub fn new(client: &Client, width: usize, eps: f32) -> Self {
        let columns = width.next_multiple_of(256);
        Self {
            h: Buffer::empty(client, f32::elem_type_native(), width),
            x: crate::packed::tiles::activations::zeros(client, 2 * columns, true),
            squares: Buffer::empty(client, f32::elem_type_native(), width.div_ceil(16)),
            width,
            columns,
            eps,
        }
    }
}

/// Panics where rows lie in the order of products, which many rows have alone: the numbers would be wrong.
fn natural(x: &Activations) {
    assert_eq!(x.order, ColumnOrder::Natural, "the order of a few rows");
}

/// `y = weights * x` for each row, of which there are best not more than [`SEVERAL`]; half as many when they are split.
///
/// - x: `[rows, columns]`
/// - y: `[rows, rows of the weights]`
pub fn few(client: &Client, weights: &Weights, x: (&Activations, usize), y: &Buffer) {
    few_onto(client, weights, x, None, y);
}

/// The same of several rows, on top of others.
///
/// - onto: f32, as `y`
///
/// # Panics
/// When one row is to be added to another: that is [`residual`]'s.
pub fn few_onto(
    client: &Client,
    weights: &Weights,
    (x, rows): (&Activations, usize),
    onto: Option<&Buffer>,
    y: &Buffer,
) {
    natural(x);
    assert!(
        rows > 1 || onto.is_none(),
        "one row is added to by `residual`"
    );
    let columns = rows * x.halves();
    let work = Work::new(Mode::Dense, weights, x.split, [1, columns.min(FEW), 1]);
    let work = Work {
        onto: onto.is_some(),
        ..work
    };
    let jobs = columns.div_ceil(FEW);
    let launch = Launch {
        weights,
        work: work.in_blocks(jobs > 1),
        onto,
        x: &x.buffer,
        y,
        chosen: None,
        row: None,
        jobs,
        columns,
        x_stride: weights.columns(),
        stride: weights.rows(),
        slots: 1,
    };
    launch.go(client);
}

/// `silu(gate) * up` of the chosen experts of each row, as [`Activations`] for [`down`].
///
/// - ids: u32 `[rows, slots]`
/// - h: bf16 `[rows * slots, 1 or 2, columns of the down matrix]`, zero behind the intermediate width
pub fn gate_up(
    client: &Client,
    weights: &Weights,
    x: &Activations,
    (ids, slots): (&Buffer, usize),
    (h, stride): (&Buffer, usize),
) {
    natural(x);
    let launch = Launch {
        weights,
        work: Work::new(Mode::GateUp, weights, x.split, [ids.len(), x.halves(), 1])
            .of_rows(ids.len() / slots),
        x: &x.buffer,
        y: h,
        chosen: Some([ids, ids]),
        row: None,
        onto: None,
        jobs: ids.len(),
        columns: x.halves(),
        x_stride: weights.columns(),
        stride,
        slots,
    };
    launch.go(client);
}

/// The weighted sum of the chosen experts of each row.
///
/// - h: what [`gate_up`] wrote
/// - ids, shares: u32 and f32 `[rows, slots]`
/// - y: `[rows, rows of the weights]`
pub fn down(
    client: &Client,
    weights: &Weights,
    h: &Activations,
    ([ids, shares], slots): ([&Buffer; 2], usize),
    y: &Buffer,
) {
    natural(h);
    let jobs = ids.len() / slots;
    let launch = Launch {
        weights,
        work: Work::new(Mode::Down, weights, h.split, [jobs, h.halves(), slots]),
        x: &h.buffer,
        y,
        chosen: Some([ids, shares]),
        row: None,
        onto: None,
        jobs,
        columns: h.halves(),
        x_stride: weights.columns(),
        stride: weights.rows(),
        slots,
    };
    launch.go(client);
}

/// The normed row times the weights: f32 `[rows of the weights]`.
pub fn normed(client: &Client, weights: &Weights, row: &Row, y: &Buffer) {
    let halves = row.x.halves();
    let launch = Launch {
        weights,
        work: Work::new(Mode::Dense, weights, row.x.split, [1, halves, 1]).normed(row),
        x: &row.x.buffer,
        y,
        chosen: None,
        row: Some((row, &row.h)),
        onto: None,
        jobs: 1,
        columns: halves,
        x_stride: row.columns,
        stride: weights.rows(),
        slots: 1,
    };
    launch.go(client);
}

/// `silu(gate) * up` of the normed row, of the chosen experts.
///
/// - ids: u32 `[slots]`; without them of the only matrix
/// - h: `[slots, 2, stride]`, zero behind the intermediate width
pub fn normed_gate_up(
    client: &Client,
    weights: &Weights,
    row: &Row,
    ids: Option<&Buffer>,
    (h, stride): (&Activations, usize),
) {
    let (halves, slots) = (row.x.halves(), ids.map_or(1, Buffer::len));
    let launch = Launch {
        weights,
        work: Work::new(Mode::GateUp, weights, row.x.split, [1, halves, 1]).normed(row),
        x: &row.x.buffer,
        y: &h.buffer,
        chosen: ids.map(|ids| [ids, ids]),
        row: Some((row, &row.h)),
        onto: None,
        jobs: slots,
        columns: halves,
        x_stride: row.columns,
        stride,
        slots,
    };
    launch.go(client);
}

/// Adds `weights * x` to the row, and prepares it for the next product.
///
/// - norm: f32 `[width]`, the weight of the norm that follows
pub fn residual(
    client: &Client,
    weights: &Weights,
    (x, columns): (&Activations, usize),
    (row, norm): (&Row, &Buffer),
) {
    let work = Work::new(Mode::Dense, weights, x.split, [1, x.halves(), 1]);
    let launch = Launch {
        weights,
        work: work.residual(),
        x: &x.buffer,
        y: &row.x.buffer,
        chosen: None,
        row: Some((row, norm)),
        onto: None,
        jobs: 1,
        columns: x.halves(),
        x_stride: columns,
        stride: row.columns,
        slots: 1,
    };
    launch.go(client);
}

/// Adds the weighted sum of the chosen experts to the row, and prepares it for the next product.
///
/// - h: what [`normed_gate_up`] wrote
/// - ids, shares: u32 and f32 `[slots]`
pub fn residual_down(
    client: &Client,
    weights: &Weights,
    (h, stride): (&Activations, usize),
    [ids, shares]: [&Buffer; 2],
    (row, norm): (&Row, &Buffer),
) {
    let slots = ids.len();
    let work = Work::new(Mode::Down, weights, h.split, [1, h.halves(), slots]);
    let launch = Launch {
        weights,
        work: work.residual(),
        x: &h.buffer,
        y: &row.x.buffer,
        chosen: Some([ids, shares]),
        row: Some((row, norm)),
        onto: None,
        jobs: 1,
        columns: h.halves(),
        x_stride: stride,
        stride: row.columns,
        slots,
    };
    launch.go(client);
}
