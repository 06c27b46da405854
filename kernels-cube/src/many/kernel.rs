//! The kernel: a cube finds its place, copies and multiplies chunk by chunk, and writes.

use cubecl::prelude::*;

use super::stage::{copy, find_sources, find_targets, stage};
use super::work::{Mode, Work};
use super::write::write;
use super::{rows, tiles, warpgroup};
use crate::Buffer;
use crate::few::Weights;
use crate::matrix_units::{commit, exchange};

type N4 = Const<4>;

/// A launch of [`many_kernel`].
pub(super) struct Launch<'a> {
    pub(super) weights: &'a Weights,
    pub(super) work: Work,
    /// Cubes side by side.
    pub(super) grid: usize,
    /// Columns of all cubes, unless they are listed.
    pub(super) columns: usize,
    /// Numbers of a row of `x`, and from a tap to the next.
    pub(super) depth: usize,
    pub(super) reach: usize,
    /// Numbers of `y` between rows.
    pub(super) stride: usize,
    pub(super) slots: usize,
    /// What is added to rows.
    pub(super) gains: Option<&'a Buffer>,
}

impl Launch<'_> {
    /// - shares: of [`Mode::Down`]; in [`Mode::Dense`] it is what the product is added to
    pub(super) fn go(&self, client: &Client, [x, y, order, blocks, shares]: [&Buffer; 5]) {
        let blocking = self.work.blocking;
        let [codes, scales, gains] = self.weights.buffers();
        let tiles = self.weights.tiles_of(self.work.mode == Mode::GateUp);
        #[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
        // SAFETY: the functions of this module state the lengths; rows and tiles beyond the last are read again and not
        // written.
        unsafe {
            many_kernel::launch_unchecked(
                client,
                CubeCount::Static(
                    tiles.div_ceil(blocking.down * blocking.tiles) as u32,
                    self.grid as u32,
                    1,
                ),
                CubeDim::new_2d(32, blocking.planes() as u32),
                codes.bytes(16),
                scales.bytes(4),
                self.gains.unwrap_or(gains).bytes(4),
                x.bytes(16),
                order.bytes(4),
                blocks.bytes(4),
                shares.bytes(4),
                y.arg(),
                self.weights.rows() as u32,
                tiles as u32,
                self.weights.chunks() as u32,
                self.weights.width() as u32,
                (self.depth / 8) as u32,
                (self.reach / 8) as u32,
                self.columns as u32,
                self.stride as u32,
                self.slots as u32,
                self.work,
                y.elem,
            );
        }
    }
}

/// Where a plane's part of a launch lies.
#[derive(CubeType)]
pub(super) struct Place {
    /// Which of several matrices.
    pub(super) expert: usize,
    /// The columns of the cube, of all or of the list.
    pub(super) first: usize,
    pub(super) end: usize,
    /// The first tile of the plane.
    pub(super) tile: usize,
    /// Rows of a matrix, and tiles below one another.
    pub(super) rows: usize,
    pub(super) tiles: usize,
    /// Chunks of 64 columns of a matrix.
    pub(super) chunks: usize,
    /// Vectors of a row of a matrix in rows.
    pub(super) width: usize,
    /// Vectors of a row of `x`, and from a tap to the next.
    pub(super) depth: usize,
    pub(super) reach: usize,
    /// Numbers of `y` between rows.
    pub(super) stride: usize,
    /// Choices of a row.
    pub(super) slots: usize,
}

#[cube(launch_unchecked)]
fn many_kernel<Y: Float>(
    codes: &[Vector<u32, N4>],
    scales: &[u32],
    gains: &[f32],
    x: &[Vector<u32, N4>],
    order: &[u32],
    blocks: &[u32],
    shares: &[f32],
    y: &mut [Y],
    rows: u32,
    tiles: u32,
    chunks: u32,
    width: u32,
    depth: u32,
    reach: u32,
    columns: u32,
    stride: u32,
    slots: u32,
    #[comptime] work: Work,
    #[define(Y)] _elem: ElemType,
) {
    let blocking = work.blocking;
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
    let place = Place {
        expert,
        first,
        end,
        tile: (CUBE_POS_X as usize * blocking.down + UNIT_POS_Y as usize / blocking.across)
            * blocking.tiles,
        rows: rows as usize,
        tiles: tiles as usize,
        chunks: chunks as usize,
        width: width as usize,
        depth: depth as usize,
        reach: reach as usize,
        stride: stride as usize,
        slots: slots as usize,
    };
    if comptime!(work.instructions.are_of_warpgroups()) {
        crate::warpgroup::begin(blocking.tiles, blocking.groups);
    }
    let mut stage = stage(work);
    find_sources(&mut stage, order, &place, work);
    #[unroll]
    for chunk in 0..work.ahead() {
        if chunk < place.chunks {
            copy(x, &mut stage, &place, chunk, work);
        }
        commit(work.instructions);
    }
    if comptime!(work.mode == Mode::Down) {
        find_targets(&mut stage, order, shares, &place, work);
    }
    let mut sums = Array::<Vector<f32, N4>>::new(comptime!(blocking.tiles * blocking.groups));
    #[unroll]
    for i in 0..comptime!(blocking.tiles * blocking.groups) {
        sums[i] = Vector::<f32, N4>::new(0.0f32);
    }
    if comptime!(work.instructions.are_of_warpgroups()) {
        warpgroup::sum(&mut sums, codes, scales, x, &mut stage, &place, work);
    } else if comptime!(work.form.is_tiles()) {
        tiles::sum(&mut sums, codes, scales, x, &mut stage, &place, work);
    } else {
        let mut exchange = exchange(comptime!(blocking.planes()), work.instructions);
        rows::sum(&mut sums, codes, x, &mut stage, &place, &mut exchange, work);
    }
    write::<Y>(&sums, gains, shares, &stage, y, &place, work);
}
