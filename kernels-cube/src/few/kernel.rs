//! The kernel: planes load and multiply, a cube sums and writes.

use cubecl::prelude::*;

use super::weights::{load, multiply, row_of, tile_of};
use super::work::{Mode, ROWS, Work};
use super::write::{
    Factors, load_now, load_residual, plane_total, share, write, write_gated, write_residual,
};
use super::{Row, Weights};
use crate::Buffer;

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
    /// Rows, or choices of rows, of which each has cubes of its own.
    pub(super) jobs: usize,
    /// Columns of a job, or of all where they are in blocks.
    pub(super) columns: usize,
    /// Numbers of `x` between its rows.
    pub(super) x_stride: usize,
    /// Numbers of `y` between rows.
    pub(super) stride: usize,
    pub(super) slots: usize,
    /// What the next launch reads of the same experts.
    pub(super) next: Option<&'a Weights>,
}

impl Launch<'_> {
    pub(super) fn go(&self, client: &Client) {
        let Self { weights, .. } = *self;
        let work = Work {
            listed: self.chosen.is_some(),
            warms: self.next.is_some(),
            ..self.work
        };
        let [codes, scales, gains] = weights.buffers();
        let [ids, shares] = self.chosen.unwrap_or([codes, gains]);
        let (h, squares, norm) = self.row.map_or((self.y, gains, gains), |(row, norm)| {
            (&row.h, &row.squares, norm)
        });
        let next = self.next.unwrap_or(weights);
        let (width, eps) = self.row.map_or((1, 0.0), |(row, _)| (row.width, row.eps));
        #[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
        // SAFETY: the functions of this module state the lengths; rows and tiles beyond the last are read again and not
        // written; what a kernel does not need is not touched.
        unsafe {
            few_kernel::launch_unchecked(
                client,
                CubeCount::Static(
                    weights.tiles(work.mode).div_ceil(work.tiles) as u32,
                    self.jobs as u32,
                    1,
                ),
                CubeDim::new_2d(32, work.planes as u32),
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
                next.memory().bytes(16),
                weights.rows() as u32,
                weights.tiles(work.mode) as u32,
                weights.pairs() as u32,
                weights.width() as u32,
                self.columns as u32,
                (self.x_stride / 8) as u32,
                self.stride as u32,
                self.slots as u32,
                width.div_ceil(ROWS) as u32,
                next.lines() as u32,
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
    next: &[Vector<u32, N4>],
    rows: u32,
    tiles: u32,
    pairs: u32,
    width: u32,
    columns: u32,
    x_stride: u32,
    stride: u32,
    slots: u32,
    parts_of_norm: u32,
    next_lines: u32,
    inverse_width: f32,
    eps: f32,
    #[comptime] work: Work,
    #[define(Y)] _elem: ElemType,
) {
    let pairs = pairs as usize;
    let plane = UNIT_POS_Y as usize;
    let first = plane * work.each;
    let job = CUBE_POS_Y as usize;
    let mut matrix = 0usize;
    let mut row = 0usize;
    let mut pair = first;
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
        choice = job * slots as usize + first / pairs;
        row = choice * work.halves();
        pair = first % pairs;
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
    // What the sums are multiplied with at the end is on its way before they are formed.
    let mut factors = Factors {
        gain: Shared::<[f32]>::new_slice(comptime!(work.gains())),
        weight: Shared::<[f32]>::new_slice(work.planes),
        norm: Shared::<[f32]>::new_slice(1usize),
    };
    let mut gain = Array::<f32>::new(work.tiles);
    if comptime!(work.form.is_tiles()) {
        load_gains(&mut gain, gains, &place, work);
    }
    let mut share_of = 0.0f32;
    if comptime!(work.mode == Mode::Down) {
        share_of = load_now(shares, choice);
    }
    let mut residual = Array::<f32>::new(2usize);
    if comptime!(work.residual) {
        load_residual(&mut residual, h, norm, &place);
    }
    let mut words =
        Array::<Vector<u32, N4>>::new(comptime!(work.each * work.tiles * work.form.vectors()));
    let mut scale = Array::<u32>::new(comptime!(work.each * work.tiles));
    load(&mut words, &mut scale, codes, scales, &place, work);
    if comptime!(work.warms) {
        warm_matrix(next, matrix, next_lines as usize);
    }
    if comptime!(work.is_normed()) && plane == 0 {
        let mut sum = 0.0f32;
        #[unroll]
        for i in 0..comptime!(work.squares()) {
            let at = comptime!(i * 32) + UNIT_POS_X as usize;
            let last = parts_of_norm as usize - 1usize;
            let square = squares[select(at < last, at, last)];
            sum += select(at <= last, square, 0.0f32);
        }
        let mean = plane_total(sum, 32usize) * inverse_width;
        factors.norm[0] = (mean + eps).inverse_sqrt();
    }
    let mut sums = Array::<Vector<f32, N4>>::new(comptime!(work.tiles * work.groups));
    #[unroll]
    for i in 0..comptime!(work.tiles * work.groups) {
        sums[i] = Vector::<f32, N4>::new(0.0f32);
    }
    #[unroll]
    for i in 0..work.each {
        if comptime!(!work.ragged) || pair + i < pairs {
            multiply(&mut sums, &words, &scale, x, &place, i, work);
        }
    }
    let mut parts = Shared::<[f32]>::new_slice(comptime!(work.planes * work.parts()));
    share(&mut parts, &sums, work);
    if comptime!(work.form.is_tiles()) {
        share_gains(&mut factors.gain, &gain, work);
    }
    if comptime!(work.mode == Mode::Down) && UNIT_POS_X == 31 {
        factors.weight[plane] = share_of;
    }
    sync_cube();
    if comptime!(work.residual) {
        write_residual::<Y>(
            &parts,
            &factors,
            h,
            y,
            squares,
            &residual,
            &place,
            stride as usize,
            work,
        );
    } else if comptime!(work.mode == Mode::GateUp) {
        write_gated::<Y>(&parts, &factors, y, &place, stride as usize, work);
    } else {
        write::<Y>(&parts, &factors, y, &place, work);
    }
}

/// Loads the gains of the rows of this cube, and of this plane's expert if they are chosen.
#[cube]
fn load_gains(gain: &mut Array<f32>, gains: &[f32], place: &Place, #[comptime] work: Work) {
    let slot = UNIT_POS_X as usize % ROWS;
    if comptime!(work.mode == Mode::Down) || UNIT_POS_Y == 0 {
        let half = comptime!(ROWS / 2);
        #[unroll]
        for i in 0..work.tiles {
            let row = row_of(
                tile_of(i, place, work),
                slot % half,
                slot / half,
                place,
                work,
            );
            let row = select(row < place.rows, row, place.rows - 1usize);
            gain[i] = load_now(gains, place.matrix * place.rows + row);
        }
    }
}

/// Puts them where all see them.
#[cube]
fn share_gains(room: &mut Shared<[f32]>, gain: &Array<f32>, #[comptime] work: Work) {
    let lane = UNIT_POS_X as usize;
    let plane = UNIT_POS_Y as usize;
    let own = comptime!(work.mode == Mode::Down);
    if (own || plane == 0) && lane < ROWS {
        #[unroll]
        for i in 0..work.tiles {
            let mut to = i * ROWS + lane;
            if own {
                to += plane * comptime!(work.tiles * ROWS);
            }
            room[to] = gain[i];
        }
    }
}

/// Asks for one of several matrices to be brought into the cache, by all cubes of a job together.
#[cube]
fn warm_matrix(memory: &[Vector<u32, N4>], matrix: usize, lines: usize) {
    let units = CUBE_COUNT_X as usize * CUBE_DIM as usize;
    let mut line = CUBE_POS_X as usize * CUBE_DIM as usize + UNIT_POS as usize;
    while line < lines {
        // A line of the cache has 128 bytes.
        let address = memory[(matrix * lines + line) * 8usize..].as_ptr();
        gpu_asm!("prefetch.global.L2 [{a}];", a = in(_) address, options(nomem));
        line += units;
    }
}
