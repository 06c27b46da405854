//! Products with up to 16 rows of activations: the matrix is read once, at the speed of memory.
//!
//! A column of the second operand is a row of activations. Scales are multiplied into the decoded values: both have six
//! significant bits together, so bf16 holds the product exactly, and everything accumulates in the matrix units.
//!
//! A cube owns the rows of a few tiles and sums all columns, its planes share them; sums are formed in a fixed order.
//! For chosen experts a cube belongs to one choice (gate and up) or sums the choices of a row (down), so that nothing is
//! sorted and nothing is added by atomics.

use cubecl::prelude::*;

use super::decode::{RESTORE, mma, mul_bf16x2, scale_bf16, values0, values1, values2, values3};
use super::{Activations, BLOCKS, Matrix, ROWS, Tiling};
use crate::Buffer;

type N4 = Const<4>;

/// Rows of activations at most.
pub const FEW: usize = 16;
/// Columns of the second operand.
const COLUMNS: usize = 8;
/// Planes of a cube at most.
const PLANES: usize = 32;
/// Tiles from which on a matrix is tall: a vocabulary's.
const TALL: usize = 2048;

/// What a launch computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mode {
    /// One matrix.
    Dense,
    /// The chosen experts of each row: `silu(gate) * up`.
    GateUp,
    /// The chosen experts of each row, their weighted sum.
    Down,
}

/// What does not change in a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Work {
    mode: Mode,
    tiling: Tiling,
    /// Tiles of a cube.
    tiles: usize,
    /// Groups of eight columns.
    groups: usize,
    /// Whether two columns are one row of activations.
    split: bool,
    /// Pairs of spans that a cube sums, those of all chosen experts together.
    pairs: usize,
    /// Pairs of a plane.
    each: usize,
}

impl Work {
    fn new(mode: Mode, tiling: Tiling, x: &Activations, rows: usize, slots: usize) -> Self {
        let columns = rows * x.halves();
        let pairs = slots * tiling.pairs;
        // Many planes with a pair each hide latency better than few with many; where there are many cubes, fewer and
        // longer planes cost less. Measured: see benches/NOTES.md.
        let (tiles, wanted) = match mode {
            Mode::Dense if tiling.tiles >= TALL => (2, 4),
            Mode::GateUp => (2, 2),
            Mode::Dense | Mode::Down => (1, 1),
        };
        let wanted = pairs.div_ceil(PLANES).max(wanted).min(tiling.pairs);
        // The pairs of a plane are of one expert.
        let each =
            (wanted..=tiling.pairs).find(|each| slots == 1 || tiling.pairs.is_multiple_of(*each));
        Self {
            mode,
            tiling,
            tiles,
            groups: columns.div_ceil(COLUMNS),
            split: x.split,
            pairs,
            each: each.unwrap_or(tiling.pairs),
        }
    }

    const fn planes(&self) -> usize {
        self.pairs.div_ceil(self.each)
    }

    const fn ragged(&self) -> bool {
        !self.pairs.is_multiple_of(self.each)
    }

    const fn halves(&self) -> usize {
        if self.split { 2 } else { 1 }
    }

    /// Numbers that a plane adds to the sums of the cube.
    const fn parts(&self) -> usize {
        self.tiles * self.groups * COLUMNS * ROWS
    }
}

/// `y = matrix * x` for each of up to [`FEW`] rows; half as many when they are split.
///
/// - x: `[rows, columns]`
/// - y: `[rows, rows of the matrix]`
pub fn few(client: &Client, matrix: &Matrix, (x, rows): (&Activations, usize), y: &Buffer) {
    let launch = Launch {
        work: Work::new(Mode::Dense, matrix.tiling, x, rows, 1),
        jobs: 1,
        columns: rows * x.halves(),
        stride: matrix.rows,
        slots: 1,
    };
    launch.go(client, matrix, [&x.buffer, y, &matrix.codes, &matrix.gains]);
}

/// `silu(gate) * up` of the chosen experts of each row, as [`Activations`] for [`down`].
///
/// - ids: u32 `[rows, slots]`
/// - h: bf16 `[rows * slots, 1 or 2, columns of the down matrix]`, zero behind the intermediate width
pub fn gate_up(
    client: &Client,
    matrix: &Matrix,
    x: &Activations,
    (ids, slots): (&Buffer, usize),
    (h, stride): (&Buffer, usize),
) {
    let launch = Launch {
        work: Work::new(Mode::GateUp, matrix.tiling, x, 1, 1),
        jobs: ids.len(),
        columns: x.halves(),
        stride,
        slots,
    };
    launch.go(client, matrix, [&x.buffer, h, ids, &matrix.gains]);
}

/// The weighted sum of the chosen experts of each row.
///
/// - h: what [`gate_up`] wrote
/// - ids, weights: u32 and f32 `[rows, slots]`
/// - y: `[rows, rows of the matrix]`
pub fn down(
    client: &Client,
    matrix: &Matrix,
    h: &Activations,
    ([ids, weights], slots): ([&Buffer; 2], usize),
    y: &Buffer,
) {
    let launch = Launch {
        work: Work::new(Mode::Down, matrix.tiling, h, 1, slots),
        jobs: ids.len() / slots,
        columns: h.halves(),
        stride: matrix.rows,
        slots,
    };
    launch.go(client, matrix, [&h.buffer, y, ids, weights]);
}

/// A launch of [`few_kernel`].
struct Launch {
    work: Work,
    /// Rows, or choices of rows, of which each has cubes of its own.
    jobs: usize,
    /// Columns of a job.
    columns: usize,
    /// Numbers of `y` between rows.
    stride: usize,
    slots: usize,
}

impl Launch {
    fn go(&self, client: &Client, matrix: &Matrix, [x, y, ids, weights]: [&Buffer; 4]) {
        let work = self.work;
        #[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
        // SAFETY: the functions above state the lengths; rows and tiles beyond the last are read again and not written.
        unsafe {
            few_kernel::launch_unchecked(
                client,
                CubeCount::Static(
                    work.tiling.tiles.div_ceil(work.tiles) as u32,
                    self.jobs as u32,
                    1,
                ),
                CubeDim::new_2d(32, work.planes() as u32),
                matrix.codes.vectors(4),
                matrix.scales.arg(),
                matrix.gains.arg(),
                x.vectors(8),
                ids.arg(),
                weights.arg(),
                y.arg(),
                matrix.rows as u32,
                self.columns as u32,
                self.stride as u32,
                self.slots as u32,
                work,
                y.elem,
            );
        }
    }
}

#[cube(launch_unchecked)]
fn few_kernel<Y: Float>(
    codes: &[Vector<u32, N4>],
    scales: &[u32],
    gains: &[f32],
    x: &[Vector<u32, N4>],
    ids: &[u32],
    weights: &[f32],
    y: &mut [Y],
    rows: u32,
    columns: u32,
    stride: u32,
    slots: u32,
    #[comptime] work: Work,
    #[define(Y)] _elem: ElemType,
) {
    let rows = rows as usize;
    let mut sums = Array::<Vector<f32, N4>>::new(comptime!(work.tiles * work.groups));
    #[unroll]
    for i in 0..comptime!(work.tiles * work.groups) {
        sums[i] = Vector::<f32, N4>::new(0.0f32);
    }
    let first = UNIT_POS_Y as usize * work.each;
    // Where the activations of this cube or plane lie, and which of several matrices they meet.
    let job = CUBE_POS_Y as usize;
    let mut matrix = 0usize;
    let mut row = 0usize;
    let mut factor = 1.0f32;
    let mut pair = first;
    if comptime!(work.mode == Mode::GateUp) {
        matrix = ids[job] as usize;
        row = job / slots as usize * work.halves();
    } else if comptime!(work.mode == Mode::Down) {
        let choice = job * slots as usize + first / work.tiling.pairs;
        matrix = ids[choice] as usize;
        factor = weights[choice];
        row = choice * work.halves();
        pair = first % work.tiling.pairs;
    }
    #[unroll]
    for i in 0..work.each {
        if comptime!(!work.ragged()) || first + i < work.pairs {
            multiply(
                &mut sums,
                codes,
                scales,
                x,
                matrix,
                pair + i,
                row,
                columns as usize,
                work,
            );
        }
    }
    let mut parts = Shared::<[f32]>::new_slice(comptime!(work.planes() * work.parts()));
    share(&mut parts, &sums, gains, matrix, rows, factor, work);
    sync_cube();
    if comptime!(work.mode == Mode::GateUp) {
        write_gated::<Y>(&parts, gains, y, matrix, rows, stride as usize, work);
    } else {
        write::<Y>(&parts, gains, y, rows, columns as usize, work);
    }
}

/// Tile number `i` of this cube, the last one where there are no more.
#[cube]
fn tile_of(#[comptime] i: usize, #[comptime] work: Work) -> usize {
    let wanted = CUBE_POS_X as usize * work.tiles + i;
    let last = comptime!(work.tiling.tiles - 1);
    select(wanted < last, wanted, last)
}

/// Adds the products of one pair of spans.
#[cube]
fn multiply(
    sums: &mut Array<Vector<f32, N4>>,
    codes: &[Vector<u32, N4>],
    scales: &[u32],
    x: &[Vector<u32, N4>],
    matrix: usize,
    pair: usize,
    row: usize,
    columns: usize,
    #[comptime] work: Work,
) {
    let lane = UNIT_POS_X as usize;
    let tiling = work.tiling;
    let chunks = comptime!(tiling.chunks());
    let mut words = Array::<Vector<u32, N4>>::new(comptime!(work.tiles * chunks));
    let mut scale = Array::<u32>::new(work.tiles);
    #[unroll]
    for i in 0..work.tiles {
        let at = (matrix * tiling.tiles + tile_of(i, work)) * tiling.pairs + pair;
        #[unroll]
        for c in 0..chunks {
            words[comptime!(i * chunks + c)] = codes[(at * chunks + c) * 32usize + lane];
        }
        scale[i] = scales[at * 32usize + lane];
    }
    let mut values = Array::<Vector<u32, N4>>::new(comptime!(work.groups * chunks * 2));
    load_values(&mut values, x, pair, row, columns, work);
    let mut a = Array::<u32>::new(4usize);
    #[unroll]
    for i in 0..work.tiles {
        #[unroll]
        for c in 0..chunks {
            let span = comptime!(c / (chunks / 2));
            let lo = scale_bf16(scale[i], comptime!(span * 2), tiling.e8m0);
            let hi = scale_bf16(scale[i], comptime!(span * 2 + 1), tiling.e8m0);
            #[unroll]
            for b in 0..4usize {
                let word = words[comptime!(i * chunks + c)].extract(b);
                a[0] = mul_bf16x2(values0(word), lo);
                a[1] = mul_bf16x2(values1(word), hi);
                a[2] = mul_bf16x2(values2(word), lo);
                a[3] = mul_bf16x2(values3(word), hi);
                #[unroll]
                for group in 0..work.groups {
                    let v = values[comptime!((group * chunks + c) * 2 + b / 2)];
                    let at = comptime!(i * work.groups + group);
                    sums[at] = mma(
                        a[0],
                        a[1],
                        a[2],
                        a[3],
                        v.extract(comptime!(b % 2 * 2)),
                        v.extract(comptime!(b % 2 * 2 + 1)),
                        sums[at],
                    );
                }
            }
        }
    }
}

/// The activations of a pair of spans: of each group's column `lane / 4`, the lane's own blocks.
#[cube]
fn load_values(
    values: &mut Array<Vector<u32, N4>>,
    x: &[Vector<u32, N4>],
    pair: usize,
    row: usize,
    columns: usize,
    #[comptime] work: Work,
) {
    let lane = UNIT_POS_X as usize;
    let tiling = work.tiling;
    let chunks = comptime!(tiling.chunks());
    #[unroll]
    for group in 0..work.groups {
        let wanted = group * COLUMNS + lane / 4usize;
        let last = columns - 1usize;
        let column = select(wanted < last, wanted, last);
        let from = ((row + column) * tiling.pairs + pair) * comptime!(BLOCKS * tiling.block)
            + lane % 4usize * tiling.block;
        #[unroll]
        for c in 0..chunks {
            let start = comptime!(c / (chunks / 2) * 4 * tiling.block + c % (chunks / 2) * 16);
            #[unroll]
            for half in 0..2usize {
                let to = comptime!((group * chunks + c) * 2 + half);
                values[to] = x[(from + comptime!(start + half * 8)) / 8usize];
            }
        }
    }
}

/// Puts the sums of this plane where all see them: `[plane, tile, group, column, row]`.
#[cube]
fn share(
    parts: &mut Shared<[f32]>,
    sums: &Array<Vector<f32, N4>>,
    gains: &[f32],
    matrix: usize,
    rows: usize,
    factor: f32,
    #[comptime] work: Work,
) {
    let lane = UNIT_POS_X as usize;
    let plane = UNIT_POS_Y as usize;
    #[unroll]
    for i in 0..comptime!(work.tiles * work.groups) {
        let mut lo = factor;
        let mut hi = factor;
        if comptime!(work.mode == Mode::Down) {
            // Planes have different experts, whose gains differ.
            let row = tile_of(comptime!(i / work.groups), work) * ROWS + lane / 4usize;
            lo *= gain_of(gains, matrix, row, rows);
            hi *= gain_of(gains, matrix, row + 8usize, rows);
        }
        let at = plane * work.parts()
            + comptime!(i * COLUMNS * ROWS)
            + lane % 4usize * comptime!(2 * ROWS)
            + lane / 4usize;
        let sum = sums[i];
        parts[at] = sum.extract(0usize) * lo;
        parts[at + ROWS] = sum.extract(1usize) * lo;
        parts[at + 8usize] = sum.extract(2usize) * hi;
        parts[at + comptime!(ROWS + 8)] = sum.extract(3usize) * hi;
    }
}

/// The gain of a row, and what undoes the scaling of decoded values.
#[cube]
fn gain_of(gains: &[f32], matrix: usize, row: usize, rows: usize) -> f32 {
    gains[matrix * rows + select(row < rows, row, rows - 1usize)] * RESTORE
}

/// The sum over all planes for `row` of a tile and a column, and with two columns a row of activations over both.
#[cube]
fn total(parts: &Shared<[f32]>, at: usize, #[comptime] work: Work) -> f32 {
    let mut sum = 0.0f32;
    #[unroll]
    for plane in 0..comptime!(work.planes()) {
        sum += parts[comptime!(plane * work.parts()) + at];
        if comptime!(work.split) {
            sum += parts[comptime!(plane * work.parts() + ROWS) + at];
        }
    }
    sum
}

#[cube]
fn write<Y: Float>(
    parts: &Shared<[f32]>,
    gains: &[f32],
    y: &mut [Y],
    rows: usize,
    columns: usize,
    #[comptime] work: Work,
) {
    let halves = work.halves();
    let mut output = UNIT_POS_Y as usize * 32usize + UNIT_POS_X as usize;
    while output < comptime!(work.parts() / halves) {
        let slot = output % ROWS;
        let column = output / ROWS % comptime!(COLUMNS * work.groups / halves) * halves;
        let i = output / comptime!(ROWS * COLUMNS * work.groups / halves);
        let row = (CUBE_POS_X as usize * work.tiles + i) * ROWS + slot;
        if row < rows && column < columns {
            let mut sum = total(
                parts,
                (i * comptime!(COLUMNS * work.groups) + column) * ROWS + slot,
                work,
            );
            if comptime!(work.mode == Mode::Dense) {
                sum *= gain_of(gains, 0usize, row, rows);
            }
            y[(CUBE_POS_Y as usize + column / halves) * rows + row] = Y::cast_from(sum);
        }
        output += comptime!(work.planes() * 32);
    }
}

#[cube]
fn write_gated<Y: Float>(
    parts: &Shared<[f32]>,
    gains: &[f32],
    h: &mut [Y],
    matrix: usize,
    rows: usize,
    stride: usize,
    #[comptime] work: Work,
) {
    let mut output = UNIT_POS_Y as usize * 32usize + UNIT_POS_X as usize;
    while output < comptime!(work.tiles * ROWS / 2) {
        let i = output / comptime!(ROWS / 2);
        let slot = output % comptime!(ROWS / 2);
        let row = (CUBE_POS_X as usize * work.tiles + i) * comptime!(ROWS / 2) + slot;
        if row < rows / 2usize {
            let at = i * comptime!(COLUMNS * work.groups * ROWS) + slot;
            let gate = total(parts, at, work) * gain_of(gains, matrix, row, rows);
            let up = total(parts, at + comptime!(ROWS / 2), work)
                * gain_of(gains, matrix, row + rows / 2usize, rows);
            let value = gate / (1.0f32 + (-gate).exp()) * up;
            let rounded = Y::cast_from(value);
            let to = CUBE_POS_Y as usize * work.halves() * stride + row;
            h[to] = rounded;
            if comptime!(work.split) {
                h[to + stride] = Y::cast_from(value - f32::cast_from(rounded));
            }
        }
        output += comptime!(work.planes() * 32);
    }
}
