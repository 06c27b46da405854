//! Products with up to 16 rows of activations: the matrix is read once, at the speed of memory.
//!
//! A column of the second operand is a row of activations. Scales are multiplied into the decoded values: both have six
//! significant bits together, so bf16 holds the product exactly, and everything accumulates in the matrix units.
//!
//! A cube owns the rows of a few tiles and sums all columns, its planes share them; sums are formed in a fixed order.
//! For chosen experts a cube belongs to one choice (gate and up) or sums the choices of a row (down), so that nothing is
//! sorted and nothing is added by atomics.

use cubecl::frontend::barrier::copy_async;
use cubecl::prelude::*;

use super::decode::{RESTORE, mma, mul_bf16x2, scale_bf16, values0, values1, values2, values3};
use super::{Activations, BLOCKS, Matrix, ROWS, Scaled, Tiling};
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

/// What a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Work {
    mode: Mode,
    scaled: Scaled,
    /// Tiles of a cube.
    tiles: usize,
    /// Groups of eight columns.
    groups: usize,
    /// Whether two columns are one row of activations.
    split: bool,
    planes: usize,
    /// Pairs of spans that a plane sums; of those of all chosen experts together, if they are chosen.
    each: usize,
    /// Whether the last plane has less.
    ragged: bool,
}

impl Work {
    /// The work of `jobs` jobs of `columns` columns and `slots` experts each.
    fn new(mode: Mode, tiling: Tiling, split: bool, [jobs, columns, slots]: [usize; 3]) -> Self {
        let pairs = slots * tiling.pairs;
        // Many planes with a pair each hide latency better than few with many; where there are many cubes, fewer and
        // longer planes cost less. Measured: see benches/NOTES.md.
        let (tiles, wanted) = match mode {
            Mode::Dense if tiling.tiles >= TALL => (2, 2),
            Mode::GateUp => (2, 2),
            Mode::Down if jobs > 2 => (4, 4),
            Mode::Dense | Mode::Down => (1, 1),
        };
        let wanted = pairs.div_ceil(PLANES).max(wanted).min(tiling.pairs);
        // The pairs of a plane are of one expert.
        let each =
            (wanted..=tiling.pairs).find(|each| slots == 1 || tiling.pairs.is_multiple_of(*each));
        let each = each.unwrap_or(tiling.pairs);
        Self {
            mode,
            scaled: tiling.scaled,
            tiles,
            groups: columns.div_ceil(COLUMNS),
            split,
            planes: pairs.div_ceil(each),
            each,
            ragged: !pairs.is_multiple_of(each),
        }
    }

    const fn halves(&self) -> usize {
        if self.split { 2 } else { 1 }
    }

    /// Numbers that a plane adds to the sums of the cube.
    const fn parts(&self) -> usize {
        self.tiles * self.groups * COLUMNS * ROWS
    }

    /// Rows whose gains differ: those of the cube, and if its planes have different experts, of each plane.
    const fn gains(&self) -> usize {
        match self.mode {
            Mode::Down => self.planes * self.tiles * ROWS,
            Mode::Dense | Mode::GateUp => self.tiles * ROWS,
        }
    }
}

/// `y = matrix * x` for each of up to [`FEW`] rows; half as many when they are split.
///
/// - x: `[rows, columns]`
/// - y: `[rows, rows of the matrix]`
pub fn few(client: &Client, matrix: &Matrix, (x, rows): (&Activations, usize), y: &Buffer) {
    let launch = Launch {
        work: Work::new(
            Mode::Dense,
            matrix.tiling,
            x.split,
            [1, rows * x.halves(), 1],
        ),
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
        work: Work::new(
            Mode::GateUp,
            matrix.tiling,
            x.split,
            [ids.len(), x.halves(), 1],
        ),
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
        work: Work::new(
            Mode::Down,
            matrix.tiling,
            h.split,
            [ids.len() / slots, h.halves(), slots],
        ),
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
                    matrix.tiling.tiles.div_ceil(work.tiles) as u32,
                    self.jobs as u32,
                    1,
                ),
                CubeDim::new_2d(32, work.planes as u32),
                matrix.codes.vectors(4),
                matrix.scales.arg(),
                matrix.gains.arg(),
                x.vectors(8),
                ids.arg(),
                weights.arg(),
                y.arg(),
                matrix.rows as u32,
                matrix.tiling.tiles as u32,
                matrix.tiling.pairs as u32,
                self.columns as u32,
                self.stride as u32,
                self.slots as u32,
                work,
                y.elem,
            );
        }
    }
}

/// Where a plane's part of a launch lies.
#[derive(CubeType)]
struct Place {
    /// Which of several matrices.
    matrix: usize,
    /// Rows of a matrix.
    rows: usize,
    /// Tiles below one another, and pairs of spans side by side, in a matrix.
    tiles: usize,
    pairs: usize,
    /// The first pair of spans.
    pair: usize,
    /// The row of `x` that is the first column.
    row: usize,
    columns: usize,
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
    tiles: u32,
    pairs: u32,
    columns: u32,
    stride: u32,
    slots: u32,
    #[comptime] work: Work,
    #[define(Y)] _elem: ElemType,
) {
    let pairs = pairs as usize;
    let first = UNIT_POS_Y as usize * work.each;
    let job = CUBE_POS_Y as usize;
    let mut matrix = 0usize;
    let mut row = 0usize;
    let mut pair = first;
    let mut choice = 0usize;
    if comptime!(work.mode == Mode::GateUp) {
        matrix = ids[job] as usize;
        row = job / slots as usize * work.halves();
    } else if comptime!(work.mode == Mode::Down) {
        choice = job * slots as usize + first / pairs;
        matrix = ids[choice] as usize;
        row = choice * work.halves();
        pair = first % pairs;
    }
    let place = Place {
        matrix,
        rows: rows as usize,
        tiles: tiles as usize,
        pairs,
        pair,
        row,
        columns: columns as usize,
    };
    // What the sums are multiplied with at the end is on its way before they are formed.
    let mut gain = Shared::<[f32]>::new_slice(comptime!(work.gains()));
    let mut weight = Shared::<[f32]>::new_slice(work.planes);
    fetch_gains(&mut gain, gains, &place, work);
    if comptime!(work.mode == Mode::Down) && UNIT_POS_X == 31 {
        let plane = UNIT_POS_Y as usize;
        copy_async(
            &weights[choice..choice + 1usize],
            &mut weight[plane..plane + 1usize],
            1u32,
        );
    }
    let mut sums = Array::<Vector<f32, N4>>::new(comptime!(work.tiles * work.groups));
    #[unroll]
    for i in 0..comptime!(work.tiles * work.groups) {
        sums[i] = Vector::<f32, N4>::new(0.0f32);
    }
    let mut words =
        Array::<Vector<u32, N4>>::new(comptime!(work.each * work.tiles * work.scaled.chunks()));
    let mut scale = Array::<u32>::new(comptime!(work.each * work.tiles));
    load(&mut words, &mut scale, codes, scales, &place, work);
    #[unroll]
    for i in 0..work.each {
        if comptime!(!work.ragged) || pair + i < pairs {
            multiply(&mut sums, &words, &scale, x, &place, i, work);
        }
    }
    let mut parts = Shared::<[f32]>::new_slice(comptime!(work.planes * work.parts()));
    share(&mut parts, &sums, work);
    gpu_asm!("cp.async.wait_all;");
    sync_cube();
    if comptime!(work.mode == Mode::GateUp) {
        write_gated::<Y>(&parts, &gain, y, &place, stride as usize, work);
    } else {
        write::<Y>(&parts, &gain, &weight, y, &place, work);
    }
}

/// Starts the copies of the gains of the rows of this cube, and of this plane's expert if they are chosen.
#[cube]
fn fetch_gains(gain: &mut Shared<[f32]>, gains: &[f32], place: &Place, #[comptime] work: Work) {
    let lane = UNIT_POS_X as usize;
    let plane = UNIT_POS_Y as usize;
    let own = comptime!(work.mode == Mode::Down);
    if (own || plane == 0) && lane < ROWS {
        #[unroll]
        for i in 0..work.tiles {
            let mut row = tile_of(i, place, work) * ROWS + lane;
            if comptime!(work.mode == Mode::GateUp) {
                let half = comptime!(ROWS / 2);
                row = tile_of(i, place, work) * half
                    + lane % half
                    + lane / half * (place.rows / 2usize);
            }
            let from =
                place.matrix * place.rows + select(row < place.rows, row, place.rows - 1usize);
            let mut to = i * ROWS + lane;
            if own {
                to += plane * comptime!(work.tiles * ROWS);
            }
            copy_async(
                &gains[from..from + 1usize],
                &mut gain[to..to + 1usize],
                1u32,
            );
        }
    }
}

/// Tile number `i` of this cube, the last one where there are no more.
#[cube]
fn tile_of(#[comptime] i: usize, place: &Place, #[comptime] work: Work) -> usize {
    let wanted = CUBE_POS_X as usize * work.tiles + i;
    let last = place.tiles - 1usize;
    select(wanted < last, wanted, last)
}

/// Loads all codes and scales of the plane, what is multiplied first last: no load then waits for a product.
#[cube]
fn load(
    words: &mut Array<Vector<u32, N4>>,
    scale: &mut Array<u32>,
    codes: &[Vector<u32, N4>],
    scales: &[u32],
    place: &Place,
    #[comptime] work: Work,
) {
    let lane = UNIT_POS_X as usize;
    let chunks = comptime!(work.scaled.chunks());
    #[unroll]
    for n in 0..work.each {
        let step = comptime!(work.each - 1 - n);
        let mut pair = place.pair + step;
        if comptime!(work.ragged) {
            pair = select(pair < place.pairs, pair, place.pairs - 1usize);
        }
        #[unroll]
        for n in 0..work.tiles {
            let i = comptime!(work.tiles - 1 - n);
            let at = (place.matrix * place.tiles + tile_of(i, place, work)) * place.pairs + pair;
            // A slice, so that what is constant of an index becomes a part of the instruction.
            let own = &codes[at * comptime!(chunks * 32) + lane..];
            #[unroll]
            for n in 0..chunks {
                let c = comptime!(chunks - 1 - n);
                words[comptime!((step * work.tiles + i) * chunks + c)] = own[comptime!(c * 32)];
            }
            scale[comptime!(step * work.tiles + i)] = scales[at * 32usize + lane];
        }
    }
}

/// Adds the products of the plane's pair of spans number `step`.
#[cube]
fn multiply(
    sums: &mut Array<Vector<f32, N4>>,
    words: &Array<Vector<u32, N4>>,
    scale: &Array<u32>,
    x: &[Vector<u32, N4>],
    place: &Place,
    #[comptime] step: usize,
    #[comptime] work: Work,
) {
    let chunks = comptime!(work.scaled.chunks());
    let pair = place.pair + step;
    let mut values = Array::<Vector<u32, N4>>::new(comptime!(work.groups * chunks * 2));
    load_values(&mut values, x, place, pair, work);
    let mut a = Array::<u32>::new(4usize);
    #[unroll]
    for i in 0..work.tiles {
        #[unroll]
        for c in 0..chunks {
            let span = comptime!(c / (chunks / 2));
            let scale = scale[comptime!(step * work.tiles + i)];
            let lo = scale_bf16(scale, comptime!(span * 2), work.scaled.e8m0);
            let hi = scale_bf16(scale, comptime!(span * 2 + 1), work.scaled.e8m0);
            #[unroll]
            for b in 0..4usize {
                let word = words[comptime!((step * work.tiles + i) * chunks + c)].extract(b);
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
    place: &Place,
    pair: usize,
    #[comptime] work: Work,
) {
    let lane = UNIT_POS_X as usize;
    let block = work.scaled.block;
    let chunks = comptime!(work.scaled.chunks());
    #[unroll]
    for group in 0..work.groups {
        let wanted = group * COLUMNS + lane / 4usize;
        let last = place.columns - 1usize;
        let column = select(wanted < last, wanted, last);
        let from = ((place.row + column) * place.pairs + pair) * comptime!(BLOCKS * block / 8)
            + lane % 4usize * comptime!(block / 8);
        let own = &x[from..];
        #[unroll]
        for c in 0..chunks {
            let start = comptime!(c / (chunks / 2) * 4 * block + c % (chunks / 2) * 16);
            #[unroll]
            for half in 0..2usize {
                let to = comptime!((group * chunks + c) * 2 + half);
                values[to] = own[comptime!(start / 8 + half)];
            }
        }
    }
}

/// Puts the sums of this plane where all see them: `[plane, tile, group, column, row]`.
#[cube]
fn share(parts: &mut Shared<[f32]>, sums: &Array<Vector<f32, N4>>, #[comptime] work: Work) {
    let lane = UNIT_POS_X as usize;
    let plane = UNIT_POS_Y as usize;
    let own = plane * work.parts() + lane % 4usize * comptime!(2 * ROWS) + lane / 4usize;
    let own = &mut parts[own..];
    #[unroll]
    for i in 0..comptime!(work.tiles * work.groups) {
        let at = comptime!(i * COLUMNS * ROWS);
        let sum = sums[i];
        own[at] = sum.extract(0usize);
        own[comptime!(at + ROWS)] = sum.extract(1usize);
        own[comptime!(at + 8)] = sum.extract(2usize);
        own[comptime!(at + ROWS + 8)] = sum.extract(3usize);
    }
}

/// What one plane found for a row and a column, or if two columns are one row of activations, for both.
#[cube]
fn part(parts: &[f32], #[comptime] plane: usize, #[comptime] work: Work) -> f32 {
    let mut sum = parts[comptime!(plane * work.parts())];
    if comptime!(work.split) {
        sum += parts[comptime!(plane * work.parts() + ROWS)];
    }
    sum
}

#[cube]
fn write<Y: Float>(
    parts: &Shared<[f32]>,
    gain: &Shared<[f32]>,
    weight: &Shared<[f32]>,
    y: &mut [Y],
    place: &Place,
    #[comptime] work: Work,
) {
    let halves = work.halves();
    let mut output = UNIT_POS_Y as usize * 32usize + UNIT_POS_X as usize;
    while output < comptime!(work.parts() / halves) {
        let slot = output % ROWS;
        let column = output / ROWS % comptime!(COLUMNS * work.groups / halves) * halves;
        let i = output / comptime!(ROWS * COLUMNS * work.groups / halves);
        let row = (CUBE_POS_X as usize * work.tiles + i) * ROWS + slot;
        if row < place.rows && column < place.columns {
            let at = (i * comptime!(COLUMNS * work.groups) + column) * ROWS + slot;
            let own = &parts[at..];
            let own_gain = &gain[i * ROWS + slot..];
            let mut sum = 0.0f32;
            #[unroll]
            for plane in 0..work.planes {
                let mut part = part(own, plane, work);
                if comptime!(work.mode == Mode::Down) {
                    // Planes have different experts, whose gains differ.
                    part *= own_gain[comptime!(plane * work.tiles * ROWS)] * weight[plane];
                }
                sum += part;
            }
            if comptime!(work.mode == Mode::Dense) {
                sum *= own_gain[0];
            }
            y[(CUBE_POS_Y as usize + column / halves) * place.rows + row] =
                Y::cast_from(sum * RESTORE);
        }
        output += comptime!(work.planes * 32);
    }
}

#[cube]
fn write_gated<Y: Float>(
    parts: &Shared<[f32]>,
    gain: &Shared<[f32]>,
    h: &mut [Y],
    place: &Place,
    stride: usize,
    #[comptime] work: Work,
) {
    let mut output = UNIT_POS_Y as usize * 32usize + UNIT_POS_X as usize;
    while output < comptime!(work.tiles * ROWS / 2) {
        let i = output / comptime!(ROWS / 2);
        let slot = output % comptime!(ROWS / 2);
        let row = (CUBE_POS_X as usize * work.tiles + i) * comptime!(ROWS / 2) + slot;
        if row < place.rows / 2usize {
            let at = i * comptime!(COLUMNS * work.groups * ROWS) + slot;
            let gates = &parts[at..];
            let ups = &parts[at + comptime!(ROWS / 2)..];
            let mut gate = 0.0f32;
            let mut up = 0.0f32;
            #[unroll]
            for plane in 0..work.planes {
                gate += part(gates, plane, work);
                up += part(ups, plane, work);
            }
            gate *= gain[i * ROWS + slot] * RESTORE;
            up *= gain[i * ROWS + slot + comptime!(ROWS / 2)] * RESTORE;
            let value = gate / (1.0f32 + (-gate).exp()) * up;
            let rounded = Y::cast_from(value);
            let to = CUBE_POS_Y as usize * work.halves() * stride + row;
            h[to] = rounded;
            if comptime!(work.split) {
                h[to + stride] = Y::cast_from(value - f32::cast_from(rounded));
            }
        }
        output += comptime!(work.planes * 32);
    }
}
