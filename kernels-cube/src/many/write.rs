//! What becomes of the sums.

use cubecl::prelude::*;

use super::kernel::Place;
use super::stage::Stage;
use super::work::{GROUP, Mode, Work};
use crate::math::silu;
use crate::packed::tiles::ROWS;
use crate::packed::tiles::activations::place_in_products;

type N4 = Const<4>;

/// Groups whose sums are added to rows that are loaded together: one after another they would wait for each other's writes.
const TOGETHER: usize = 4;

/// Writes the sums of this plane.
///
/// - gains: a factor a row of packed weights; what is added to a row of others
/// - onto: as `y`, what the sums are added to
#[cube]
pub(super) fn write<Y: Float>(
    sums: &Array<Vector<f32, N4>>,
    gains: &[f32],
    onto: &[f32],
    stage: &Stage,
    y: &mut [Y],
    place: &Place,
    #[comptime] work: Work,
) {
    let groups = work.blocking.groups;
    #[unroll]
    for i in 0..work.blocking.tiles {
        let lo = row_of(place, i, 0usize, work);
        let hi = row_of(place, i, 1usize, work);
        let both = Both {
            lo,
            hi,
            lo_gain: gain_of(gains, place, lo, work),
            hi_gain: gain_of(gains, place, hi, work),
        };
        #[unroll]
        for first in 0..comptime!(groups.div_ceil(TOGETHER)) {
            let mut bases = Array::<Vector<f32, N4>>::new(TOGETHER);
            if comptime!(work.form.has_onto()) {
                #[unroll]
                for within in 0..comptime!(TOGETHER.min(groups - first * TOGETHER)) {
                    let group = comptime!(first * TOGETHER + within);
                    bases[within] = base_of(onto, place, &both, group, work);
                }
            }
            #[unroll]
            for within in 0..comptime!(TOGETHER.min(groups - first * TOGETHER)) {
                let group = comptime!(first * TOGETHER + within);
                let sum = sums[comptime!(i * groups + group)];
                write_group::<Y>(sum, bases[within], stage, y, place, &both, group, work);
            }
        }
    }
}

/// The two rows of a tile that a lane has.
#[derive(CubeType)]
struct Both {
    lo: usize,
    hi: usize,
    lo_gain: f32,
    hi_gain: f32,
}

/// The column of this lane that is number `odd` of a group, of those of the cube.
#[cube]
fn own_column(#[comptime] group: usize, #[comptime] odd: usize, #[comptime] work: Work) -> usize {
    let blocking = work.blocking;
    let side = UNIT_POS_Y as usize % blocking.across;
    (side * blocking.groups + group) * GROUP + UNIT_POS_X as usize % 4usize * 2usize + odd
}

/// What the sums of a group are added to, in their places; of columns and rows behind the last anything.
#[cube]
fn base_of(
    onto: &[f32],
    place: &Place,
    both: &Both,
    #[comptime] group: usize,
    #[comptime] work: Work,
) -> Vector<f32, N4> {
    let halves = work.halves();
    let mut base = Vector::<f32, N4>::new(0.0f32);
    let last = place.rows - 1usize;
    let lo = select(both.lo < last, both.lo, last);
    let hi = select(both.hi < last, both.hi, last);
    #[unroll]
    for odd in 0..comptime!(2 / halves) {
        let column = place.first + own_column(group, odd, work);
        let column = select(column < place.end, column, place.end - 1usize);
        let from = column / halves * place.stride;
        base.insert(odd, onto[from + lo]);
        base.insert(comptime!(odd + 2), onto[from + hi]);
    }
    base
}

/// Writes the sums of a group of columns.
#[cube]
fn write_group<Y: Float>(
    sum: Vector<f32, N4>,
    base: Vector<f32, N4>,
    stage: &Stage,
    y: &mut [Y],
    place: &Place,
    both: &Both,
    #[comptime] group: usize,
    #[comptime] work: Work,
) {
    let halves = work.halves();
    #[unroll]
    for odd in 0..comptime!(2 / halves) {
        let own = own_column(group, odd, work);
        let column = place.first + own;
        let mut lo = sum.extract(odd);
        let mut hi = sum.extract(comptime!(odd + 2));
        if comptime!(work.split) {
            lo += sum.extract(1usize);
            hi += sum.extract(3usize);
        }
        if comptime!(work.form.is_tiles()) {
            lo *= both.lo_gain;
            hi *= both.hi_gain;
        }
        if comptime!(work.form.has_bias()) {
            lo += both.lo_gain;
            hi += both.hi_gain;
        }
        if comptime!(work.form.has_onto()) {
            lo += base.extract(odd);
            hi += base.extract(comptime!(odd + 2));
        }
        if column < place.end {
            if comptime!(work.mode == Mode::GateUp) {
                if both.lo < place.rows {
                    let to = column * place.stride + inside(both.lo, work);
                    write_gated::<Y>(y, to, place.stride, silu(lo) * hi, work.split);
                }
            } else {
                let mut to = column / halves;
                if comptime!(work.mode == Mode::Down) {
                    to = stage.targets[own / halves] as usize;
                    let factor = stage.factors[own / halves];
                    lo *= factor;
                    hi *= factor;
                }
                let to = to * place.stride;
                if both.lo < place.rows {
                    y[to + both.lo] = Y::cast_from(lo);
                }
                if both.hi < place.rows {
                    y[to + both.hi] = Y::cast_from(hi);
                }
            }
        }
    }
}

/// Where a number lies in its row: as the products that read it take it.
#[cube]
fn inside(number: usize, #[comptime] work: Work) -> usize {
    if comptime!(work.instructions.are_of_warpgroups()) {
        place_in_products(number, comptime!(work.form.scaled().block))
    } else {
        number
    }
}

/// Writes a number, and with `split` a row behind it what rounding took away.
#[cube]
fn write_gated<Y: Float>(
    y: &mut [Y],
    to: usize,
    stride: usize,
    value: f32,
    #[comptime] split: bool,
) {
    let rounded = Y::cast_from(value);
    y[to] = rounded;
    if comptime!(split) {
        y[to + stride] = Y::cast_from(value - f32::cast_from(rounded));
    }
}

/// The row of a matrix that this lane holds in the upper or lower half of tile `i`; `place.rows` or more is padding.
#[cube]
pub(super) fn row_of(
    place: &Place,
    #[comptime] i: usize,
    #[comptime] half: usize,
    #[comptime] work: Work,
) -> usize {
    let lane = UNIT_POS_X as usize;
    let tile = place.tile + i;
    if comptime!(work.mode == Mode::GateUp) {
        let row = tile * comptime!(ROWS / 2) + lane / 4usize;
        let gated = place.rows / 2usize;
        select(row < gated, row + half * gated, place.rows)
    } else {
        tile * ROWS + lane / 4usize + comptime!(half * 8)
    }
}

/// What a row of packed weights is multiplied with, which undoes the scaling of decoded values too, or what is added.
#[cube]
fn gain_of(gains: &[f32], place: &Place, row: usize, #[comptime] work: Work) -> f32 {
    let row = select(row < place.rows, row, place.rows - 1usize);
    let mut gain = 0.0f32;
    if comptime!(work.form.is_tiles()) {
        gain = gains[place.expert * place.rows + row] * comptime!(work.form.scaled().restore());
    }
    if comptime!(work.form.has_bias()) {
        gain = gains[row];
    }
    gain
}
