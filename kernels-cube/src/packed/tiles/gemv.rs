//! Products with one row of activations: the matrix is read once, at the speed of memory.
//!
//! The product of a tile leaves seven of the eight columns of the second operand free. Column `2 t` gets the activations
//! of block `t` of a span, zero elsewhere, so that a span accumulates in one set of registers and lane `(g, t)` ends with
//! the sums that its own scale bytes multiply. Column `2 t + 1` gets what rounding the activations took away.
//!
//! A cube owns the rows of a few tiles and sums all columns, its planes share them; sums are formed in a fixed order.

use cubecl::prelude::*;

use super::decode::{mma, scale_f32, values0, values1, values2, values3};
use super::{BLOCKS, ROWS, Tiling};
use crate::Buffer;

type N4 = Const<4>;

/// Lanes of a plane.
const LANES: u32 = 32;
/// Planes of a cube at most.
const PLANES: usize = 32;
/// 2^126 of the decoded values over 2^64 of the activations.
const RESTORE: f32 = 4.611_686e18;
/// Cubes that keep every multiprocessor busy.
const BUSY: usize = 1024;

/// Tiled matrices on the device.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// [`Tiling::code_words`] words.
    pub codes: Buffer,
    /// [`Tiling::scale_words`] words.
    pub scales: Buffer,
    /// A factor a row, f32.
    pub gains: Buffer,
    /// The sizes.
    pub tiling: Tiling,
    /// Rows of one matrix that are not padding.
    pub rows: usize,
}

/// Rows of bf16, [`Tiling::columns`] each, times 2^64: products with values scaled by 2^-126 stay normal in f32.
#[derive(Clone, Debug)]
pub struct Activations {
    /// `[rows, 1 or 2, columns]`.
    pub buffer: Buffer,
    /// Whether a row is two: the values rounded, and what the rounding took away, so that the sum has 16 significant
    /// bits.
    pub split: bool,
}

/// What a launch computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mode {
    /// One matrix, one row.
    Dense,
    /// The chosen experts of each row: `silu(gate) * up`.
    GateUp,
    /// The chosen experts of each row, their weighted sum.
    Down,
}

/// How the columns are shared out to the planes of a cube.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Share {
    /// Pairs of spans of all matrices that a cube sums.
    pub(super) pairs: usize,
    /// Pairs of a plane.
    pub(super) each: usize,
    /// Planes.
    pub(super) planes: usize,
}

impl Share {
    /// Many planes with one or two pairs each hide latency better than few with many.
    pub(super) fn of(pairs: usize, wanted: usize) -> Self {
        let each = pairs.div_ceil(PLANES).max(wanted.min(pairs));
        Self { pairs, each, planes: pairs.div_ceil(each) }
    }

    /// Whether the last plane has fewer pairs.
    pub(super) const fn ragged(&self) -> bool {
        !self.pairs.is_multiple_of(self.each)
    }
}

/// What does not change in a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Work {
    mode: Mode,
    tiling: Tiling,
    share: Share,
    /// Tiles of a cube.
    tiles: usize,
    /// Whether odd columns are used.
    split: bool,
}

impl Work {
    /// Rows of activations in memory that are one.
    const fn halves(&self) -> usize {
        if self.split { 2 } else { 1 }
    }
}

/// `y = matrix * x` for one row.
///
/// - x: one row
/// - y: one number a row of the matrix
pub fn single(client: &Client, matrix: &Matrix, x: &Activations, y: &Buffer) {
    let share = Share::of(matrix.tiling.pairs, tune("EACH", 2));
    let launch = Launch::new(Mode::Dense, matrix, share, x.split, matrix.rows, 1);
    launch.go(client, matrix, [&x.buffer, y, &matrix.codes, &matrix.gains], 1);
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
    let share = Share::of(matrix.tiling.pairs, tune("EACHUP", 2));
    let launch = Launch::new(Mode::GateUp, matrix, share, x.split, stride, slots);
    launch.go(client, matrix, [&x.buffer, h, ids, &matrix.gains], ids.len());
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
    let share = Share::of(slots * matrix.tiling.pairs, tune("EACHDOWN", 2));
    let launch = Launch::new(Mode::Down, matrix, share, h.split, matrix.rows, slots);
    launch.go(client, matrix, [&h.buffer, y, ids, weights], ids.len() / slots);
}

pub(super) fn tune(name: &str, or: usize) -> usize {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(or)
}

/// A launch of [`single_kernel`].
struct Launch {
    work: Work,
    /// Numbers of `y` between rows.
    stride: usize,
    slots: usize,
}

impl Launch {
    fn new(mode: Mode, matrix: &Matrix, share: Share, split: bool, stride: usize, slots: usize) -> Self {
        let tiling = matrix.tiling;
        let tiles = (tiling.tiles / BUSY).clamp(1, tune("MOST", 4));
        Self { work: Work { mode, tiling, share, tiles, split }, stride, slots }
    }

    fn go(&self, client: &Client, matrix: &Matrix, [x, y, ids, weights]: [&Buffer; 4], jobs: usize) {
        let work = self.work;
        #[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
        // SAFETY: the functions above state the lengths; tiles beyond the last are read again and not written.
        unsafe {
            single_kernel::launch_unchecked(
                client,
                CubeCount::Static(work.tiling.tiles.div_ceil(work.tiles) as u32, jobs as u32, 1),
                CubeDim::new_2d(LANES, work.share.planes as u32),
                matrix.codes.vectors(4),
                matrix.scales.arg(),
                matrix.gains.arg(),
                x.vectors(8),
                ids.arg(),
                weights.arg(),
                y.arg(),
                0,
                matrix.rows as u32,
                self.stride as u32,
                self.slots as u32,
                work,
                y.elem,
            );
        }
    }
}

#[cube(launch_unchecked)]
fn single_kernel<Y: Float>(
    codes: &[Vector<u32, N4>],
    scales: &[u32],
    gains: &[f32],
    x: &[Vector<u32, N4>],
    ids: &[u32],
    weights: &[f32],
    y: &mut [Y],
    zero: u32, // 0, unknown to the compiler
    rows: u32,
    stride: u32,
    slots: u32,
    #[comptime] work: Work,
    #[define(Y)] _elem: ElemType,
) {
    let lane = UNIT_POS_X as usize;
    let plane = UNIT_POS_Y as usize;
    let (rows, slots) = (rows as usize, slots as usize);
    let share = work.share;
    let chunks = comptime!(work.tiling.chunks());
    let pairs = comptime!(work.tiling.pairs);
    let mut sums = Array::<f32>::new(comptime!(work.tiles * 2));
    #[unroll]
    for i in 0..comptime!(work.tiles * 2) {
        sums[i] = 0.0f32;
    }
    #[unroll]
    for i in 0..share.each {
        let mut pair = plane * share.each + i;
        let mut factor = 1.0f32;
        if comptime!(share.ragged()) {
            // The last plane may have fewer pairs: it repeats the last one and drops the sums.
            factor = select(pair < share.pairs, 1.0f32, 0.0f32);
            pair = select(pair < share.pairs, pair, comptime!(share.pairs - 1));
        }
        let mut matrix = 0usize;
        let mut row = 0usize;
        if comptime!(work.mode == Mode::GateUp) {
            matrix = ids[CUBE_POS_Y as usize] as usize;
            row = CUBE_POS_Y as usize / slots;
        } else if comptime!(work.mode == Mode::Down) {
            row = CUBE_POS_Y as usize * slots + pair / pairs;
            matrix = ids[row] as usize;
            factor *= weights[row];
            pair = pair % pairs;
        }
        let mut words = Array::<Vector<u32, N4>>::new(comptime!(work.tiles * chunks));
        let mut scale = Array::<u32>::new(work.tiles);
        #[unroll]
        for tile in 0..work.tiles {
            let at = (matrix * work.tiling.tiles + tile_of(tile, work)) * pairs + pair;
            #[unroll]
            for c in 0..chunks {
                words[comptime!(tile * chunks + c)] = codes[(at * chunks + c) * 32usize + lane];
            }
            scale[tile] = scales[at * 32usize + lane];
        }
        let mut values = Array::<u32>::new(comptime!(chunks * 8));
        load_values(&mut values, x, row, pair, work);
        let mut gain = Array::<f32>::new(comptime!(work.tiles * 2));
        load_gains(&mut gain, gains, matrix, rows, work);
        // Without it gains are loaded where they are used, after everything else has arrived.
        let mut fence = 0u32;
        #[unroll]
        for g in 0..comptime!(work.tiles * 2) {
            fence = fence ^ u32::reinterpret(gain[g]);
        }
        if comptime!(work.mode == Mode::Down) {
            fence = fence ^ u32::reinterpret(factor);
        }
        keep_own(&mut values, fence & zero, work);
        #[unroll]
        for tile in 0..work.tiles {
            let mut lo = 0.0f32;
            let mut hi = 0.0f32;
            #[unroll]
            for span in 0..2usize {
                let mut d = Vector::<f32, N4>::new(0.0f32);
                #[unroll]
                for step in 0..comptime!(2 * chunks) {
                    let chunk = comptime!(span * chunks / 2 + step / 4);
                    let word = words[comptime!(tile * chunks + chunk)].extract(comptime!(step % 4));
                    let at = comptime!(chunk * 8 + step % 4 * 2);
                    d = mma(
                        values0(word),
                        values1(word),
                        values2(word),
                        values3(word),
                        values[at],
                        values[comptime!(at + 1)],
                        d,
                    );
                }
                let mut d_lo = d.extract(0usize);
                let mut d_hi = d.extract(2usize);
                if comptime!(work.split) {
                    d_lo += d.extract(1usize);
                    d_hi += d.extract(3usize);
                }
                lo += d_lo * scale_f32(scale[tile], comptime!(span * 2), work.tiling.e8m0);
                hi += d_hi * scale_f32(scale[tile], comptime!(span * 2 + 1), work.tiling.e8m0);
            }
            sums[comptime!(tile * 2)] += lo * (gain[comptime!(tile * 2)] * factor);
            sums[comptime!(tile * 2 + 1)] += hi * (gain[comptime!(tile * 2 + 1)] * factor);
        }
    }
    finish::<Y>(&sums, y, rows, stride as usize, work);
}

/// Tile number `tile` of this cube, the last one where there are no more.
#[cube]
fn tile_of(#[comptime] tile: usize, #[comptime] work: Work) -> usize {
    let wanted = CUBE_POS_X as usize * work.tiles + tile;
    if comptime!(work.tiles == 1) {
        wanted
    } else {
        let last = comptime!(work.tiling.tiles - 1);
        select(wanted < last, wanted, last)
    }
}

/// The activations of a pair of spans: of each span, the lane's own block.
#[cube]
fn load_values(
    values: &mut Array<u32>,
    x: &[Vector<u32, N4>],
    row: usize,
    pair: usize,
    #[comptime] work: Work,
) {
    let lane = UNIT_POS_X as usize;
    let block = work.tiling.block;
    let chunks = comptime!(work.tiling.chunks());
    let columns = comptime!(work.tiling.columns());
    let mut from = row * work.halves();
    if comptime!(work.split) {
        from += lane / 4usize % 2usize;
    }
    let from = from * columns + pair * comptime!(BLOCKS * block) + lane % 4usize * block;
    #[unroll]
    for c in 0..chunks {
        let column = comptime!(c / (chunks / 2) * 4 * block + c % (chunks / 2) * 16);
        #[unroll]
        for half in 0..2usize {
            let v = x[(from + comptime!(column + half * 8)) / 8usize];
            #[unroll]
            for word in 0..4usize {
                values[comptime!(c * 8 + half * 4 + word)] = v.extract(word);
            }
        }
    }
}

/// Leaves activations to the lanes of columns `2 t` and `2 t + 1` that hold block `t`, and zero to all others.
#[cube]
fn keep_own(values: &mut Array<u32>, fence: u32, #[comptime] work: Work) {
    let lane = UNIT_POS_X as usize;
    let mask = select(lane / 8usize == lane % 4usize, 0xFFFF_FFFFu32, 0u32);
    #[unroll]
    for i in 0..comptime!(work.tiling.chunks() * 8) {
        values[i] = (values[i] ^ fence) & mask;
    }
}

/// The gains of the rows that this lane sums.
#[cube]
fn load_gains(gain: &mut Array<f32>, gains: &[f32], matrix: usize, rows: usize, #[comptime] work: Work) {
    let g = UNIT_POS_X as usize / 4usize;
    #[unroll]
    for tile in 0..work.tiles {
        let at = tile_of(tile, work);
        let mut lo = at * ROWS + g;
        let mut hi = lo + 8usize;
        if comptime!(work.mode == Mode::GateUp) {
            lo = at * comptime!(ROWS / 2) + g;
            hi = lo + rows / 2usize;
        }
        let last = rows - 1usize;
        gain[comptime!(tile * 2)] = gains[matrix * rows + select(lo < last, lo, last)];
        gain[comptime!(tile * 2 + 1)] = gains[matrix * rows + select(hi < last, hi, last)];
    }
}

/// Adds up the sums of all lanes and planes, and writes them.
#[cube]
fn finish<Y: Float>(sums: &Array<f32>, y: &mut [Y], rows: usize, stride: usize, #[comptime] work: Work) {
    let lane = UNIT_POS_X as usize;
    let plane = UNIT_POS_Y as usize;
    let size = comptime!(work.tiles * ROWS);
    let mut parts = Shared::<[f32]>::new_slice(comptime!(work.share.planes * size));
    #[unroll]
    for i in 0..comptime!(work.tiles * 2) {
        let mut sum = sums[i];
        sum += plane_shuffle_xor(sum, 1u32);
        sum += plane_shuffle_xor(sum, 2u32);
        if lane % 4usize == 0usize {
            parts[plane * size + comptime!(i * 8) + lane / 4usize] = sum;
        }
    }
    sync_cube();
    let mut slot = plane * 32usize + lane;
    while slot < size {
        let mut sum = 0.0f32;
        #[unroll]
        for p in 0..work.share.planes {
            sum += parts[comptime!(p * size) + slot];
        }
        sum *= RESTORE;
        let tile = CUBE_POS_X as usize * work.tiles + slot / ROWS;
        let job = CUBE_POS_Y as usize;
        if comptime!(work.mode == Mode::GateUp) {
            let mut up = 0.0f32;
            #[unroll]
            for p in 0..work.share.planes {
                up += parts[comptime!(p * size) + (slot ^ 8usize)];
            }
            let row = tile * comptime!(ROWS / 2) + slot % 8usize;
            if slot % ROWS < 8usize && row < rows / 2usize {
                let value = sum / (1.0f32 + (-sum).exp()) * (up * RESTORE);
                let rounded = Y::cast_from(value * ENLARGE);
                y[job * work.halves() * stride + row] = rounded;
                if comptime!(work.split) {
                    let rest = value * ENLARGE - f32::cast_from(rounded);
                    y[(job * 2usize + 1usize) * stride + row] = Y::cast_from(rest);
                }
            }
        } else {
            let row = tile * ROWS + slot % ROWS;
            if row < rows {
                y[job * stride + row] = Y::cast_from(sum);
            }
        }
        slot += comptime!(work.share.planes * 32);
    }
}

/// 2^64, by which [`Activations`] are larger than what they stand for.
pub(super) const ENLARGE: f32 = 1.844_674_4e19;
