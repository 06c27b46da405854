//! The sums of all planes, and what is made of them.

use cubecl::prelude::*;

use super::kernel::Place;
use super::work::{COLUMNS, Mode, ROWS, Work};
use crate::packed::tiles::decode::RESTORE;

type N4 = Const<4>;

/// What the sums of a cube are multiplied with.
#[derive(CubeType)]
pub(super) struct Factors {
    /// A gain a row; if the planes have different experts, of each plane.
    pub(super) gain: Shared<[f32]>,
    /// The weight of each plane's expert.
    pub(super) weight: Shared<[f32]>,
    /// One over the root mean square of the input.
    pub(super) norm: Shared<[f32]>,
}

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

/// What one plane found for a row and a column, or if two columns are one row of activations, for both.
#[cube]
fn part(parts: &[f32], #[comptime] plane: usize, #[comptime] work: Work) -> f32 {
    let mut sum = parts[comptime!(plane * work.parts())];
    if comptime!(work.split) {
        sum += parts[comptime!(plane * work.parts() + ROWS)];
    }
    sum
}

/// The sum over all planes for slot `slot` of tile `i` and a column, with all factors but the norm.
#[cube]
fn total(
    parts: &Shared<[f32]>,
    factors: &Factors,
    i: usize,
    slot: usize,
    column: usize,
    #[comptime] work: Work,
) -> f32 {
    let own = &parts[(i * comptime!(COLUMNS * work.groups) + column) * ROWS + slot..];
    let gain = &factors.gain[i * ROWS + slot..];
    let mut sum = 0.0f32;
    #[unroll]
    for plane in 0..work.planes {
        let mut part = part(own, plane, work);
        if comptime!(work.mode == Mode::Down) {
            // Planes have different experts, whose gains differ.
            part *= factors.weight[plane];
            if comptime!(work.form.is_tiles()) {
                part *= gain[comptime!(plane * work.tiles * ROWS)];
            }
        }
        sum += part;
    }
    if comptime!(work.form.is_tiles()) {
        if comptime!(work.mode != Mode::Down) {
            sum *= gain[0];
        }
        sum *= RESTORE;
    }
    sum
}

#[cube]
pub(super) fn write<Y: Float>(
    parts: &Shared<[f32]>,
    factors: &Factors,
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
            let mut sum = total(parts, factors, i, slot, column, work);
            if comptime!(work.is_normed()) {
                sum *= factors.norm[0];
            }
            let mut first = CUBE_POS_Y as usize;
            if comptime!(work.blocks) {
                first *= comptime!(work.columns() / halves);
            }
            y[(first + column / halves) * place.rows + row] = Y::cast_from(sum);
        }
        output += comptime!(work.planes * 32);
    }
}

#[cube]
pub(super) fn write_gated<Y: Float>(
    parts: &Shared<[f32]>,
    factors: &Factors,
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
            let mut gate = total(parts, factors, i, slot, 0usize, work);
            let mut up = total(parts, factors, i, slot + comptime!(ROWS / 2), 0usize, work);
            if comptime!(work.is_normed()) {
                gate *= factors.norm[0];
                up *= factors.norm[0];
            }
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

/// The lane's number of the residual row, and its weight in the norm that follows: asked for before the sums are formed.
#[cube]
pub(super) fn load_residual(residual: &mut Array<f32>, h: &mut [f32], norm: &[f32], place: &Place) {
    if UNIT_POS_Y == 0 {
        let wanted = CUBE_POS_X as usize * ROWS + UNIT_POS_X as usize % ROWS;
        let last = place.rows - 1usize;
        let row = select(wanted < last, wanted, last);
        residual[0] = load_now(&h[row..], 0usize);
        residual[1] = load_now(norm, row);
    }
}

/// A load that stays where it is written: before what takes long, though it is needed behind it.
#[cube]
pub(super) fn load_now(from: &[f32], at: usize) -> f32 {
    let address = from[at..].as_ptr();
    let value: f32;
    gpu_asm!("ld.volatile.global.f32 {v}, [{a}];", v = out(_) value, a = in(_) address, options(nomem));
    value
}

/// Adds the sums to the residual row, by one plane, and writes what the next product takes: the row times the weight of
/// its norm in two halves of bf16, and the sum of the squares.
#[cube]
pub(super) fn write_residual<Y: Float>(
    parts: &Shared<[f32]>,
    factors: &Factors,
    h: &mut [f32],
    x: &mut [Y],
    squares: &mut [f32],
    residual: &Array<f32>,
    place: &Place,
    stride: usize,
    #[comptime] work: Work,
) {
    if UNIT_POS_Y == 0 {
        let lane = UNIT_POS_X as usize;
        let slot = lane % ROWS;
        let row = CUBE_POS_X as usize * ROWS + slot;
        let inside = row < place.rows;
        let mut value = 0.0f32;
        if inside {
            value = residual[0] + total(parts, factors, 0usize, slot, 0usize, work);
        }
        let square = plane_total(value * value, 16usize);
        if inside && lane < ROWS {
            h[row] = value;
            let next = value * residual[1];
            let rounded = Y::cast_from(next);
            x[row] = rounded;
            x[stride + row] = Y::cast_from(next - f32::cast_from(rounded));
            if lane == 0 {
                squares[CUBE_POS_X as usize] = square;
            }
        }
    }
}

/// The sum over groups of `count` lanes; every lane of the plane takes part.
#[cube]
pub(crate) fn plane_total(value: f32, #[comptime] count: usize) -> f32 {
    let mut sum = value;
    #[unroll]
    for step in 0..comptime!(count.ilog2()) {
        sum += plane_shuffle_xor(sum, comptime!(count as u32 >> (step + 1)));
    }
    sum
}
