//! Products with 2 to 16 rows of activations: the matrix is read once for all of them.
//!
//! A column of the second operand is a row of activations. Scales are multiplied into the decoded values: both have six
//! significant bits together, so bf16 holds the product exactly, and all columns accumulate in one set of registers.

use cubecl::prelude::*;

use super::decode::{mma, mul_bf16x2, scale_bf16, values0, values1, values2, values3};
use super::gemv::{Activations, Matrix, Share, tune};
use super::{BLOCKS, ROWS, Tiling};
use crate::Buffer;

type N4 = Const<4>;

/// Rows of activations at most.
pub const SEVERAL: usize = 16;
/// Columns of the second operand.
const COLUMNS: usize = 8;

/// 2^14 of the decoded values over 2^64 of the activations.
pub(super) const RESTORE: f32 = 8.881_784e-16;

/// How much a cube computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Extent {
    /// Tiles below one another.
    tiles: usize,
    /// Groups of eight rows of activations.
    groups: usize,
    /// Whether two rows of activations are one.
    split: bool,
}

/// `y = matrix * x` for each of up to [`SEVERAL`] rows.
///
/// - x: bf16 `[rows, 1 or 2, columns]`
/// - y: `[rows, rows of the matrix]`
#[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
pub fn several(
    client: &Client,
    matrix: &Matrix,
    x: &Activations,
    rows: usize,
    y: &Buffer,
) {
    let columns = rows * if x.split { 2 } else { 1 };
    let share = Share::of(matrix.tiling.pairs, tune("EACHSEV", 1));
    let extent = Extent {
        tiles: tune("TILES", 1),
        groups: columns.div_ceil(COLUMNS),
        split: x.split,
    };
    // SAFETY: the lengths are stated above; rows and tiles beyond the last are read again and not written.
    unsafe {
        several_kernel::launch_unchecked(
            client,
            CubeCount::Static(matrix.tiling.tiles.div_ceil(extent.tiles) as u32, 1, 1),
            CubeDim::new_2d(32, share.planes as u32),
            matrix.codes.vectors(4),
            matrix.scales.arg(),
            matrix.gains.arg(),
            x.buffer.vectors(8),
            y.arg(),
            matrix.rows as u32,
            columns as u32,
            matrix.tiling,
            share,
            extent,
            y.elem,
        );
    }
}

#[cube(launch_unchecked)]
fn several_kernel<Y: Float>(
    codes: &[Vector<u32, N4>],
    scales: &[u32],
    gains: &[f32],
    x: &[Vector<u32, N4>],
    y: &mut [Y],
    rows: u32,
    columns: u32,
    #[comptime] tiling: Tiling,
    #[comptime] share: Share,
    #[comptime] extent: Extent,
    #[define(Y)] _elem: ElemType,
) {
    let lane = UNIT_POS_X as usize;
    let plane = UNIT_POS_Y as usize;
    let chunks = comptime!(tiling.chunks());
    let pairs = comptime!(tiling.pairs);
    let groups = extent.groups;
    let mut sums = Array::<Vector<f32, N4>>::new(comptime!(extent.tiles * groups));
    #[unroll]
    for i in 0..comptime!(extent.tiles * groups) {
        sums[i] = Vector::<f32, N4>::new(0.0f32);
    }
    #[unroll]
    for i in 0..share.each {
        let pair = plane * share.each + i;
        if comptime!(!share.ragged()) || pair < share.pairs {
            let mut words = Array::<Vector<u32, N4>>::new(comptime!(extent.tiles * chunks));
            let mut scale = Array::<u32>::new(extent.tiles);
            #[unroll]
            for i in 0..extent.tiles {
                let at = tile_of(i, tiling, extent) * pairs + pair;
                #[unroll]
                for c in 0..chunks {
                    words[comptime!(i * chunks + c)] = codes[(at * chunks + c) * 32usize + lane];
                }
                scale[i] = scales[at * 32usize + lane];
            }
            let mut values = Array::<Vector<u32, N4>>::new(comptime!(groups * chunks * 2));
            load_values(&mut values, x, pair, columns as usize, tiling, extent);
            #[unroll]
            for i in 0..extent.tiles {
                #[unroll]
                for c in 0..chunks {
                    let span = comptime!(c / (chunks / 2));
                    let lo = scale_bf16(scale[i], comptime!(span * 2), tiling.e8m0);
                    let hi = scale_bf16(scale[i], comptime!(span * 2 + 1), tiling.e8m0);
                    #[unroll]
                    for b in 0..4usize {
                        let word = words[comptime!(i * chunks + c)].extract(b);
                        let a0 = mul_bf16x2(values0(word), lo);
                        let a1 = mul_bf16x2(values1(word), hi);
                        let a2 = mul_bf16x2(values2(word), lo);
                        let a3 = mul_bf16x2(values3(word), hi);
                        #[unroll]
                        for group in 0..groups {
                            let v = values[comptime!((group * chunks + c) * 2 + b / 2)];
                            let at = comptime!(i * groups + group);
                            sums[at] = mma(
                                a0,
                                a1,
                                a2,
                                a3,
                                v.extract(comptime!(b % 2 * 2)),
                                v.extract(comptime!(b % 2 * 2 + 1)),
                                sums[at],
                            );
                        }
                    }
                }
            }
        }
    }
    reduce::<Y>(
        &sums,
        gains,
        y,
        rows as usize,
        columns as usize,
        share,
        extent,
    );
}

/// The activations of a pair of spans: of each group's row `lane / 4`, the lane's own blocks.
#[cube]
fn load_values(
    values: &mut Array<Vector<u32, N4>>,
    x: &[Vector<u32, N4>],
    pair: usize,
    columns: usize,
    #[comptime] tiling: Tiling,
    #[comptime] extent: Extent,
) {
    let lane = UNIT_POS_X as usize;
    let chunks = comptime!(tiling.chunks());
    #[unroll]
    for group in 0..extent.groups {
        let wanted = group * COLUMNS + lane / 4usize;
        let last = columns - 1usize;
        let row = select(wanted < last, wanted, last);
        let from = (row * tiling.pairs + pair) * comptime!(BLOCKS * tiling.block) + lane % 4usize * tiling.block;
        #[unroll]
        for c in 0..chunks {
            let column = comptime!(c / (chunks / 2) * 4 * tiling.block + c % (chunks / 2) * 16);
            #[unroll]
            for half in 0..2usize {
                let to = comptime!((group * chunks + c) * 2 + half);
                values[to] = x[(from + comptime!(column + half * 8)) / 8usize];
            }
        }
    }
}

/// Tile number `i` of this cube.
#[cube]
fn tile_of(i: usize, #[comptime] tiling: Tiling, #[comptime] extent: Extent) -> usize {
    let tile = CUBE_POS_X as usize * extent.tiles + i;
    let last = comptime!(tiling.tiles - 1);
    select(tile < last, tile, last)
}

/// The sums of all planes, with the rows' gains.
#[cube]
fn reduce<Y: Float>(
    sums: &Array<Vector<f32, N4>>,
    gains: &[f32],
    y: &mut [Y],
    rows: usize,
    columns: usize,
    #[comptime] share: Share,
    #[comptime] extent: Extent,
) {
    let lane = UNIT_POS_X as usize;
    let plane = UNIT_POS_Y as usize;
    let groups = extent.groups;
    let size = comptime!(ROWS * COLUMNS);
    let mut parts =
        Shared::<[f32]>::new_slice(comptime!(share.planes * extent.tiles * groups * size));
    #[unroll]
    for i in 0..comptime!(extent.tiles * groups) {
        let at = (plane * comptime!(extent.tiles * groups) + i) * size + lane / 4usize;
        let column = lane % 4usize * 2usize;
        let sum = sums[i];
        parts[at + column * ROWS] = sum.extract(0usize);
        parts[at + (column + 1usize) * ROWS] = sum.extract(1usize);
        parts[at + column * ROWS + 8usize] = sum.extract(2usize);
        parts[at + (column + 1usize) * ROWS + 8usize] = sum.extract(3usize);
    }
    sync_cube();
    let halves = comptime!(if extent.split { 2usize } else { 1usize });
    let outputs = comptime!(extent.tiles * groups * size / halves);
    let units = comptime!(share.planes * 32);
    #[unroll]
    for turn in 0..comptime!(outputs.div_ceil(units)) {
        let output = turn * units + plane * 32usize + lane;
        if output < outputs {
            let slot = output % ROWS;
            let column = output / ROWS % comptime!(COLUMNS / halves) * halves;
            let i = output / comptime!(ROWS * COLUMNS / halves);
            let mut sum = 0.0f32;
            #[unroll]
            for p in 0..share.planes {
                let at = (p * comptime!(extent.tiles * groups) + i) * size + column * ROWS + slot;
                sum += parts[at];
                if comptime!(extent.split) {
                    sum += parts[at + ROWS];
                }
            }
            let tile = CUBE_POS_X as usize * extent.tiles + i / groups;
            let row = tile * ROWS + slot;
            let token = i % groups * COLUMNS + column;
            if row < rows && token < columns {
                y[token / halves * rows + row] = Y::cast_from(sum * (gains[row] * RESTORE));
            }
        }
    }
}
