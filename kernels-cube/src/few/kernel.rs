//! The kernel: planes load and multiply, a cube sums and writes.

use cubecl::prelude::*;

use super::single::{Factors, load_residual, tile, write_gated, write_residual};
use super::weights::{load, load_late, load_now, load_values, multiply, row_of, stay, tile_of};
use super::work::{Mode, ROWS, Work};
use super::write::share_gains;
use super::{Row, Weights, late, single, turn, write};
use crate::Buffer;
use crate::packed::tiles::decode::mask_of;
use crate::plane::plane_total;

type N4 = Const<4>;

/// A launch of [`few_kernel`].
pub(super) struct Launch<'a> {
    pub(super) weights: &'a Weights,
    pub(super) work: Work,
    pub(super) x: &'a Buffer,
    pub(super) y: &'a Buffer,
    /// The numbers of the experts, and their weights.
    pub(super) chosen: Option<[&'a Buffer; 2]>,
    /// The residual row, with the weight of the norm that follows if it is written.
    pub(super) row: Option<(&'a Row, &'a Buffer)>,
    /// What several rows are added to, f32, as `y`.
    pub(super) onto: Option<&'a Buffer>,
    /// Rows, or choices of rows, of which each has cubes of its own.
    pub(super) jobs: usize,
    /// Columns of a job, or of all where they are in blocks.
    pub(super) columns: usize,
    /// Numbers of `x` between its rows.
    pub(super) x_stride: usize,
    /// Numbers of `y` between rows.
    pub(super) stride: usize,
    pub(super) slots: usize,
}

impl Launch<'_> {
    pub(super) fn go(&self, client: &Client) {
        let Self { weights, .. } = *self;
        let cubes = weights.tiles(self.work.mode).div_ceil(self.work.tiles);
        let work = Work {
            listed: self.chosen.is_some(),
            ..self.work.crowded(client, cubes * self.jobs)
        };
        let [codes, scales, gains] = weights.buffers();
        let [ids, shares] = self.chosen.unwrap_or([codes, gains]);
        let h = self.onto.unwrap_or(self.y);
        let (h, squares, norm) = self.row.map_or((h, gains, gains), |(row, norm)| {
            (&row.h, &row.squares, norm)
        });
        let (width, eps) = self.row.map_or((1, 0.0), |(row, _)| (row.width, row.eps));
        #[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
        // SAFETY: the functions of this module state the lengths; rows and tiles beyond the last are read again and not
        // written; what a kernel does not need is not touched.
        unsafe {
            few_kernel::launch_unchecked(
                client,
                CubeCount::Static(cubes as u32, self.jobs as u32, 1),
                CubeDim::new_3d(
                    32,
                    work.of_expert as u32,
                    (work.planes / work.of_expert) as u32,
                ),
                codes.vectors(if work.form.is_tiles() { 4 } else { 8 }),
                scales.arg(),
                gains.arg(),
                self.x.vectors(8),
                ids.arg(),
                shares.arg(),
                norm.arg(),
                h.arg(),
                squares.arg(),
                self.y.arg(),
                weights.rows() as u32,
                weights.tiles(work.mode) as u32,
                weights.pairs() as u32,
                weights.width() as u32,
                self.columns as u32,
                (self.x_stride / 8) as u32,
                self.stride as u32,
                self.slots as u32,
                width.div_ceil(ROWS) as u32,
                1.0 / width as f32,
                eps,
                work,
                self.y.elem,
            );
        }
    }
}

/// Where a plane's part of a launch lies.
#[derive(CubeType)]
pub(super) struct Place {
    /// Which of several matrices.
    pub(super) matrix: usize,
    /// Rows of a matrix.
    pub(super) rows: usize,
    /// Tiles below one another, and pairs side by side, in a matrix.
    pub(super) tiles: usize,
    pub(super) pairs: usize,
    /// Vectors of a row of a matrix in rows.
    pub(super) width: usize,
    /// The first pair.
    pub(super) pair: usize,
    /// The row of `x` that is the first column.
    pub(super) row: usize,
    pub(super) columns: usize,
    /// Vectors of `x` between its rows.
    pub(super) x_stride: usize,
}

#[cube(launch_unchecked)]
#[allow(
    clippy::too_many_lines,
    reason = "where a plane's part lies, then load, multiply and write"
)]
fn few_kernel<Y: Float>(
    codes: &[Vector<u32, N4>],
    scales: &[u32],
    gains: &[f32],
    x: &[Vector<u32, N4>],
    ids: &[u32],
    shares: &[f32],
    norm: &[f32],
    h: &mut [f32],
    squares: &mut [f32],
    y: &mut [Y],
    rows: u32,
    tiles: u32,
    pairs: u32,
    width: u32,
    columns: u32,
    x_stride: u32,
    stride: u32,
    slots: u32,
    parts_of_norm: u32,
    inverse_width: f32,
    eps: f32,
    #[comptime] work: Work,
    #[define(Y)] _elem: ElemType,
) {
    let pairs = pairs as usize;
    let plane = plane_of(work);
    let job = CUBE_POS_Y as usize;
    let mut matrix = 0usize;
    let mut row = 0usize;
    let pair = UNIT_POS_Y as usize * work.each;
    let mut choice = 0usize;
    let mut columns = columns as usize;
    if comptime!(work.blocks) {
        row = job * work.columns();
        columns = select(
            row + work.columns() < columns,
            work.columns(),
            columns - row,
        );
    }
    if comptime!(work.mode == Mode::Down) {
        choice = job * slots as usize + UNIT_POS_Z as usize;
        row = choice * work.halves();
    }
    if comptime!(work.listed && work.mode == Mode::GateUp) {
        matrix = ids[job] as usize;
        row = job / slots as usize * work.halves();
    } else if comptime!(work.listed) {
        matrix = ids[choice] as usize;
    }
    let place = Place {
        matrix,
        rows: rows as usize,
        tiles: tiles as usize,
        pairs,
        width: width as usize,
        pair,
        row,
        columns,
        x_stride: x_stride as usize,
    };
    let mut early = Array::<Vector<u32, N4>>::new(comptime!(if work.early {
        work.each * work.values()
    } else {
        1
    }));
    if comptime!(work.early) {
        #[unroll]
        for i in 0..work.each {
            load_values(&mut early, x, &place, i, comptime!(i * work.values()), work);
        }
    }
    if comptime!(work.late > 0) {
        // Nobody waits for the number of the expert before activations are on their way.
        stay(matrix as u32);
    }
    if comptime!(work.turns > 1) {
        turn::wait(work);
    }
    let mut words =
        Array::<Vector<u32, N4>>::new(comptime!(work.each * work.tiles * work.form.vectors()));
    let mut scale = Array::<u32>::new(comptime!(
        work.each * work.tiles * work.form.scales().max(1)
    ));
    load(&mut words, &mut scale, codes, scales, &place, work);
    // What the sums are multiplied with at the end is on its way before they are formed.
    let mut gain = Array::<f32>::new(comptime!(2 * work.tiles));
    load_gains(&mut gain, gains, &place, work);
    let mut weight = 0.0f32;
    if comptime!(work.mode == Mode::Down) {
        weight = load_now(shares, choice);
    }
    let mut residual = Array::<f32>::new(2usize);
    if comptime!(work.residual) {
        load_residual(&mut residual, h, norm, &place, work);
    }
    if comptime!(work.stays) {
        stay(rows);
    }
    let mut mask = 0u32;
    if comptime!(work.late > 0) {
        load_late(&mut words, codes, &place, work);
        mask = late::mask(codes, rows, work);
    } else if comptime!(work.form.is_tiles()) {
        mask = comptime!(mask_of(work.form.scaled())).runtime();
    }
    let mut factor = 1.0f32;
    if comptime!(work.is_normed()) && plane == 0 {
        let square = square_of(&squares[0..], parts_of_norm as usize, work);
        factor = (square * inverse_width + eps).inverse_sqrt();
    }
    let mut sums = Array::<Vector<f32, N4>>::new(comptime!(work.tiles * work.groups));
    #[unroll]
    for i in 0..comptime!(work.tiles * work.groups) {
        sums[i] = Vector::<f32, N4>::new(0.0f32);
    }
    #[unroll]
    for i in 0..work.each {
        if comptime!(!work.ragged) || pair + i < pairs {
            multiply(&mut sums, &words, &scale, &early, x, &place, mask, i, work);
        }
    }
    let mut parts = Shared::<[f32]>::new_slice(comptime!(work.all_parts()));
    if comptime!(work.single) {
        if comptime!(work.mode == Mode::Down) {
            weigh(&mut gain, weight, work);
        }
        single::share(&mut parts, &sums, &gain, work);
        sync_cube();
        if plane == 0 {
            let factors = Factors { gain, norm: factor };
            if comptime!(work.residual) {
                let stride = stride as usize;
                write_residual::<Y>(
                    &parts, &factors, h, y, squares, &residual, &place, stride, work,
                );
            } else if comptime!(work.mode == Mode::GateUp) {
                write_gated::<Y>(&parts, &factors, y, &place, stride as usize, work);
            } else {
                single::write::<Y>(&parts, &factors, y, &place, work);
            }
        }
    } else {
        write::share(&mut parts, &sums, work);
        let mut shared = Shared::<[f32]>::new_slice(comptime!(work.tiles * ROWS));
        if comptime!(work.form.is_tiles()) {
            share_gains(&mut shared, &gain, work);
        }
        sync_cube();
        write::write::<Y>(&parts, &shared, h, y, &place, work);
    }
}

/// The sum of the squares of the row, by the whole plane.
#[cube]
fn square_of(squares: &[f32], count: usize, #[comptime] work: Work) -> f32 {
    let mut sum = 0.0f32;
    #[unroll]
    for i in 0..comptime!(work.squares()) {
        let at = comptime!(i * 32) + UNIT_POS_X as usize;
        let last = count - 1usize;
        let square = squares[select(at < last, at, last)];
        sum += select(at <= last, square, 0.0f32);
    }
    plane_total(sum, 32usize)
}

/// Takes the weight of the plane's expert into its gains.
#[cube]
fn weigh(gain: &mut Array<f32>, weight: f32, #[comptime] work: Work) {
    #[unroll]
    for i in 0..comptime!(2 * work.tiles) {
        gain[i] = if comptime!(work.form.is_tiles()) {
            gain[i] * weight
        } else {
            weight
        };
    }
}

/// The number of this plane.
#[cube]
pub(super) fn plane_of(#[comptime] work: Work) -> usize {
    if comptime!(work.of_expert < work.planes) {
        UNIT_POS_Z as usize * work.of_expert + UNIT_POS_Y as usize
    } else {
        UNIT_POS_Y as usize
    }
}

/// Loads the gains of what this lane multiplies: of the rows that it writes, if it does, or where planes have experts of
/// their own, of those that it sums.
#[cube]
fn load_gains(gain: &mut Array<f32>, gains: &[f32], place: &Place, #[comptime] work: Work) {
    let lane = UNIT_POS_X as usize;
    if comptime!(!work.form.is_tiles()) {
        // Rows have none.
    } else if comptime!(work.mode == Mode::Down) {
        #[unroll]
        for i in 0..comptime!(2 * work.tiles) {
            let tile = tile_of(comptime!(i / 2).runtime(), place, work);
            gain[i] = load_gain(
                gains,
                tile,
                lane / 4usize,
                comptime!(i % 2).runtime(),
                place,
                work,
            );
        }
    } else if plane_of(work) == 0 {
        let half = comptime!(ROWS / 2);
        let slot = lane % ROWS;
        #[unroll]
        for i in 0..comptime!(if work.single {
            work.rounds()
        } else {
            work.tiles
        }) {
            let mut number = i.runtime();
            if comptime!(work.single) {
                number = tile(i, work);
            }
            let tile = tile_of(number, place, work);
            gain[i] = load_gain(gains, tile, slot % half, slot / half, place, work);
        }
    }
}

#[cube]
fn load_gain(
    gains: &[f32],
    tile: usize,
    slot: usize,
    half: usize,
    place: &Place,
    #[comptime] work: Work,
) -> f32 {
    let row = row_of(tile, slot, half, place, work);
    let row = select(row < place.rows, row, place.rows - 1usize);
    load_now(gains, place.matrix * place.rows + row)
}
