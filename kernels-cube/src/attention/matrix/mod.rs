//! Attention of many rows on matrix units (FlashAttention-2, Dao 2023).
//!
//! A cube has a block of query rows of one key head, a plane tiles of 16 of them. It goes through the keys that its rows
//! see in tiles, which are copied to shared memory while the tile before them is worked on. Scores and outputs stay in
//! registers: the scores of a tile are already where the first operand of the next product has its weights.
//!
//! Queries, keys, values and weights are rounded to bf16, once each; sums, maxima and totals are f32. Keys and values that
//! are no rows of whole vectors of bf16, or are E4M3, are brought to bf16 by a launch of their own.
//!
//! * **Keys**: the columns of a product may be summed in any order, as long as both operands have the same one. Lane `(g,
//!   t)` reads one vector of key `g`, numbers `8 t .. 8 t + 8` of 32, and has what two products take from it.
//! * **Values**: the second operand has pairs of keys in a word; the loads of matrices turn them.
//! * **Shared memory**: keys lie 4 vectors modulo 8 apart, values an odd number, so that neither reads the same banks
//!   twice at a time.

mod rows;
mod stage;
mod tile;

use cubecl::prelude::*;

use super::seen::{self, Sizes};
use super::{Attention, Seen};
use crate::matrix_units::{Exchange, Instructions, commit, exchange, wait};
use crate::packed::tiles::{Rounding, runs_on};
use crate::{Buffer, Heads};

type N2 = Const<2>;
type N4 = Const<4>;

/// Rows of a product of the matrix units.
const TILE: usize = 16;
/// Columns of a product of the matrix units.
const GROUP: usize = 8;
/// Numbers of bf16 in a vector.
const VECTOR: usize = 8;
/// Numbers that lanes of one key read at a time.
const STEP: usize = 32;
/// Tiles of keys in shared memory.
const STAGES: usize = 2;
/// Score of a key that is not seen.
const UNSEEN: f32 = -1e30;
/// Below all scores, and so far above [`UNSEEN`] that what is not seen weighs nothing even where nothing was seen.
const LOWEST: f32 = -1e20;
/// Cubes that keep the multiprocessors of a large GPU busy.
const BUSY: usize = 128;
/// Fewest rows, and rows times heads of a key head, that are worth the rounding.
const MANY: [usize; 2] = [64, 128];
/// Widths of heads.
const WIDTHS: [usize; 2] = [64, 128];

/// How much a cube computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blocking {
    /// Planes of a cube.
    pub planes: usize,
    /// Tiles of 16 rows of a plane.
    pub tiles: usize,
    /// Keys of a tile: 16, 32, or more by 32.
    pub keys: usize,
    /// Whether queries stay in registers; else they lie in shared memory.
    pub held: bool,
}

impl Blocking {
    /// The blocking for so many rows of a key head, of so many of them, as measured on an H200: two tiles of a plane
    /// share what they load of wide heads, where there are rows enough to keep all multiprocessors busy.
    #[must_use]
    pub const fn of(rows: usize, kv_heads: usize, width: usize) -> Self {
        let is_large = width == WIDTHS[1] && rows.div_ceil(8 * TILE) * kv_heads >= BUSY;
        Self {
            planes: 4,
            tiles: if is_large { 2 } else { 1 },
            keys: if is_large { 32 } else { 64 },
            held: !is_large,
        }
    }

    /// The blocking for these heads.
    pub(super) const fn for_heads(attention: &Attention<'_>) -> Self {
        let Attention { q, k, .. } = attention;
        Self::of(q.rows * q.heads / k.heads, k.heads, q.width)
    }

    /// Rows of a cube.
    const fn rows(self) -> usize {
        self.planes * self.tiles * TILE
    }

    const fn units(self) -> usize {
        self.planes * 32
    }
}

/// What a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shape {
    /// Numbers of a head.
    width: usize,
    has_ranges: bool,
    /// How outputs are rounded for the product behind them, if they are.
    rounding: Option<Rounding>,
    blocking: Blocking,
    instructions: Instructions,
}

impl Shape {
    /// Whether loops over products are unrolled: compilers of plain code have enough to do with one.
    const fn is_unrolled(self) -> bool {
        matches!(self.instructions, Instructions::Native)
    }

    /// Loads from shared memory at a time, and as many products that do not wait for one another.
    const fn ahead(self) -> usize {
        if self.is_unrolled() { 4 } else { 1 }
    }

    /// Groups of keys that are loaded at a time.
    const fn keys_ahead(self) -> usize {
        if self.key_groups() < self.ahead() {
            self.key_groups()
        } else {
            self.ahead()
        }
    }

    /// Pairs of products that sum over a head.
    const fn steps(self) -> usize {
        self.width.div_ceil(STEP)
    }

    /// Groups of columns of a head.
    const fn groups(self) -> usize {
        self.width / GROUP
    }

    /// Groups of keys of a tile.
    const fn key_groups(self) -> usize {
        self.blocking.keys / GROUP
    }

    /// Pairs of groups of columns of a head.
    const fn pairs(self) -> usize {
        self.groups().div_ceil(2)
    }

    /// Loads of a tile's values.
    const fn value_loads(self) -> usize {
        self.blocking.keys / TILE * self.pairs()
    }

    /// Vectors from one key of a tile to the next.
    const fn key_stride(self) -> usize {
        let vectors = self.steps() * STEP / VECTOR;
        if vectors.is_multiple_of(8) {
            vectors + 4
        } else {
            vectors
        }
    }

    /// Vectors from one value of a tile to the next.
    const fn value_stride(self) -> usize {
        self.width.next_multiple_of(2 * GROUP) / VECTOR + 1
    }

    /// Vectors of the keys of a tile, which its values lie behind.
    const fn key_vectors(self) -> usize {
        self.blocking.keys * self.key_stride()
    }

    /// Vectors of a tile.
    const fn vectors(self) -> usize {
        self.key_vectors() + self.blocking.keys * self.value_stride()
    }

    /// Vectors of queries in shared memory.
    const fn query_vectors(self) -> usize {
        if self.blocking.held {
            1
        } else {
            self.blocking.tiles * self.steps() * 2 * self.blocking.units()
        }
    }
}

/// Whether attention is computed by this kernel on a device.
pub(super) fn suits(client: &Client, attention: &Attention<'_>) -> bool {
    attention.scale > 0.0 && takes(client, attention.q, attention.k.heads)
}

/// The same of queries of so many key heads.
pub(super) fn takes(client: &Client, q: &Heads, kv_heads: usize) -> bool {
    let group = q.heads / kv_heads;
    runs_on(client)
        && q.rows >= MANY[0]
        && q.rows * group >= MANY[1]
        && (WIDTHS[0]..=WIDTHS[1]).contains(&q.width)
        && q.width.is_multiple_of(VECTOR)
        && lies_in_vectors(q, 4)
}

/// Whether heads begin at whole vectors of so many numbers.
fn lies_in_vectors(heads: &Heads, count: usize) -> bool {
    let size = (count * heads.buffer.elem.size()) as u64;
    let start = heads.buffer.handle.offset_start.unwrap_or(0);
    let strides = heads.strides.iter();
    start.is_multiple_of(size)
        && strides.copied().all(|stride| stride.is_multiple_of(count))
        && heads.width.is_multiple_of(count)
}

/// What [`super::attention`] computes, with operands rounded to bf16. Heads have 8 numbers or a multiple of that, and
/// queries lie in whole vectors of four; the scale is more than zero.
///
/// # Panics
/// When heads or strides are others.
#[must_use]
pub fn launch(
    client: &Client,
    attention: &Attention<'_>,
    blocking: Blocking,
    instructions: Instructions,
) -> Buffer {
    let q = attention.q;
    let y = Buffer::empty(client, q.buffer.elem, q.rows * q.heads * q.width);
    launch_into(client, attention, (&y, None), blocking, instructions);
    y
}

/// The same into a buffer, whatever its elements: with a rounding as rows that a product takes.
///
/// - y: `[rows, heads, head_dim]`, or `[rows, 1 or 2, heads * head_dim]`
///
/// # Panics
/// When heads or strides are others, or rows are no whole spans of the order.
pub fn launch_into(
    client: &Client,
    attention: &Attention<'_>,
    (y, rounding): (&Buffer, Option<Rounding>),
    blocking: Blocking,
    instructions: Instructions,
) {
    let Attention { q, k, v, seen, .. } = *attention;
    assert!(
        q.width.is_multiple_of(VECTOR) && lies_in_vectors(q, 4) && attention.scale > 0.0,
        "attention of these heads is not for matrix units"
    );
    if let Some(rounding) = rounding {
        rounding.fits(q.heads * q.width);
    }
    let is_staged = |heads: &&Heads| {
        heads.buffer.elem == half::bf16::elem_type_native() && lies_in_vectors(heads, VECTOR)
    };
    let [k, v] = if [k, v].iter().all(is_staged) {
        [k.clone(), v.clone()]
    } else {
        stage::round(client, [k, v], seen.end(q.rows), instructions)
    };
    let shape = Shape {
        width: q.width,
        has_ranges: matches!(seen, Seen::Ranges(_)),
        rounding,
        blocking,
        instructions,
    };
    let blocks = (q.rows * q.heads / k.heads).div_ceil(blocking.rows());
    let sizes = Attention {
        k: &k,
        v: &v,
        ..*attention
    };
    #[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
    // SAFETY: keys and values are read up to the last that a row sees; rows beyond the last are not written.
    unsafe {
        matrix_kernel::launch_unchecked(
            client,
            CubeCount::Static(k.heads as u32, blocks as u32, 1),
            CubeDim::new_2d(32, blocking.planes as u32),
            q.buffer.vectors(4),
            k.buffer.vectors(VECTOR),
            v.buffer.vectors(VECTOR),
            seen::ranges(client, seen).arg(),
            y.vectors(2),
            seen::sizes(&sizes, 0),
            shape,
            [q.buffer.elem, y.elem],
        );
    }
}

/// What the units of a cube share.
#[derive(CubeType)]
struct Room {
    /// `[STAGES, Shape::vectors]`
    stage: Shared<[Vector<u32, N4>]>,
    /// `[tiles, steps, 2, units]`
    queries: Shared<[Vector<u32, N4>]>,
    exchange: Exchange,
}

/// What a lane has summed for its rows, `lane / 4` and 8 more of each tile.
#[derive(CubeType)]
struct Sums {
    /// `[tiles, groups]`
    outputs: Array<Vector<f32, N4>>,
    /// By tile and row, like those below: the largest score.
    largest: Array<f32>,
    /// The weights that this lane has seen.
    totals: Array<f32>,
}

#[cube(launch_unchecked)]
fn matrix_kernel<Q: Float, Y: Float>(
    q: &[Vector<Q, N4>],
    k: &[Vector<u32, N4>],
    v: &[Vector<u32, N4>],
    ranges: &[u32],
    y: &mut [Vector<Y, N2>],
    sizes: &Sizes,
    #[comptime] shape: Shape,
    #[define(Q, Y)] _elems: [ElemType; 2],
) {
    let blocking = shape.blocking;
    let block = rows::block(ranges, sizes, shape);
    let mut room = Room {
        stage: Shared::new_aligned_slice(comptime!(STAGES * shape.vectors()), 16usize),
        queries: Shared::new_aligned_slice(shape.query_vectors(), 16usize),
        exchange: exchange(blocking.planes, shape.instructions),
    };
    let mut base = block.start;
    let mut side = 0usize;
    if base < block.end {
        stage::copy(k, v, &mut room.stage, sizes, &block, base, side, shape);
    }
    commit(shape.instructions);
    stage::pad(&mut room.stage, shape);
    let mut queries = Array::<u32>::new(comptime!(blocking.tiles * shape.steps() * 8));
    rows::load::<Q>(q, &mut queries, &mut room, sizes, &block, shape);
    let seen = rows::seen(ranges, sizes, &block, shape);
    let mut sums = Sums {
        outputs: Array::new(comptime!(blocking.tiles * shape.groups())),
        largest: Array::new(comptime!(blocking.tiles * 2)),
        totals: Array::new(comptime!(blocking.tiles * 2)),
    };
    // Weights are powers of two of what this makes of scores.
    let scale = sizes.scale * comptime!(std::f32::consts::LOG2_E);
    tile::begin(&mut sums, shape);
    while base < block.end {
        wait(0usize, shape.instructions);
        sync_cube();
        let next = base + blocking.keys;
        let other = comptime!(shape.vectors()) - side;
        if next < block.end {
            stage::copy(k, v, &mut room.stage, sizes, &block, next, other, shape);
        }
        commit(shape.instructions);
        let mut scores =
            Array::<Vector<f32, N4>>::new(comptime!(blocking.tiles * shape.key_groups()));
        tile::score(&mut scores, &queries, &mut room, side, shape);
        if base < block.all_start || next > block.all_end {
            tile::mask(&mut scores, &seen, base, shape);
        }
        let mut weights = Array::<u32>::new(comptime!(blocking.tiles * shape.key_groups() * 2));
        tile::weigh(
            &scores,
            &mut weights,
            &mut sums,
            &mut room.exchange,
            scale,
            shape,
        );
        tile::add(
            &mut sums,
            &weights,
            &mut room,
            side,
            sizes.split_keys,
            shape,
        );
        base = next;
        side = other;
    }
    rows::store::<Y>(y, &sums, &mut room.exchange, sizes, &block, shape);
}
