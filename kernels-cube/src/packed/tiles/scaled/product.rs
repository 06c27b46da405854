//! Many rows of 4 bits times tiles.
//!
//! As in [`many`](crate::many), weights go from memory to registers and activations through shared memory,
//! several chunks ahead; here both stay in their codes, and the instruction applies the scales.

use cubecl::frontend::barrier::copy_async;
use cubecl::prelude::*;

use super::emulate::emulated;
use super::order::{CHUNK, chunks, code_pair, scale_byte, scale_thread, scale_vector};
use super::recode::{gather, lower, narrow, upper};
use super::{Quantized, has_instruction};
use crate::Buffer;
use crate::many::{Blocking, Plan};
use crate::math::silu;
use crate::packed::tiles::{Matrix, ROWS, Scaled};

type N2 = Const<2>;
type N4 = Const<4>;

/// Chunks of activations in shared memory.
const STAGES: usize = 4;
/// Vectors of four words of codes in a column of a chunk.
const VECTORS: usize = CHUNK / 32;
/// Columns of one product of the matrix units.
const GROUP: usize = 8;

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
    /// Whether the device has the instruction.
    native: bool,
}

impl Work {
    const fn units(&self) -> usize {
        self.blocking.down * self.blocking.across * 32
    }

    /// Vectors of the codes of a chunk.
    const fn vectors(&self) -> usize {
        self.blocking.columns() * VECTORS
    }

    /// Vectors of a chunk that a unit copies.
    const fn copies(&self) -> usize {
        self.vectors().div_ceil(self.units())
    }

    /// Columns whose scales a unit copies.
    const fn scale_copies(&self) -> usize {
        self.blocking.columns().div_ceil(self.units())
    }
}

/// `y = matrix * x` for every row.
///
/// - y: `[rows, rows of the matrix]`
pub fn many(
    client: &Client,
    matrix: &Matrix,
    (x, rows): (&Quantized, usize),
    y: &Buffer,
    blocking: Blocking,
) {
    let launch = Launch {
        work: Work {
            mode: Mode::Dense,
            scaled: matrix.tiling.scaled,
            blocking,
            native: has_instruction(client),
        },
        grid: rows.div_ceil(blocking.columns()),
        columns: rows,
        stride: matrix.rows,
        slots: 1,
    };
    let unused = &matrix.scales;
    launch.go(client, matrix, x, [y, unused, unused, &matrix.gains]);
}

/// `silu(gate) * up` of the chosen experts of each row, in the plan's order.
///
/// - h: `[rows * slots, half of the matrix's rows]`
pub fn gate_up(client: &Client, matrix: &Matrix, x: &Quantized, plan: &Plan, h: &Buffer) {
    let launch = Launch {
        work: Work {
            mode: Mode::GateUp,
            scaled: matrix.tiling.scaled,
            blocking: plan.blocking,
            native: has_instruction(client),
        },
        grid: plan.capacity(),
        columns: 0,
        stride: matrix.rows / 2,
        slots: plan.slots,
    };
    launch.go(
        client,
        matrix,
        x,
        [h, &plan.order, &plan.blocks, &matrix.gains],
    );
}

/// The chosen experts' outputs times their weights, one row a choice.
///
/// - h: what [`gate_up`] wrote, quantized
/// - weights: f32 `[rows, slots]`
/// - parts: `[rows, slots, rows of the matrix]`
pub fn down(
    client: &Client,
    matrix: &Matrix,
    h: &Quantized,
    (plan, weights): (&Plan, &Buffer),
    parts: &Buffer,
) {
    let launch = Launch {
        work: Work {
            mode: Mode::Down,
            scaled: matrix.tiling.scaled,
            blocking: plan.blocking,
            native: has_instruction(client),
        },
        grid: plan.capacity(),
        columns: 0,
        stride: matrix.rows,
        slots: plan.slots,
    };
    launch.go(
        client,
        matrix,
        h,
        [parts, &plan.order, &plan.blocks, weights],
    );
}

/// A launch of [`scaled_kernel`].
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
    fn go(
        &self,
        client: &Client,
        matrix: &Matrix,
        x: &Quantized,
        [y, order, blocks, weights]: [&Buffer; 4],
    ) {
        let Blocking {
            down,
            across,
            tiles,
            ..
        } = self.work.blocking;
        #[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
        // SAFETY: the functions above state the lengths; rows and tiles beyond the last are read again and not written.
        unsafe {
            scaled_kernel::launch_unchecked(
                client,
                CubeCount::Static(
                    matrix.tiling.tiles.div_ceil(down * tiles) as u32,
                    self.grid as u32,
                    1,
                ),
                CubeDim::new_2d(32, (down * across) as u32),
                matrix.codes.vectors(2),
                matrix.scales.vectors(4),
                matrix.gains.arg(),
                x.codes.vectors(4),
                x.scales.vectors(2),
                x.factors.arg(),
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
fn scaled_kernel<Y: Float>(
    codes: &[Vector<u32, N2>],
    scales: &[Vector<u32, N4>],
    gains: &[f32],
    x: &[Vector<u32, N4>],
    x_scales: &[Vector<u32, N2>],
    factors: &[f32],
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
    // The columns of this cube are `first .. end` of all, or of the list, and belong to `expert`.
    let mut expert = 0usize;
    let mut first = CUBE_POS_Y as usize * blocking.columns();
    let mut end = columns as usize;
    if comptime!(work.mode != Mode::Dense) {
        let block = CUBE_POS_Y as usize * 3usize;
        expert = blocks[block] as usize;
        first = blocks[block + 1usize] as usize;
        end = blocks[block + 2usize] as usize;
        if first >= end {
            terminate!();
        }
    }
    let slots = slots as usize;
    let mut stage =
        Shared::<[Vector<u32, N4>]>::new_aligned_slice(comptime!(STAGES * work.vectors()), 16usize);
    let mut scale_stage = Shared::<[Vector<u32, N2>]>::new_aligned_slice(
        comptime!(STAGES * work.blocking.columns()),
        16usize,
    );
    let unit = UNIT_POS_Y as usize * 32usize + UNIT_POS_X as usize;
    let (tiles, pairs) = (tiles as usize, pairs as usize);
    let chunks = pairs * comptime!(chunks(work.scaled));
    // Where this unit's copies of a chunk come from.
    let mut source = Array::<usize>::new(comptime!(work.copies()));
    #[unroll]
    for i in 0..comptime!(work.copies()) {
        let wanted = first + (i * work.units() + unit) / VECTORS;
        let row = source_row(wanted, end, order, slots, work);
        source[i] = row * chunks * VECTORS + unit % VECTORS;
    }
    let mut scale_source = Array::<usize>::new(comptime!(work.scale_copies()));
    #[unroll]
    for i in 0..comptime!(work.scale_copies()) {
        let wanted = first + i * work.units() + unit;
        scale_source[i] = source_row(wanted, end, order, slots, work) * chunks;
    }
    #[unroll]
    for chunk in 0..comptime!(STAGES - 1) {
        if chunk < chunks {
            copy(x, &mut stage, &source, chunk, work);
            copy_scales(x_scales, &mut scale_stage, &scale_source, chunk, work);
        }
        commit();
    }
    let tile = (CUBE_POS_X as usize * blocking.down + UNIT_POS_Y as usize / blocking.across)
        * blocking.tiles;
    let of = Panel {
        base: expert * tiles,
        tile,
        tiles,
        pairs,
    };
    let mut sums = Array::<Vector<f32, N4>>::new(comptime!(blocking.tiles * blocking.groups));
    #[unroll]
    for i in 0..comptime!(blocking.tiles * blocking.groups) {
        sums[i] = Vector::<f32, N4>::new(0.0f32);
    }
    // What is multiplied next is loaded before the products that it would otherwise wait for.
    let mut words = Array::<Vector<u32, N2>>::new(comptime!(blocking.tiles * 4));
    let mut scale = Array::<Vector<u32, N4>>::new(blocking.tiles);
    load(&mut words, &mut scale, codes, scales, &of, 0usize, work);
    for chunk in 0..chunks {
        wait(comptime!(STAGES - 2));
        sync_cube();
        if chunk + comptime!(STAGES - 1) < chunks {
            let next = chunk + comptime!(STAGES - 1);
            copy(x, &mut stage, &source, next, work);
            copy_scales(x_scales, &mut scale_stage, &scale_source, next, work);
        }
        commit();
        let mut a = Array::<u32>::new(comptime!(blocking.tiles * 8));
        let mut a_scale = Array::<u32>::new(comptime!(blocking.tiles * 2));
        operands(&mut a, &mut a_scale, &words, &scale, chunk, work);
        let following = select(chunk + 1usize < chunks, chunk + 1usize, chunk);
        load(&mut words, &mut scale, codes, scales, &of, following, work);
        multiply(&mut sums, &a, &a_scale, &stage, &scale_stage, chunk, work);
    }
    store::<Y>(
        &sums,
        gains,
        factors,
        order,
        weights,
        y,
        expert,
        tile,
        first,
        end,
        rows as usize,
        stride as usize,
        slots,
        work,
    );
}

/// The row of activations of a column, of the last one where there are no more.
#[cube]
fn source_row(
    wanted: usize,
    end: usize,
    order: &[u32],
    slots: usize,
    #[comptime] work: Work,
) -> usize {
    let column = select(wanted < end, wanted, end - 1usize);
    let mut row = column;
    if comptime!(work.mode == Mode::GateUp) {
        row = order[column] as usize / slots;
    }
    row
}

/// Starts the copies of a chunk's codes.
#[cube]
fn copy(
    x: &[Vector<u32, N4>],
    stage: &mut Shared<[Vector<u32, N4>]>,
    source: &Array<usize>,
    chunk: usize,
    #[comptime] work: Work,
) {
    let unit = UNIT_POS_Y as usize * 32usize + UNIT_POS_X as usize;
    #[unroll]
    for i in 0..comptime!(work.copies()) {
        let at = i * work.units() + unit;
        if comptime!(work.vectors().is_multiple_of(work.units())) || at < work.vectors() {
            let to = chunk % STAGES * work.vectors() + at;
            let from = source[i] + chunk * VECTORS;
            copy_async(&x[from..from + 1usize], &mut stage[to..to + 1usize], 4u32);
        }
    }
}

/// Starts the copies of its scales, of two steps each.
#[cube]
fn copy_scales(
    x_scales: &[Vector<u32, N2>],
    stage: &mut Shared<[Vector<u32, N2>]>,
    source: &Array<usize>,
    chunk: usize,
    #[comptime] work: Work,
) {
    let columns = work.blocking.columns();
    let unit = UNIT_POS_Y as usize * 32usize + UNIT_POS_X as usize;
    #[unroll]
    for i in 0..comptime!(work.scale_copies()) {
        let at = i * work.units() + unit;
        if comptime!(columns.is_multiple_of(work.units())) || at < columns {
            let to = chunk % STAGES * columns + at;
            let from = source[i] + chunk;
            copy_async(
                &x_scales[from..from + 1usize],
                &mut stage[to..to + 1usize],
                2u32,
            );
        }
    }
}

/// Tile `i` of this plane, the last one where there are no more.
#[cube]
fn tile_of(of: &Panel, i: usize) -> usize {
    let last = of.tiles - 1usize;
    of.base + select(of.tile + i < last, of.tile + i, last)
}

/// The stored words of a chunk: for each tile, step and half a pair.
#[cube]
#[expect(
    clippy::too_many_arguments,
    reason = "what a kernel has, its parts need"
)]
fn load(
    words: &mut Array<Vector<u32, N2>>,
    scale: &mut Array<Vector<u32, N4>>,
    codes: &[Vector<u32, N2>],
    scales: &[Vector<u32, N4>],
    of: &Panel,
    chunk: usize,
    #[comptime] work: Work,
) {
    let lane = UNIT_POS_X as usize;
    let scaled = work.scaled;
    #[unroll]
    for i in 0..work.blocking.tiles {
        let number = tile_of(of, i) * of.pairs;
        #[unroll]
        for step in 0..2usize {
            #[unroll]
            for half in 0..2usize {
                words[comptime!(i * 4 + step * 2 + half)] = codes[number
                    * comptime!(chunks(scaled) * 128)
                    + code_pair(chunk, step, half, lane, scaled)];
            }
        }
        scale[i] = scales[number * 8usize + scale_vector(chunk, lane, scaled)];
    }
}

/// The first operands of a chunk: for each tile and step four words of codes and one of scales.
#[cube]
fn operands(
    a: &mut Array<u32>,
    a_scale: &mut Array<u32>,
    words: &Array<Vector<u32, N2>>,
    scale: &Array<Vector<u32, N4>>,
    chunk: usize,
    #[comptime] work: Work,
) {
    let byte = scale_byte(chunk, UNIT_POS_X as usize, work.scaled) as u32;
    #[unroll]
    for i in 0..work.blocking.tiles {
        let four = scale[i];
        let gathered = gather(
            four.extract(0usize),
            four.extract(1usize),
            four.extract(2usize),
            four.extract(3usize),
            byte,
        );
        if comptime!(work.scaled.e8m0()) {
            a_scale[comptime!(i * 2)] = gathered;
            a_scale[comptime!(i * 2 + 1)] = gathered >> 16u32;
        } else {
            a_scale[comptime!(i * 2)] = narrow(gathered);
            a_scale[comptime!(i * 2 + 1)] = a_scale[comptime!(i * 2)];
        }
        #[unroll]
        for part in 0..4usize {
            let pair = words[comptime!(i * 4 + part)];
            let at = comptime!((i * 4 + part) * 2);
            a[at] = upper(pair.extract(0usize), pair.extract(1usize));
            a[comptime!(at + 1)] = lower(pair.extract(0usize), pair.extract(1usize));
        }
    }
}

/// Adds the products of one chunk.
#[cube]
fn multiply(
    sums: &mut Array<Vector<f32, N4>>,
    a: &Array<u32>,
    a_scale: &Array<u32>,
    stage: &Shared<[Vector<u32, N4>]>,
    scale_stage: &Shared<[Vector<u32, N2>]>,
    chunk: usize,
    #[comptime] work: Work,
) {
    let blocking = work.blocking;
    let lane = UNIT_POS_X as usize;
    let side = UNIT_POS_Y as usize % blocking.across;
    let column = side * comptime!(blocking.groups * GROUP) + lane / 4usize;
    let base = chunk % STAGES * work.vectors() + column * VECTORS + lane % 4usize;
    let scale_base = chunk % STAGES * blocking.columns() + column;
    #[unroll]
    for group in 0..blocking.groups {
        let b = stage[base + comptime!(group * GROUP * VECTORS)];
        let b_scale = scale_stage[scale_base + comptime!(group * GROUP)];
        #[unroll]
        for step in 0..2usize {
            #[unroll]
            for i in 0..blocking.tiles {
                let at = comptime!((i * 2 + step) * 4);
                let sum = comptime!(i * blocking.groups + group);
                sums[sum] = mma(
                    a[at],
                    a[comptime!(at + 1)],
                    a[comptime!(at + 2)],
                    a[comptime!(at + 3)],
                    b.extract(comptime!(step * 2)),
                    b.extract(comptime!(step * 2 + 1)),
                    sums[sum],
                    a_scale[comptime!(i * 2 + step)],
                    b_scale.extract(step),
                    step,
                    work,
                );
            }
        }
    }
}

/// `c` plus 16 rows x 64 columns times 64 x 8. Every lane holds the scales of its column of the second operand, so that
/// it does not matter which of four the instruction takes them from.
#[cube]
#[expect(clippy::too_many_arguments, reason = "the operands of the instruction")]
fn mma(
    a0: u32,
    a1: u32,
    a2: u32,
    a3: u32,
    b0: u32,
    b1: u32,
    c: Vector<f32, N4>,
    a_scale: u32,
    b_scale: u32,
    #[comptime] step: usize,
    #[comptime] work: Work,
) -> Vector<f32, N4> {
    let scaled = work.scaled;
    if comptime!(work.native) {
        instruction(a0, a1, a2, a3, b0, b1, c, a_scale, b_scale, step, scaled)
    } else {
        emulated(a0, a1, a2, a3, b0, b1, c, a_scale, b_scale, step, scaled)
    }
}

#[cube]
#[expect(clippy::too_many_arguments, reason = "the operands of the instruction")]
fn instruction(
    a0: u32,
    a1: u32,
    a2: u32,
    a3: u32,
    b0: u32,
    b1: u32,
    c: Vector<f32, N4>,
    a_scale: u32,
    b_scale: u32,
    #[comptime] step: usize,
    #[comptime] scaled: Scaled,
) -> Vector<f32, N4> {
    // A mutable vector handed to `in(_)` would be passed as its address: its components are.
    let c0 = c.extract(0usize);
    let c1 = c.extract(1usize);
    let c2 = c.extract(2usize);
    let c3 = c.extract(3usize);
    let kind = comptime!(if scaled.e8m0() {
        "scale_vec::2X.f32.e2m1.e2m1.f32.ue8m0"
    } else {
        "scale_vec::4X.f32.e2m1.e2m1.f32.ue4m3"
    });
    let thread = comptime!(scale_thread(step, scaled));
    let d: Vector<f32, N4>;
    gpu_asm!(
        "mma.sync.aligned.m16n8k64.row.col.kind::mxf4nvf4.block_scale.{kind} {d}, {{{a0}, {a1}, {a2}, {a3}}}, {{{b0}, {b1}}}, {{{c0}, {c1}, {c2}, {c3}}}, {a_scale}, {{0, {thread}}}, {b_scale}, {{0, 0}};",
        a0 = in(_) a0, a1 = in(_) a1, a2 = in(_) a2, a3 = in(_) a3, b0 = in(_) b0, b1 = in(_) b1,
        c0 = in(_) c0, c1 = in(_) c1, c2 = in(_) c2, c3 = in(_) c3,
        a_scale = in(_) a_scale, b_scale = in(_) b_scale, thread = const thread,
        d = out(_) d, options(pure, nomem),
    );
    d
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
    factors: &[f32],
    order: &[u32],
    weights: &[f32],
    y: &mut [Y],
    expert: usize,
    tile: usize,
    first: usize,
    end: usize,
    rows: usize,
    stride: usize,
    slots: usize,
    #[comptime] work: Work,
) {
    let blocking = work.blocking;
    let lane = UNIT_POS_X as usize;
    let side = UNIT_POS_Y as usize % blocking.across;
    #[unroll]
    for group in 0..blocking.groups {
        #[unroll]
        for odd in 0..2usize {
            let column =
                first + (side * blocking.groups + group) * GROUP + lane % 4usize * 2usize + odd;
            if column < end {
                let mut place = column;
                if comptime!(work.mode == Mode::Down) {
                    place = order[column] as usize;
                }
                // What the sums of this column are multiplied with.
                let factor = if comptime!(work.mode == Mode::Down) {
                    weights[place] * factors[column]
                } else if comptime!(work.mode == Mode::GateUp) {
                    factors[order[column] as usize / slots]
                } else {
                    factors[column]
                };
                #[unroll]
                for i in 0..blocking.tiles {
                    let lo_row = row_of(tile + i, 0usize, rows, work);
                    let hi_row = row_of(tile + i, 1usize, rows, work);
                    let sum = sums[comptime!(i * blocking.groups + group)];
                    let lo = sum.extract(odd) * factor * gain_of(gains, expert, lo_row, rows);
                    let hi = sum.extract(comptime!(odd + 2))
                        * factor
                        * gain_of(gains, expert, hi_row, rows);
                    if comptime!(work.mode == Mode::GateUp) {
                        if lo_row < rows {
                            y[place * stride + lo_row] = Y::cast_from(silu(lo) * hi);
                        }
                    } else {
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

/// The gain of a row.
#[cube]
fn gain_of(gains: &[f32], expert: usize, row: usize, rows: usize) -> f32 {
    gains[expert * rows + select(row < rows, row, rows - 1usize)]
}

#[cube]
fn commit() {
    gpu_asm!("cp.async.commit_group;");
}

#[cube]
fn wait(#[comptime] left: usize) {
    gpu_asm!("cp.async.wait_group {n};", n = const left);
}
