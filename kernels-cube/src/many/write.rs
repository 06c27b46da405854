//! What becomes of the sums.

use cubecl::prelude::*;

use super::kernel::Place;
use super::stage::Stage;
use super::work::{GROUP, Mode, Work};
use crate::math::silu;
use crate::packed::tiles::ROWS;
use crate::packed::tiles::activations::place_in_products;

type N4 = Const<4>;

/// Writes the sums of this plane.
///
/// - gains: a factor a row of packed weights; what is added to a row of others
/// - onto: as `y`, what the sums of others are added to
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
    let blocking = work.blocking;
    let halves = work.halves();
    let lane = UNIT_POS_X as usize;
    let side = UNIT_POS_Y as usize % blocking.across;
    #[unroll]
    for i in 0..blocking.tiles {
        let lo_row = row_of(place, i, 0usize, work);
        let hi_row = row_of(place, i, 1usize, work);
        let lo_gain = gain_of(gains, place, lo_row, work);
        let hi_gain = gain_of(gains, place, hi_row, work);
        #[unroll]
        for group in 0..blocking.groups {
            let sum = sums[comptime!(i * blocking.groups + group)];
            #[unroll]
            for odd in 0..comptime!(2 / halves) {
                let own = (side * blocking.groups + group) * GROUP + lane % 4usize * 2usize + odd;
                let column = place.first + own;
                let mut lo = sum.extract(odd);
                let mut hi = sum.extract(comptime!(odd + 2));
                if comptime!(work.split) {
                    lo += sum.extract(1usize);
                    hi += sum.extract(3usize);
                }
                if comptime!(work.form.is_tiles()) {
                    lo *= lo_gain;
                    hi *= hi_gain;
                }
                if comptime!(work.form.has_bias()) {
                    lo += lo_gain;
                    hi += hi_gain;
                }
                if column < place.end {
                    if comptime!(work.mode == Mode::GateUp) {
                        if lo_row < place.rows {
                            let to = column * place.stride + inside(lo_row, work);
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
                        if lo_row < place.rows {
                            put::<Y>(y, onto, to + lo_row, lo, work);
                        }
                        if hi_row < place.rows {
                            put::<Y>(y, onto, to + hi_row, hi, work);
                        }
                    }
                }
            }
        }
    }
}

/// Writes a number, on top of what it is added to.
#[cube]
fn put<Y: Float>(y: &mut [Y], onto: &[f32], to: usize, value: f32, #[comptime] work: Work) {
    let mut value = value;
    if comptime!(work.form.has_onto()) {
        value += onto[to];
    }
    y[to] = Y::cast_from(value);
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
