//! Products with a few rows of activations: the matrix is read once, at the speed of memory.
//!
//! * **One row** ([`single`]): the product of a tile leaves seven of the eight columns of the second operand free. Block
//!   `b` of the activation goes to columns `2 b` and `2 b + 1`, zero elsewhere, so that a span accumulates in one set of
//!   registers and lane `(g, t)` ends with the sums that its own scale bytes multiply.
//!
//! A cube owns the rows of one tile and sums all columns, its planes share them; sums are formed in a fixed order.

use cubecl::prelude::*;

use super::decode::{mma, mul_bf16x2, scale_f32, values0, values1, values2, values3};
use super::{BLOCKS, ROWS, Tiling};
use crate::Buffer;

type N2 = Const<2>;
type N4 = Const<4>;

/// Lanes of a plane.
const LANES: u32 = 32;
/// Planes of a cube at most.
const PLANES: usize = 32;
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

/// What a launch of [`single`] computes.
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
    pub(super) fn of(pairs: usize) -> Self {
        let each = pairs.div_ceil(PLANES).max(if pairs >= 8 { 2 } else { 1 });
        Self {
            pairs,
            each,
            planes: pairs.div_ceil(each),
        }
    }

    /// Whether the last plane has fewer pairs.
    pub(super) const fn ragged(&self) -> bool {
        self.pairs % self.each != 0
    }
}

/// `y = matrix * x` for one row.
///
/// - x: bf16 `[1 or 2, columns]`, see [`Activations`]
/// - y: one number a row
pub fn single<Y: Float + CubeElement>(
    client: &Client,
    matrix: &Matrix,
    x: &Activations,
    y: &Buffer,
) {
    let share = Share::of(matrix.tiling.pairs);
    let work = Single {
        mode: Mode::Dense,
        share,
        split: x.split,
        stride: matrix.rows,
        slots: 1,
    };
    let grid = (matrix.tiling.tiles, 1);
    work.launch::<Y>(
        client,
        matrix,
        [&x.buffer, y, &matrix.codes, &matrix.gains],
        grid,
    );
}

/// `silu(gate) * up` of the chosen experts of each row, in the form that [`down`] takes.
///
/// - x: bf16 `[rows, 1 or 2, columns]`
/// - ids: u32 `[rows, slots]`
/// - h: bf16 `[rows * slots, 1 or 2, columns of the down matrix]`, zero behind the intermediate width
pub fn gate_up(
    client: &Client,
    matrix: &Matrix,
    x: &Activations,
    (ids, slots): (&Buffer, usize),
    (h, stride): (&Buffer, usize),
) {
    let share = Share::of(matrix.tiling.pairs);
    let work = Single {
        mode: Mode::GateUp,
        share,
        split: x.split,
        stride,
        slots,
    };
    let grid = (matrix.tiling.tiles, ids.len());
    work.launch::<half::bf16>(client, matrix, [&x.buffer, h, ids, &matrix.gains], grid);
}

/// The weighted sum of the chosen experts of each row.
///
/// - h: what [`gate_up`] wrote
/// - ids, weights: u32 and f32 `[rows, slots]`
/// - y: `[rows, rows of the matrix]`
pub fn down<Y: Float + CubeElement>(
    client: &Client,
    matrix: &Matrix,
    h: &Activations,
    ([ids, weights], slots): ([&Buffer; 2], usize),
    y: &Buffer,
) {
    let share = Share::of(slots * matrix.tiling.pairs);
    let work = Single {
        mode: Mode::Down,
        share,
        split: h.split,
        stride: matrix.rows,
        slots,
    };
    let grid = (matrix.tiling.tiles, ids.len() / slots);
    work.launch::<Y>(client, matrix, [&h.buffer, y, ids, weights], grid);
}

/// Rows of bf16, [`Tiling::columns`] each.
#[derive(Clone, Debug)]
pub struct Activations {
    /// `[rows, 1 or 2, columns]`.
    pub buffer: Buffer,
    /// Whether a row is two: the values rounded, and what the rounding took away, so that the sum has 16 significant
    /// bits.
    pub split: bool,
}

/// A launch of [`single_kernel`].
struct Single {
    mode: Mode,
    share: Share,
    split: bool,
    /// Numbers of `y` between rows.
    stride: usize,
    slots: usize,
}

impl Single {
    #[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
    fn launch<Y: Float + CubeElement>(
        &self,
        client: &Client,
        matrix: &Matrix,
        [x, y, ids, weights]: [&Buffer; 4],
        grid: (usize, usize),
    ) {
        // SAFETY: the functions above state the lengths.
        unsafe {
            single_kernel::launch_unchecked::<Y>(
                client,
                CubeCount::Static(grid.0 as u32, grid.1 as u32, 1),
                CubeDim::new_2d(LANES, self.share.planes as u32),
                matrix.codes.vectors(4),
                matrix.scales.arg(),
                matrix.gains.arg(),
                x.vectors(4),
                ids.arg(),
                weights.arg(),
                y.arg(),
                0,
                matrix.rows as u32,
                self.stride as u32,
                self.slots as u32,
                matrix.tiling,
                self.share,
                self.mode,
                self.split,
            );
        }
    }
}

#[cube(launch_unchecked)]
fn single_kernel<Y: Float>(
    codes: &[Vector<u32, N4>],
    scales: &[u32],
    gains: &[f32],
    x: &[Vector<u32, N2>],
    ids: &[u32],
    weights: &[f32],
    y: &mut [Y],
    zero: u32, // 0, unknown to the compiler
    rows: u32,
    stride: u32,
    slots: u32,
    #[comptime] tiling: Tiling,
    #[comptime] share: Share,
    #[comptime] mode: Mode,
    #[comptime] split: bool,
) {
    let lane = UNIT_POS_X as usize;
    let plane = UNIT_POS_Y as usize;
    let tile = CUBE_POS_X as usize;
    let job = CUBE_POS_Y as usize; // a row, or one chosen expert of a row
    let (rows, slots) = (rows as usize, slots as usize);
    let t = lane % 4usize;
    let column = lane / 8usize; // the block whose activations this lane holds
    let steps = comptime!(tiling.block / 16); // steps of the product in a block
    let chunks = comptime!(tiling.chunks());
    let pairs = comptime!(tiling.pairs);
    // Rows of activations: one, or the second of two in odd columns.
    let halves = comptime!(if split { 2usize } else { 1usize });
    let mut lo = 0.0f32;
    let mut hi = 0.0f32;
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
        let mut x_row = 0usize;
        if comptime!(mode == Mode::GateUp) {
            matrix = ids[job] as usize;
            x_row = job / slots;
        } else if comptime!(mode == Mode::Down) {
            x_row = job * slots + pair / pairs;
            matrix = ids[x_row] as usize;
            factor *= weights[x_row];
            pair = pair % pairs;
        }
        let at = (matrix * tiling.tiles + tile) * pairs + pair;
        let mut words = Array::<Vector<u32, N4>>::new(chunks);
        let mut values = Array::<Vector<u32, N2>>::new(comptime!(2 * steps));
        #[unroll]
        for c in 0..chunks {
            words[c] = codes[(at * chunks + c) * 32usize + lane];
        }
        let scale = scales[at * 32usize + lane];
        let mut x_at = x_row * halves;
        if comptime!(split) {
            x_at += lane / 4usize % 2usize;
        }
        let x_at = (x_at * pairs + pair) * comptime!(BLOCKS * tiling.block / 4) + t;
        #[unroll]
        for s in 0..comptime!(2 * steps) {
            let block = comptime!(s / steps * 4) + column;
            values[s] = x[x_at + (block * steps + comptime!(s % steps)) * 4usize];
        }
        let gain_lo = gains[matrix * rows + min_row(row_lo(tile, lane, mode), rows)] * factor;
        let gain_hi = gains[matrix * rows + min_row(row_hi(tile, lane, rows, mode), rows)] * factor;
        // Without it the gains are loaded where they are used, after everything else has arrived.
        let fence = (u32::reinterpret(gain_lo) ^ u32::reinterpret(gain_hi)) & zero;
        let mut sum_lo = 0.0f32;
        let mut sum_hi = 0.0f32;
        #[unroll]
        for span in 0..2usize {
            let mut d = Vector::<f32, N4>::new(0.0f32);
            #[unroll]
            for step in 0..comptime!(4 * steps) {
                let word =
                    words[comptime!((span * 4 * steps + step) / 4)].extract(comptime!(step % 4));
                let mine = column == comptime!(step / steps);
                let v = values[comptime!(span * steps + step % steps)];
                let b0 = select(mine, enlarge(v.extract(0usize) ^ fence), 0u32);
                let b1 = select(mine, enlarge(v.extract(1usize) ^ fence), 0u32);
                d = mma(
                    values0(word),
                    values1(word),
                    values2(word),
                    values3(word),
                    b0,
                    b1,
                    d,
                );
            }
            let mut d_lo = d.extract(0usize);
            let mut d_hi = d.extract(2usize);
            if comptime!(split) {
                d_lo += d.extract(1usize);
                d_hi += d.extract(3usize);
            }
            sum_lo += d_lo * scale_f32(scale, comptime!(span * 2), tiling.e8m0);
            sum_hi += d_hi * scale_f32(scale, comptime!(span * 2 + 1), tiling.e8m0);
        }
        lo += sum_lo * gain_lo;
        hi += sum_hi * gain_hi;
    }
    lo += plane_shuffle_xor(lo, 1u32);
    hi += plane_shuffle_xor(hi, 1u32);
    lo += plane_shuffle_xor(lo, 2u32);
    hi += plane_shuffle_xor(hi, 2u32);
    let mut parts = Shared::<[f32]>::new_slice(comptime!(share.planes * ROWS));
    if t == 0usize {
        parts[plane * ROWS + lane / 4usize] = lo;
        parts[plane * ROWS + 8usize + lane / 4usize] = hi;
    }
    sync_cube();
    if plane == 0usize && lane < ROWS {
        let mut sum = 0.0f32;
        #[unroll]
        for p in 0..share.planes {
            sum += parts[p * ROWS + lane];
        }
        sum *= RESTORE_SINGLE;
        let stride = stride as usize;
        if comptime!(mode == Mode::GateUp) {
            let value = sum / (1.0f32 + (-sum).exp()) * plane_shuffle_xor(sum, 8u32);
            let row = tile * 8usize + lane;
            if lane < 8usize && row < rows / 2usize {
                let rounded = Y::cast_from(value);
                y[job * halves * stride + row] = rounded;
                if comptime!(split) {
                    y[(job * 2usize + 1usize) * stride + row] =
                        Y::cast_from(value - f32::cast_from(rounded));
                }
            }
        } else {
            let row = tile * ROWS + lane;
            if row < rows {
                y[job * stride + row] = Y::cast_from(sum);
            }
        }
    }
}

/// 2^126 of the decoded values over 2^64 of the activations.
const RESTORE_SINGLE: f32 = 4.611_686e18;

/// Two bf16 times 2^64, so that products with values scaled by 2^-126 stay normal in f32.
#[cube]
fn enlarge(x: u32) -> u32 {
    mul_bf16x2(x, 0x5F80_5F80u32)
}

/// The row of a matrix in the upper half of a tile.
#[cube]
fn row_lo(tile: usize, lane: usize, #[comptime] mode: Mode) -> usize {
    let height = comptime!(if mode == Mode::GateUp { ROWS / 2 } else { ROWS });
    tile * height + lane / 4usize
}

/// The row of a matrix in the lower half of a tile.
#[cube]
fn row_hi(tile: usize, lane: usize, rows: usize, #[comptime] mode: Mode) -> usize {
    if comptime!(mode == Mode::GateUp) {
        rows / 2usize + tile * comptime!(ROWS / 2) + lane / 4usize
    } else {
        tile * ROWS + 8usize + lane / 4usize
    }
}

#[cube]
fn min_row(row: usize, rows: usize) -> usize {
    select(row < rows, row, rows - 1usize)
}
