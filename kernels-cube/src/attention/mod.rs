//! Softmax attention with grouped heads, scores never in memory.
//!
//! A cube has a block of query rows of one key head: the heads that read the same keys are rows of one block. It goes
//! through its part of the keys in tiles, with running maxima and sums (online softmax, f32). Where there are few
//! blocks, as for a single row, the keys are split over several cubes whose results are joined in a fixed order.

mod alone;
mod block;
mod join;
pub mod matrix;
mod seen;
mod tile;

use cubecl::prelude::*;

use crate::matrix_units::Instructions;
use crate::packed::tiles::{Activations, Rounding, activations};
use crate::store::read_rows;
use crate::{Buffer, Heads, Matrix, On, Units, e4m3};
use matrix::Blocking;

/// Keys of a tile.
const KEYS: usize = 32;
/// Query rows of a block.
const ROWS: usize = 16;
/// Units that share the rows of a block, and those that share its columns.
const UNITS: [usize; 2] = [4, 16];
/// Cubes that keep a device busy.
const BUSY: usize = 128;
/// Fewest keys that are worth a cube of their own.
const SPLIT_KEYS: usize = 128;

/// Numbers of a head at most.
pub const WIDEST: usize = 128;

/// Queries, keys and values; query head `h` reads key head `h / (heads / kv_heads)`.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// `[rows, heads, head_dim]`
    pub q: &'a Heads,
    /// `[keys, kv_heads, head_dim]`; of E4M3 ([`crate::E4M3`]) in whole words
    pub k: &'a Heads,
    /// As the keys, and of their type.
    pub v: &'a Heads,
    /// Factor on the scores.
    pub scale: f32,
    /// The keys that each row sees.
    pub seen: Seen<'a>,
}

/// The keys that each query row sees.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// Row `i` sees the keys up to `first + i`, the last `window` of them.
    Causal {
        /// The last key of the first row.
        first: usize,
        /// How many keys a row sees at most.
        window: usize,
    },
    /// Row `i` sees the keys from the first number of pair `i` up to but not the second.
    Ranges(&'a [[u32; 2]]),
}

impl Seen<'_> {
    fn has_ranges(self) -> bool {
        matches!(self, Self::Ranges(_))
    }

    /// One more than the last key that any of `rows` rows sees.
    fn end(self, rows: usize) -> usize {
        match self {
            Self::Causal { first, .. } => first + rows,
            Self::Ranges(ranges) => ranges
                .iter()
                .map(|range| range[1] as usize)
                .max()
                .unwrap_or(0),
        }
    }
}

/// How the work is cut.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// Blocks of a key head.
    blocks: usize,
    /// Keys of a split, a multiple of the tile's.
    split_keys: usize,
    splits: usize,
}

impl Plan {
    fn new(attention: &Attention<'_>) -> Self {
        let (q, kv_heads) = (attention.q, attention.k.heads);
        let group = q.heads / kv_heads;
        let blocks = (q.rows * group).div_ceil(ROWS);
        let keys = attention.seen.end(q.rows);
        let wanted = BUSY / (blocks * kv_heads).max(1);
        let splits = wanted.min(keys / SPLIT_KEYS).max(1);
        let split_keys = keys.div_ceil(splits).next_multiple_of(KEYS).max(KEYS);
        Self {
            blocks,
            split_keys,
            splits: keys.div_ceil(split_keys).max(1),
        }
    }
}

/// `softmax(q k^T * scale) v` over the keys that each row sees, `[rows, heads, head_dim]`.
///
/// Many rows are computed on matrix units where there are some, with operands rounded to bf16: see [`matrix`].
///
/// # Panics
/// When a head is wider than 128.
#[must_use]
pub fn attention<'a>(on: impl Into<On<'a>>, attention: Attention<'_>) -> Buffer {
    let On { client, units } = on.into();
    assert!(
        attention.q.width <= WIDEST,
        "heads of {} do not fit in shared memory",
        attention.q.width
    );
    if units == Units::Alone {
        let [k, v] = [attention.k, attention.v].map(|heads| alone_reads(client, heads, &attention));
        let attention = Attention {
            k: &k,
            v: &v,
            ..attention
        };
        return alone::launch(client, &attention);
    }
    if matrix::suits(client, &attention) {
        let blocking = Blocking::for_heads(&attention);
        return matrix::launch(client, &attention, blocking, Instructions::Native);
    }
    without_matrix_units(client, &attention)
}

/// [`attention()`] as the product behind it takes it, for which units work together.
///
/// # Shapes
/// - output: bf16 `[rows, 1 or 2, heads * head_dim]`
///
/// # Panics
/// When rows are no whole spans of the order.
#[must_use]
pub fn attention_rounded(
    client: &Client,
    attention: &Attention<'_>,
    rounding: Rounding,
) -> Activations {
    let Heads {
        rows, heads, width, ..
    } = *attention.q;
    let width = heads * width;
    if matrix::suits(client, attention) {
        let count = rows * rounding.halves() * width;
        let buffer = Buffer::empty(client, half::bf16::elem_type_native(), count);
        let blocking = Blocking::for_heads(attention);
        let output = (&buffer, Some(rounding));
        matrix::launch_into(client, attention, output, blocking, Instructions::Native);
        return Activations::rounded(buffer, rounding);
    }
    let y = Matrix {
        buffer: without_matrix_units(client, attention),
        rows,
        width,
        stride: width,
    };
    activations::round(client, &y, (width, rounding.order), rounding.split)
}

/// Whether [`attention()`] rounds these queries of so many key heads to bf16 before anything else.
#[must_use]
pub fn rounds_queries(client: &Client, q: &Heads, kv_heads: usize) -> bool {
    matrix::takes(client, q, kv_heads)
}

/// Keys or values as units read them that work alone: those of E4M3 in f32, as far as they are seen.
fn alone_reads(client: &Client, heads: &Heads, attention: &Attention<'_>) -> Heads {
    if e4m3::are_in(&heads.buffer) {
        read_rows(client, heads, attention.seen.end(attention.q.rows))
    } else {
        heads.clone()
    }
}

/// What [`attention()`] computes, in f32, by units that work together.
#[must_use]
pub fn without_matrix_units(client: &Client, attention: &Attention<'_>) -> Buffer {
    let plan = Plan::new(attention);
    let parts = block::launch(client, attention, plan);
    if plan.splits == 1 {
        return parts.sums;
    }
    join::launch(client, attention, plan, &parts)
}

/// What a split's cubes give: the output itself where there is one split, else weighted sums in f32 with the largest
/// score and the sum of weights of every row.
struct Parts {
    /// `[splits, rows, heads, head_dim]`
    sums: Buffer,
    /// `[splits, rows, heads, 2]`
    scales: Buffer,
}
