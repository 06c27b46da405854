//! Several rows of activations: the sums of all planes, and how they are written.

use cubecl::prelude::*;

use super::kernel::Place;
use super::work::{COLUMNS, ROWS, Work};

type N4 = Const<4>;

/// Puts the sums of this plane where all see them: `[plane, tile, group, column, row]`.
#[cube]
pub(super) fn share(
    parts: &mut Shared<[f32]>,
    sums: &Array<Vector<f32, N4>>,
    #[comptime] work: Work,
) {
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

/// Puts the gains of the rows where all see them.
#[cube]
pub(super) fn share_gains(room: &mut Shared<[f32]>, gain: &Array<f32>, #[comptime] work: Work) {
    let lane = UNIT_POS_X as usize;
    if UNIT_POS_Y == 0 && lane < ROWS {
        #[unroll]
        for i in 0..work.tiles {
            room[i * ROWS + lane] = gain[i];
        }
    }
}

/// Writes the sum over all planes of each row and column, or if two columns are one row of activations, of both.
///
/// - onto: as `y`, what the sums are added to, if they are; it stays as it is
#[cube]
pub(super) fn write<Y: Float>(
    parts: &Shared<[f32]>,
    gain: &Shared<[f32]>,
    onto: &mut [f32],
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
            let own = &parts[(i * comptime!(COLUMNS * work.groups) + column) * ROWS + slot..];
            let mut sum = 0.0f32;
            #[unroll]
            for plane in 0..work.planes {
                sum += own[comptime!(plane * work.parts())];
                if comptime!(work.split) {
                    sum += own[comptime!(plane * work.parts() + ROWS)];
                }
            }
            if comptime!(work.form.is_tiles()) {
                sum *= gain[i * ROWS + slot] * comptime!(work.form.scaled().restore());
            }
            let mut first = CUBE_POS_Y as usize;
            if comptime!(work.blocks) {
                first *= comptime!(work.columns() / halves);
            }
            let to = (first + column / halves) * place.rows + row;
            if comptime!(work.onto) {
                sum += onto[to];
            }
            y[to] = Y::cast_from(sum);
        }
        output += comptime!(work.planes * 32);
    }
}
