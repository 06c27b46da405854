//! Products with many rows of activations, as in prefill.
//!
//! Weights never touch shared memory: a tile is already in the order of the first operand, so a plane loads its tiles
//! into registers, decodes them with their scales to bf16 (exactly: six significant bits) and multiplies them with every
//! column of the cube. Activations are staged through shared memory by asynchronous copies, several chunks ahead.
//!
//! The same kernel computes the experts of a layer: a cube then belongs to one expert, and its rows of activations are
//! those that [`super::plan`] listed for it.

use cubecl::frontend::barrier::copy_async;
use cubecl::prelude::*;

use super::decode::{mma, mul_bf16x2, scale_bf16, values0, values1, values2, values3};
use super::gemv::{Activations, Matrix};
use super::plan::Plan;
use super::{ROWS, Tiling};
use crate::Buffer;

type N2 = Const<2>;
type N4 = Const<4>;

/// Rows of activations of a cube, the columns of its product.
pub const COLUMNS: usize = 128;
/// Planes of a cube.
const PLANES: usize = 8;
/// Tiles of a plane.
const TILES: usize = 2;
/// Chunks of activations in shared memory.
const STAGES: usize = 4;
/// Vectors of eight bf16 in a row of a chunk.
const VECTORS: usize = 8;
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

/// `y = matrix * x` for every row.
///
/// - x: bf16 `[rows, 1 or 2, columns]`
/// - y: `[rows, rows of the matrix]`
pub fn many<Y: Float + CubeElement>(
    client: &Client,
    matrix: &Matrix,
    x: &Activations,
    rows: usize,
    y: &Buffer,
) {
    let work = Many {
        mode: Mode::Dense,
        split: x.split,
        stride: matrix.rows,
        slots: 1,
    };
    let columns = rows * if x.split { 2 } else { 1 };
    let empty = &matrix.codes;
    work.launch::<Y>(
        client,
        matrix,
        [&x.buffer, y, empty, empty, empty],
        (columns, columns.div_ceil(COLUMNS)),
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
    let work = Many {
        mode: Mode::GateUp,
        split: x.split,
        stride,
        slots: plan.slots,
    };
    let args = [&x.buffer, h, &plan.order, &plan.blocks, &plan.order];
    work.launch::<half::bf16>(client, matrix, args, (0, plan.capacity));
}

/// The chosen experts' outputs times their weights, one row a choice.
///
/// - h: what [`gate_up`] wrote
/// - weights: f32 `[rows, slots]`
/// - parts: `[rows, slots, rows of the matrix]`
pub fn down<Y: Float + CubeElement>(
    client: &Client,
    matrix: &Matrix,
    h: &Activations,
    (plan, weights): (&Plan, &Buffer),
    parts: &Buffer,
) {
    let work = Many {
        mode: Mode::Down,
        split: h.split,
        stride: matrix.rows,
        slots: plan.slots,
    };
    let args = [&h.buffer, parts, &plan.order, &plan.blocks, weights];
    work.launch::<Y>(client, matrix, args, (0, plan.capacity));
}

/// A launch of [`many_kernel`].
struct Many {
    mode: Mode,
    split: bool,
    /// Numbers of `y` between rows.
    stride: usize,
    slots: usize,
}

impl Many {
    #[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
    fn launch<Y: Float + CubeElement>(
        &self,
        client: &Client,
        matrix: &Matrix,
        [x, y, order, blocks, weights]: [&Buffer; 5],
        (columns, across): (usize, usize),
    ) {
        let down = matrix.tiling.tiles.div_ceil(PLANES * TILES);
        // SAFETY: the functions above state the lengths; rows and tiles beyond the last are read again and not written.
        unsafe {
            many_kernel::launch_unchecked::<Y>(
                client,
                CubeCount::Static(down as u32, across as u32, 1),
                CubeDim::new_2d(32, PLANES as u32),
                matrix.codes.vectors(4),
                matrix.scales.arg(),
                matrix.gains.arg(),
                x.vectors(4),
                order.arg(),
                blocks.arg(),
                weights.arg(),
                y.arg(),
                matrix.rows as u32,
                columns as u32,
                self.stride as u32,
                self.slots as u32,
                matrix.tiling,
                self.mode,
                self.split,
            );
        }
    }
}

#[cube(launch_unchecked)]
fn many_kernel<Y: Float>(
    codes: &[Vector<u32, N4>],
    scales: &[u32],
    gains: &[f32],
    x: &[Vector<u32, N2>],
    order: &[u32],
    blocks: &[u32],
    weights: &[f32],
    y: &mut [Y],
    rows: u32,
    columns: u32,
    stride: u32,
    slots: u32,
    #[comptime] tiling: Tiling,
    #[comptime] mode: Mode,
    #[comptime] split: bool,
) {
    let lane = UNIT_POS_X as usize;
    let plane = UNIT_POS_Y as usize;
    let unit = plane * 32usize + lane;
    let rows = rows as usize;
    let halves = comptime!(if split { 2usize } else { 1usize });
    let pairs = comptime!(tiling.pairs);
    let chunks = comptime!(tiling.chunks());
    // The columns of this cube are `first .. end` of the list of rows, and belong to `expert`.
    let mut expert = 0usize;
    let mut first = CUBE_POS_Y as usize * COLUMNS;
    let mut end = columns as usize;
    if comptime!(mode != Mode::Dense) {
        expert = blocks[CUBE_POS_Y as usize * 3usize] as usize;
        first = blocks[CUBE_POS_Y as usize * 3usize + 1usize] as usize * halves;
        end = blocks[CUBE_POS_Y as usize * 3usize + 2usize] as usize * halves;
        if first >= end {
            terminate!();
        }
    }
    let mut stage = Shared::<[Vector<u32, N2>]>::new_aligned_slice(
        comptime!(STAGES * COLUMNS * VECTORS * 2),
        16usize,
    );
    // Each unit copies the same vector of four rows of every chunk.
    let vector = unit % VECTORS;
    let mut source = Array::<usize>::new(comptime!(COLUMNS * VECTORS / (PLANES * 32)));
    #[unroll]
    for i in 0..comptime!(COLUMNS * VECTORS / (PLANES * 32)) {
        let column = i * comptime!(PLANES * 32 / VECTORS) + unit / VECTORS;
        let wanted = first + column;
        let listed = select(wanted < end, wanted, end - 1usize);
        let mut row = listed;
        if comptime!(mode == Mode::GateUp) {
            row = order[listed / halves] as usize / slots as usize * halves + listed % halves;
        }
        source[i] = row * comptime!(tiling.columns() / 8) + vector;
    }
    let target = (unit / VECTORS) * VECTORS + (vector ^ (unit / VECTORS % 4usize * 2usize));
    let base = (expert * tiling.tiles) * pairs;
    let tile = CUBE_POS_X as usize * comptime!(PLANES * TILES) + plane * TILES;

    #[unroll]
    for s in 0..comptime!(STAGES - 1) {
        if comptime!(s < pairs * chunks) {
            #[unroll]
            for i in 0..comptime!(COLUMNS * VECTORS / (PLANES * 32)) {
                let from = source[i] + s * VECTORS;
                let to = s * comptime!(COLUMNS * VECTORS) + i * comptime!(PLANES * 32) + target;
                copy_async(
                    &x[from * 2usize..from * 2usize + 2usize],
                    &mut stage[to * 2usize..to * 2usize + 2usize],
                    4u32,
                );
            }
        }
        commit();
    }
    let mut sums = Array::<Vector<f32, N4>>::new(comptime!(TILES * COLUMNS / GROUP));
    #[unroll]
    for i in 0..comptime!(TILES * COLUMNS / GROUP) {
        sums[i] = Vector::<f32, N4>::new(0.0f32);
    }
    let mut next = Array::<Vector<u32, N4>>::new(TILES);
    let mut next_scale = Array::<u32>::new(TILES);
    #[unroll]
    for i in 0..TILES {
        let at = base + clamp_tile(tile + i, tiling) * pairs;
        next[i] = codes[at * chunks * 32usize + lane];
        next_scale[i] = scales[at * 32usize + lane];
    }
    for pair in 0..pairs {
        let mut factors = Array::<u32>::new(comptime!(TILES * 16));
        #[unroll]
        for i in 0..TILES {
            #[unroll]
            for block in 0..4usize {
                let word = plane_shuffle(
                    next_scale[i],
                    (lane / 4usize * 4usize) as u32 + comptime!(block as u32),
                );
                #[unroll]
                for byte in 0..4usize {
                    // Block `block` of span `byte / 2`, row `g` or `g + 8`.
                    factors[i * 16 + (byte / 2 * 4 + block) * 2 + byte % 2] =
                        scale_bf16(word, byte, tiling.e8m0);
                }
            }
            let after = select(pair + 1usize < pairs, pair + 1usize, pair);
            next_scale[i] =
                scales[(base + clamp_tile(tile + i, tiling) * pairs + after) * 32usize + lane];
        }
        #[unroll]
        for c in 0..chunks {
            let chunk = pair * chunks + c;
            wait(comptime!(STAGES - 2));
            sync_cube();
            let ahead = chunk + comptime!(STAGES - 1);
            if ahead < comptime!(pairs * chunks) {
                #[unroll]
                for i in 0..comptime!(COLUMNS * VECTORS / (PLANES * 32)) {
                    let from = source[i] + ahead * VECTORS;
                    let to = ahead % STAGES * comptime!(COLUMNS * VECTORS)
                        + i * comptime!(PLANES * 32)
                        + target;
                    copy_async(
                        &x[from * 2usize..from * 2usize + 2usize],
                        &mut stage[to * 2usize..to * 2usize + 2usize],
                        4u32,
                    );
                }
            }
            commit();
            let mut words = Array::<Vector<u32, N4>>::new(TILES);
            #[unroll]
            for i in 0..TILES {
                words[i] = next[i];
                let after = select(
                    chunk + 1usize < comptime!(pairs * chunks),
                    chunk + 1usize,
                    chunk,
                );
                next[i] = codes[((base + clamp_tile(tile + i, tiling) * pairs) * chunks + after)
                    * 32usize
                    + lane];
            }
            #[unroll]
            for step in 0..4usize {
                let block = comptime!((c * 4 + step) / (tiling.block / 16));
                let mut a = Array::<u32>::new(comptime!(TILES * 4));
                #[unroll]
                for i in 0..TILES {
                    let word = words[i].extract(step);
                    let lo = factors[i * 16 + block * 2];
                    let hi = factors[i * 16 + block * 2 + 1];
                    a[i * 4] = mul_bf16x2(values0(word), lo);
                    a[i * 4 + 1] = mul_bf16x2(values1(word), hi);
                    a[i * 4 + 2] = mul_bf16x2(values2(word), lo);
                    a[i * 4 + 3] = mul_bf16x2(values3(word), hi);
                }
                let row = lane / 4usize;
                let t = lane % 4usize;
                let read = chunk % STAGES * comptime!(COLUMNS * VECTORS)
                    + row * VECTORS
                    + ((comptime!(step * 2) + t / 2usize) ^ (row % 4usize * 2usize));
                #[unroll]
                for group in 0..comptime!(COLUMNS / GROUP) {
                    let v =
                        stage[(read + group * comptime!(GROUP * VECTORS)) * 2usize + t % 2usize];
                    #[unroll]
                    for i in 0..TILES {
                        let at = comptime!(i * (COLUMNS / GROUP) + group);
                        sums[at] = mma(
                            a[i * 4],
                            a[i * 4 + 1],
                            a[i * 4 + 2],
                            a[i * 4 + 3],
                            v.extract(0usize),
                            v.extract(1usize),
                            sums[at],
                        );
                    }
                }
            }
        }
    }
    #[unroll]
    for i in 0..TILES {
        let mut gain = Array::<f32>::new(2usize);
        let mut out = Array::<usize>::new(2usize);
        #[unroll]
        for half in 0..2usize {
            let row = row_of(tile + i, half, rows, mode);
            out[half] = row;
            // The decoded values were scaled by 2^-14.
            gain[half] = gains[expert * rows + select(row < rows, row, rows - 1usize)] * 16384.0f32;
        }
        #[unroll]
        for group in 0..comptime!(COLUMNS / GROUP) {
            let sum = sums[comptime!(i * (COLUMNS / GROUP) + group)];
            #[unroll]
            for side in 0..comptime!(2 / halves) {
                let column = first + group * GROUP + lane % 4usize * 2usize + side;
                let mut lo = sum.extract(side);
                let mut hi = sum.extract(comptime!(side + 2));
                if comptime!(split) {
                    lo += sum.extract(1usize);
                    hi += sum.extract(3usize);
                }
                if column < end {
                    let listed = column / halves;
                    if comptime!(mode == Mode::GateUp) {
                        let gate = lo * gain[0];
                        let value = gate / (1.0f32 + (-gate).exp()) * (hi * gain[1]);
                        if out[0] < rows / 2usize {
                            let rounded = Y::cast_from(value);
                            y[column * stride as usize + out[0]] = rounded;
                            if comptime!(split) {
                                y[(column + 1usize) * stride as usize + out[0]] =
                                    Y::cast_from(value - f32::cast_from(rounded));
                            }
                        }
                    } else {
                        let mut place = listed;
                        let mut weight = 1.0f32;
                        if comptime!(mode == Mode::Down) {
                            place = order[listed] as usize;
                            weight = weights[place];
                        }
                        if out[0] < rows {
                            y[place * stride as usize + out[0]] =
                                Y::cast_from(lo * gain[0] * weight);
                        }
                        if out[1] < rows {
                            y[place * stride as usize + out[1]] =
                                Y::cast_from(hi * gain[1] * weight);
                        }
                    }
                }
            }
        }
    }
}

/// The row of a matrix that this lane holds in the upper or lower half of a tile.
#[cube]
fn row_of(tile: usize, #[comptime] half: usize, rows: usize, #[comptime] mode: Mode) -> usize {
    let lane = UNIT_POS_X as usize;
    if comptime!(mode == Mode::GateUp) {
        let row = tile * comptime!(ROWS / 2) + lane / 4usize;
        // A padding row must not be taken for the first one that is gated.
        select(row < rows / 2usize, row + half * (rows / 2usize), rows)
    } else {
        tile * ROWS + lane / 4usize + comptime!(half * 8)
    }
}

#[cube]
fn clamp_tile(tile: usize, #[comptime] tiling: Tiling) -> usize {
    let last = comptime!(tiling.tiles - 1);
    select(tile < last, tile, last)
}

#[cube]
fn commit() {
    gpu_asm!("cp.async.commit_group;");
}

#[cube]
fn wait(#[comptime] left: usize) {
    gpu_asm!("cp.async.wait_group {n};", n = const left);
}
