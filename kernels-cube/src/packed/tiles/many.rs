//! Products with many rows of activations, as in prefill.
//!
//! Weights never touch shared memory: a tile is already in the order of the first operand, so a plane loads its tiles
//! into registers, decodes them with their scales to bf16 (exactly: six significant bits) and multiplies them with every
//! column of the cube. Activations are staged through shared memory by asynchronous copies, several chunks ahead.
//!
//! The same kernel computes the experts of a layer: a cube then belongs to one expert, and its columns are the rows of
//! activations that [`Plan`] listed for it.

use cubecl::frontend::barrier::copy_async;
use cubecl::prelude::*;

use super::decode::{RESTORE, mma, mul_bf16x2, scale_bf16, values0, values1, values2, values3};
use super::plan::Plan;
use super::{Activations, BLOCKS, Matrix, ROWS, Scaled};
use crate::Buffer;

type N4 = Const<4>;

/// Cubes that keep the multiprocessors of a large GPU busy.
const BUSY: usize = 384;
/// Chunks of activations in shared memory.
const STAGES: usize = 4;
/// Vectors of eight bf16 in a column of a chunk.
const VECTORS: usize = 8;
/// Columns of one product of the matrix units.
const GROUP: usize = 8;

/// How much a cube computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blocking {
    /// Planes below one another, each with tiles of its own.
    pub down: usize,
    /// Planes side by side, each with columns of its own.
    pub across: usize,
    /// Tiles of a plane.
    pub tiles: usize,
    /// Groups of eight columns of a plane.
    pub groups: usize,
}

impl Blocking {
    /// The blocking for about `columns` columns of a matrix with this many tiles below one another.
    ///
    /// Large blocks do more with what they load; small ones keep more multiprocessors busy.
    #[must_use]
    pub const fn of(columns: usize, tiles: usize) -> Self {
        let (down, tiles_each, groups) = match columns {
            0..=16 => (8, 1, 2),
            17..=32 => (8, 1, 4),
            33..=64 => (4, 1, 8),
            _ if tiles < BUSY * 8 && columns.div_ceil(128) * tiles.div_ceil(8) < BUSY => (4, 1, 8),
            _ => (4, 2, 16),
        };
        Self {
            down,
            across: 1,
            tiles: tiles_each,
            groups,
        }
    }

    /// Columns of a cube.
    #[must_use]
    pub const fn columns(&self) -> usize {
        self.across * self.groups * GROUP
    }

    const fn units(&self) -> usize {
        self.down * self.across * 32
    }

    /// Vectors of a chunk.
    const fn vectors(&self) -> usize {
        self.columns() * VECTORS
    }

    /// Vectors of a chunk that a unit copies.
    const fn copies(&self) -> usize {
        self.vectors().div_ceil(self.units())
    }
}

/// What a launch computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mode {
    /// One matrix, all rows.
    Dense,
    /// `silu(gate) * up` of the listed rows.
    GateUp,
    /// The listed rows with their weights, each for itself.
    Down,
}

/// What a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Work {
    mode: Mode,
    scaled: Scaled,
    blocking: Blocking,
    /// Whether two columns are one row of activations.
    split: bool,
}

impl Work {
    const fn halves(&self) -> usize {
        if self.split { 2 } else { 1 }
    }
}

/// `y = matrix * x` for every row.
///
/// - x: bf16 `[rows, 1 or 2, columns]`
/// - y: `[rows, rows of the matrix]`
pub fn many(
    client: &Client,
    matrix: &Matrix,
    (x, rows): (&Activations, usize),
    y: &Buffer,
    blocking: Blocking,
) {
    let columns = rows * x.halves();
    let launch = Launch {
        work: Work {
            mode: Mode::Dense,
            scaled: matrix.tiling.scaled,
            blocking,
            split: x.split,
        },
        grid: columns.div_ceil(blocking.columns()),
        columns,
        stride: matrix.rows,
        slots: 1,
    };
    let unused = &matrix.codes;
    launch.go(
        client,
        matrix,
        [&x.buffer, y, unused, unused, &matrix.gains],
    );
}

/// `silu(gate) * up` of the chosen experts of each row, in the plan's order.
///
/// - h: bf16 `[rows * slots, 1 or 2, stride]`
pub fn gate_up(
    client: &Client,
    matrix: &Matrix,
    x: &Activations,
    plan: &Plan,
    (h, stride): (&Buffer, usize),
) {
    let launch = Launch {
        work: Work {
            mode: Mode::GateUp,
            scaled: matrix.tiling.scaled,
            blocking: plan.blocking,
            split: x.split,
        },
        grid: plan.capacity(),
        columns: 0,
        stride,
        slots: plan.slots,
    };
    launch.go(
        client,
        matrix,
        [&x.buffer, h, &plan.order, &plan.blocks, &matrix.gains],
    );
}

/// The chosen experts' outputs times their weights, one row a choice.
///
/// - h: what [`gate_up`] wrote
/// - weights: f32 `[rows, slots]`
/// - parts: `[rows, slots, rows of the matrix]`
pub fn down(
    client: &Client,
    matrix: &Matrix,
    h: &Activations,
    (plan, weights): (&Plan, &Buffer),
    parts: &Buffer,
) {
    let launch = Launch {
        work: Work {
            mode: Mode::Down,
            scaled: matrix.tiling.scaled,
            blocking: plan.blocking,
            split: h.split,
        },
        grid: plan.capacity(),
        columns: 0,
        stride: matrix.rows,
        slots: plan.slots,
    };
    launch.go(
        client,
        matrix,
        [&h.buffer, parts, &plan.order, &plan.blocks, weights],
    );
}

/// A launch of [`many_kernel`].
struct Launch {
    work: Work,
    /// Cubes side by side.
    grid: usize,
    columns: usize,
    /// Numbers of `y` between rows.
    stride: usize,
    slots: usize,
}

impl Launch {
    fn go(&self, client: &Client, matrix: &Matrix, [x, y, order, blocks, weights]: [&Buffer; 5]) {
        let Blocking {
            down,
            across,
            tiles,
            ..
        } = self.work.blocking;
        #[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
        // SAFETY: the functions above state the lengths; rows and tiles beyond the last are read again and not written.
        unsafe {
            many_kernel::launch_unchecked(
                client,
                CubeCount::Static(
                    matrix.tiling.tiles.div_ceil(down * tiles) as u32,
                    self.grid as u32,
                    1,
                ),
                CubeDim::new_2d(32, (down * across) as u32),
                matrix.codes.vectors(4),
                matrix.scales.arg(),
                matrix.gains.arg(),
                x.vectors(8),
                order.arg(),
                blocks.arg(),
                weights.arg(),
                y.arg(),
                matrix.rows as u32,
                matrix.tiling.tiles as u32,
                matrix.tiling.pairs as u32,
                self.columns as u32,
                self.stride as u32,
                self.slots as u32,
                self.work,
                y.elem,
            );
        }
    }
}

/// The tiles of a plane.
#[derive(CubeType)]
struct Panel {
    /// The first tile of the matrix among those of all.
    base: usize,
    /// The first of the plane.
    tile: usize,
    /// Tiles below one another, and pairs of spans side by side, in the matrix.
    tiles: usize,
    pairs: usize,
}

#[cube(launch_unchecked)]
#[allow(
    clippy::too_many_lines,
    reason = "one loop over what is staged, multiplied and loaded ahead"
)]
fn many_kernel<Y: Float>(
    codes: &[Vector<u32, N4>],
    scales: &[u32],
    gains: &[f32],
    x: &[Vector<u32, N4>],
    order: &[u32],
    blocks: &[u32],
    weights: &[f32],
    y: &mut [Y],
    rows: u32,
    tiles: u32,
    pairs: u32,
    columns: u32,
    stride: u32,
    slots: u32,
    #[comptime] work: Work,
    #[define(Y)] _elem: ElemType,
) {
    let blocking = work.blocking;
    let scaled = work.scaled;
    // The columns of this cube are `first .. end` of all, or of the list, and belong to `expert`.
    let mut expert = 0usize;
    let mut first = CUBE_POS_Y as usize * blocking.columns();
    let mut end = columns as usize;
    if comptime!(work.mode != Mode::Dense) {
        let block = CUBE_POS_Y as usize * 3usize;
        expert = blocks[block] as usize;
        first = blocks[block + 1usize] as usize * work.halves();
        end = blocks[block + 2usize] as usize * work.halves();
        if first >= end {
            terminate!();
        }
    }
    let mut stage = Shared::<[Vector<u32, N4>]>::new_aligned_slice(
        comptime!(STAGES * blocking.vectors()),
        16usize,
    );
    // In shared memory, since registers are what this kernel lacks; each unit reads its own.
    let mut source = Shared::<[u32]>::new_slice(comptime!(blocking.copies() * blocking.units()));
    let (tiles, pairs) = (tiles as usize, pairs as usize);
    let chunks = comptime!(scaled.chunks());
    sources(&mut source, order, first, end, slots as usize, pairs, work);
    #[unroll]
    for chunk in 0..comptime!(STAGES - 1) {
        if chunk < pairs * chunks {
            copy(x, &mut stage, &source, chunk, scaled, blocking);
        }
        commit();
    }
    let tile = (CUBE_POS_X as usize * blocking.down + UNIT_POS_Y as usize / blocking.across)
        * blocking.tiles;
    let base = expert * tiles;
    let mut sums = Array::<Vector<f32, N4>>::new(comptime!(blocking.tiles * blocking.groups));
    #[unroll]
    for i in 0..comptime!(blocking.tiles * blocking.groups) {
        sums[i] = Vector::<f32, N4>::new(0.0f32);
    }
    // What is multiplied next is loaded before the products that it would otherwise wait for.
    let mut words = Array::<Vector<u32, N4>>::new(blocking.tiles);
    let mut scale = Array::<u32>::new(blocking.tiles);
    let of = Panel {
        base,
        tile,
        tiles,
        pairs,
    };
    load_words(&mut words, codes, &of, 0usize, work);
    load_scales(&mut scale, scales, &of, 0usize, work);
    for pair in 0..pairs {
        let mut later = Array::<u32>::new(blocking.tiles);
        load_scales(&mut later, scales, &of, pair + 1usize, work);
        #[unroll]
        for c in 0..chunks {
            let chunk = pair * chunks + c;
            wait(comptime!(STAGES - 2));
            sync_cube();
            if chunk + comptime!(STAGES - 1) < pairs * chunks {
                copy(
                    x,
                    &mut stage,
                    &source,
                    chunk + comptime!(STAGES - 1),
                    scaled,
                    blocking,
                );
            }
            commit();
            let mut next = Array::<Vector<u32, N4>>::new(blocking.tiles);
            load_words(&mut next, codes, &of, chunk + 1usize, work);
            multiply(&mut sums, &words, &scale, &stage, chunk, c, work);
            #[unroll]
            for i in 0..blocking.tiles {
                words[i] = next[i];
            }
        }
        #[unroll]
        for i in 0..blocking.tiles {
            scale[i] = later[i];
        }
    }
    store::<Y>(
        &sums,
        gains,
        order,
        weights,
        y,
        expert,
        tile,
        first,
        end,
        rows as usize,
        stride as usize,
        work,
    );
}

/// Where this unit's copies of a chunk come from: vectors of `x`.
#[cube]
fn sources(
    source: &mut Shared<[u32]>,
    order: &[u32],
    first: usize,
    end: usize,
    slots: usize,
    pairs: usize,
    #[comptime] work: Work,
) {
    let unit = UNIT_POS_Y as usize * 32usize + UNIT_POS_X as usize;
    let halves = work.halves();
    #[unroll]
    for i in 0..comptime!(work.blocking.copies()) {
        let wanted = first + (i * work.blocking.units() + unit) / VECTORS;
        let column = select(wanted < end, wanted, end - 1usize);
        let mut row = column;
        if comptime!(work.mode == Mode::GateUp) {
            row = order[column / halves] as usize / slots * halves + column % halves;
        }
        // Vector `v` of a chunk has columns `v % 2 * 8 .. + 8` of its part of block `v / 2`.
        let block = unit % VECTORS / 2usize * comptime!(work.scaled.block / 8);
        let vector =
            row * pairs * comptime!(BLOCKS * work.scaled.block / 8) + block + unit % 2usize;
        source[i * work.blocking.units() + unit] = vector as u32;
    }
}

/// Starts the copies of a chunk. The vectors of a column change places so that the lanes of a plane, which read the same
/// vector of neighbouring columns, meet different banks.
#[cube]
fn copy(
    x: &[Vector<u32, N4>],
    stage: &mut Shared<[Vector<u32, N4>]>,
    source: &Shared<[u32]>,
    chunk: usize,
    #[comptime] scaled: Scaled,
    #[comptime] blocking: Blocking,
) {
    let unit = UNIT_POS_Y as usize * 32usize + UNIT_POS_X as usize;
    #[unroll]
    for i in 0..comptime!(blocking.copies()) {
        let at = i * blocking.units() + unit;
        if comptime!(blocking.vectors().is_multiple_of(blocking.units())) || at < blocking.vectors()
        {
            let column = at / VECTORS;
            let place = column * VECTORS + ((at % VECTORS) ^ (column % 2usize));
            let to = chunk % STAGES * blocking.vectors() + place;
            let from = source[at] as usize + chunk_start(chunk, scaled) / 8usize;
            copy_async(&x[from..from + 1usize], &mut stage[to..to + 1usize], 4u32);
        }
    }
}

/// The first column of a chunk's part of block 0 of its span.
#[cube]
fn chunk_start(chunk: usize, #[comptime] scaled: Scaled) -> usize {
    let steps = comptime!(scaled.block / 16);
    chunk / steps * comptime!(4 * scaled.block) + chunk % steps * 16usize
}

/// Tile `i` of this plane, the last one where there are no more.
#[cube]
fn tile_of(of: &Panel, i: usize) -> usize {
    let last = of.tiles - 1usize;
    of.base + select(of.tile + i < last, of.tile + i, last)
}

/// The codes of chunk number `chunk`; of the last one where there are no more.
#[cube]
fn load_words(
    words: &mut Array<Vector<u32, N4>>,
    codes: &[Vector<u32, N4>],
    of: &Panel,
    chunk: usize,
    #[comptime] work: Work,
) {
    let count = of.pairs * comptime!(work.scaled.chunks());
    let chunk = select(chunk < count, chunk, count - 1usize);
    #[unroll]
    for i in 0..work.blocking.tiles {
        let at = tile_of(of, i) * count + chunk;
        words[i] = codes[at * 32usize + UNIT_POS_X as usize];
    }
}

/// The scales of a pair of spans, the last one where there are no more.
#[cube]
fn load_scales(
    scale: &mut Array<u32>,
    scales: &[u32],
    of: &Panel,
    pair: usize,
    #[comptime] work: Work,
) {
    let last = of.pairs - 1usize;
    let pair = select(pair < last, pair, last);
    #[unroll]
    for i in 0..work.blocking.tiles {
        let at = tile_of(of, i) * of.pairs + pair;
        scale[i] = scales[at * 32usize + UNIT_POS_X as usize];
    }
}

/// Adds the products of one chunk, number `c` of its pair of spans.
#[cube]
fn multiply(
    sums: &mut Array<Vector<f32, N4>>,
    words: &Array<Vector<u32, N4>>,
    scale: &Array<u32>,
    stage: &Shared<[Vector<u32, N4>]>,
    chunk: usize,
    #[comptime] c: usize,
    #[comptime] work: Work,
) {
    let blocking = work.blocking;
    let lane = UNIT_POS_X as usize;
    let span = comptime!(c / (work.scaled.chunks() / 2));
    let side = UNIT_POS_Y as usize % blocking.across;
    let column = side * comptime!(blocking.groups * GROUP) + lane / 4usize;
    let base = chunk % STAGES * blocking.vectors() + column * VECTORS;
    let mut a = Array::<u32>::new(comptime!(blocking.tiles * 8));
    #[unroll]
    for half in 0..2usize {
        #[unroll]
        for i in 0..blocking.tiles {
            // Decoded where they are used: registers are what this kernel lacks.
            let lo = scale_bf16(scale[i], comptime!(span * 2), work.scaled.e8m0);
            let hi = scale_bf16(scale[i], comptime!(span * 2 + 1), work.scaled.e8m0);
            #[unroll]
            for b in 0..2usize {
                let word = words[i].extract(comptime!(half * 2 + b));
                let at = comptime!((i * 2 + b) * 4);
                a[at] = mul_bf16x2(values0(word), lo);
                a[comptime!(at + 1)] = mul_bf16x2(values1(word), hi);
                a[comptime!(at + 2)] = mul_bf16x2(values2(word), lo);
                a[comptime!(at + 3)] = mul_bf16x2(values3(word), hi);
            }
        }
        let read = base + ((lane % 4usize * 2usize + half) ^ (column % 2usize));
        #[unroll]
        for group in 0..blocking.groups {
            let v = stage[read + comptime!(group * GROUP * VECTORS)];
            #[unroll]
            for b in 0..2usize {
                #[unroll]
                for i in 0..blocking.tiles {
                    let at = comptime!((i * 2 + b) * 4);
                    let sum = comptime!(i * blocking.groups + group);
                    sums[sum] = mma(
                        a[at],
                        a[comptime!(at + 1)],
                        a[comptime!(at + 2)],
                        a[comptime!(at + 3)],
                        v.extract(comptime!(b * 2)),
                        v.extract(comptime!(b * 2 + 1)),
                        sums[sum],
                    );
                }
            }
        }
    }
}

/// Writes the sums of this plane.
#[cube]
#[expect(
    clippy::too_many_arguments,
    reason = "what a kernel has, its parts need"
)]
fn store<Y: Float>(
    sums: &Array<Vector<f32, N4>>,
    gains: &[f32],
    order: &[u32],
    weights: &[f32],
    y: &mut [Y],
    expert: usize,
    tile: usize,
    first: usize,
    end: usize,
    rows: usize,
    stride: usize,
    #[comptime] work: Work,
) {
    let blocking = work.blocking;
    let halves = work.halves();
    let lane = UNIT_POS_X as usize;
    let side = UNIT_POS_Y as usize % blocking.across;
    #[unroll]
    for i in 0..blocking.tiles {
        let lo_row = row_of(tile + i, 0usize, rows, work);
        let hi_row = row_of(tile + i, 1usize, rows, work);
        let lo_gain = gain_of(gains, expert, lo_row, rows);
        let hi_gain = gain_of(gains, expert, hi_row, rows);
        #[unroll]
        for group in 0..blocking.groups {
            let sum = sums[comptime!(i * blocking.groups + group)];
            #[unroll]
            for odd in 0..comptime!(2 / halves) {
                let column =
                    first + (side * blocking.groups + group) * GROUP + lane % 4usize * 2usize + odd;
                let mut lo = sum.extract(odd);
                let mut hi = sum.extract(comptime!(odd + 2));
                if comptime!(work.split) {
                    lo += sum.extract(1usize);
                    hi += sum.extract(3usize);
                }
                lo *= lo_gain;
                hi *= hi_gain;
                if column < end {
                    if comptime!(work.mode == Mode::GateUp) {
                        if lo_row < rows {
                            let value = lo / (1.0f32 + (-lo).exp()) * hi;
                            let rounded = Y::cast_from(value);
                            y[column * stride + lo_row] = rounded;
                            if comptime!(work.split) {
                                y[(column + 1usize) * stride + lo_row] =
                                    Y::cast_from(value - f32::cast_from(rounded));
                            }
                        }
                    } else {
                        let mut place = column / halves;
                        if comptime!(work.mode == Mode::Down) {
                            place = order[place] as usize;
                            lo *= weights[place];
                            hi *= weights[place];
                        }
                        if lo_row < rows {
                            y[place * stride + lo_row] = Y::cast_from(lo);
                        }
                        if hi_row < rows {
                            y[place * stride + hi_row] = Y::cast_from(hi);
                        }
                    }
                }
            }
        }
    }
}

/// The row of a matrix that this lane holds in the upper or lower half of a tile; `rows` or more is padding.
#[cube]
fn row_of(tile: usize, #[comptime] half: usize, rows: usize, #[comptime] work: Work) -> usize {
    let lane = UNIT_POS_X as usize;
    if comptime!(work.mode == Mode::GateUp) {
        let row = tile * comptime!(ROWS / 2) + lane / 4usize;
        select(row < rows / 2usize, row + half * (rows / 2usize), rows)
    } else {
        tile * ROWS + lane / 4usize + comptime!(half * 8)
    }
}

/// The gain of a row, and what undoes the scaling of decoded values.
#[cube]
fn gain_of(gains: &[f32], expert: usize, row: usize, rows: usize) -> f32 {
    gains[expert * rows + select(row < rows, row, rows - 1usize)] * RESTORE
}

#[cube]
fn commit() {
    gpu_asm!("cp.async.commit_group;");
}

#[cube]
fn wait(#[comptime] left: usize) {
    gpu_asm!("cp.async.wait_group {n};", n = const left);
}
