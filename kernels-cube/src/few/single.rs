//! One row of activations: its sums, and what is made of them.
//!
//! A plane adds what belongs together before it shares, so that few numbers are left to add when all are done; the first
//! plane adds them and writes.

use cubecl::prelude::*;

use super::kernel::{Place, plane_of};
use super::weights::load_now;
use super::work::{Mode, ROWS, Work};
use crate::plane::plane_total;

type N4 = Const<4>;

/// What the first plane multiplies the sums with.
#[derive(CubeType)]
pub(super) struct Factors {
    /// The gain of the lane's row, in each round.
    pub(super) gain: Array<f32>,
    /// One over the root mean square of the input.
    pub(super) norm: f32,
}

/// Puts the sums of this plane where all see them: `[plane, tile, row]`.
///
/// - gain: of both rows of the lane in every tile, times the weight of the plane's expert; where planes have experts of
///   their own
#[cube]
pub(super) fn share(
    parts: &mut Shared<[f32]>,
    sums: &Array<Vector<f32, N4>>,
    gain: &Array<f32>,
    #[comptime] work: Work,
) {
    let lane = UNIT_POS_X as usize;
    // One of four lanes has the columns of the row of activations.
    if lane.is_multiple_of(4usize) {
        let own = &mut parts[plane_of(work) * work.parts() + lane / 4usize..];
        #[unroll]
        for i in 0..work.tiles {
            let sum = sums[i];
            let mut upper = sum.extract(0usize);
            let mut lower = sum.extract(2usize);
            if comptime!(work.split) {
                upper += sum.extract(1usize);
                lower += sum.extract(3usize);
            }
            if comptime!(work.mode == Mode::Down) {
                upper *= gain[comptime!(2 * i)];
                lower *= gain[comptime!(2 * i + 1)];
            }
            own[comptime!(i * ROWS)] = upper;
            own[comptime!(i * ROWS + ROWS / 2)] = lower;
        }
    }
}

/// The tile of the lane in a round: two tiles of 16 rows, or one whose planes both halves of the lanes share.
#[cube]
pub(super) fn tile(#[comptime] round: usize, #[comptime] work: Work) -> usize {
    if comptime!(work.tiles > 1) {
        comptime!(2 * round) + UNIT_POS_X as usize / ROWS
    } else {
        0usize.runtime()
    }
}

/// The sum over all planes for the lane's row, with its factors.
#[cube]
fn total(
    parts: &Shared<[f32]>,
    factors: &Factors,
    #[comptime] round: usize,
    #[comptime] work: Work,
) -> f32 {
    let lane = UNIT_POS_X as usize;
    let own = &parts[comptime!(round * 2 * ROWS) + lane..];
    let mut sum = 0.0f32;
    if comptime!(work.tiles > 1) {
        #[unroll]
        for plane in 0..work.planes {
            sum += own[comptime!(plane * work.parts())];
        }
    } else {
        let count = comptime!(work.planes.div_ceil(2));
        let mut all = Array::<f32>::new(count);
        #[unroll]
        for pair in 0..count {
            let part = own[comptime!(pair * 2 * ROWS)];
            all[pair] = if comptime!(2 * pair + 1 < work.planes) {
                part
            } else {
                select(lane < ROWS, part, 0.0f32)
            };
        }
        sum = sum_in_halves(&mut all, count);
        sum += plane_shuffle_xor(sum, comptime!(ROWS as u32));
    }
    if comptime!(work.form.is_tiles()) {
        if comptime!(work.mode != Mode::Down) {
            sum *= factors.gain[round];
        }
        sum *= comptime!(work.form.scaled().restore());
    }
    if comptime!(work.is_normed()) {
        sum *= factors.norm;
    }
    sum
}

/// The sum of so many numbers, one half added to the other until one is left, so that few additions wait for one another.
#[cube]
fn sum_in_halves(all: &mut Array<f32>, #[comptime] count: usize) -> f32 {
    #[unroll]
    for step in 0..comptime!(count.next_power_of_two().trailing_zeros() as usize) {
        let left = comptime!(halved(count, step));
        #[unroll]
        for i in 0..comptime!(left / 2) {
            all[i] += all[comptime!(left - left / 2 + i)];
        }
    }
    all[0]
}

/// How many numbers are left of so many after some steps of which each takes half of them away.
const fn halved(count: usize, steps: usize) -> usize {
    count.div_ceil(1 << steps)
}

/// Writes the sums.
#[cube]
pub(super) fn write<Y: Float>(
    parts: &Shared<[f32]>,
    factors: &Factors,
    y: &mut [Y],
    place: &Place,
    #[comptime] work: Work,
) {
    let slot = UNIT_POS_X as usize % ROWS;
    #[unroll]
    for round in 0..comptime!(work.rounds()) {
        let sum = total(parts, factors, round, work);
        let i = tile(round, work);
        let row = (CUBE_POS_X as usize * work.tiles + i) * ROWS + slot;
        if row < place.rows {
            y[CUBE_POS_Y as usize * place.rows + row] = Y::cast_from(sum);
        }
    }
}

/// Writes `silu(gate) * up`.
#[cube]
pub(super) fn write_gated<Y: Float>(
    parts: &Shared<[f32]>,
    factors: &Factors,
    h: &mut [Y],
    place: &Place,
    stride: usize,
    #[comptime] work: Work,
) {
    let half = comptime!(ROWS / 2);
    let slot = UNIT_POS_X as usize % ROWS;
    #[unroll]
    for round in 0..comptime!(work.rounds()) {
        let gate = total(parts, factors, round, work);
        let up = plane_shuffle_xor(gate, comptime!(ROWS as u32 / 2));
        let i = tile(round, work);
        let row = (CUBE_POS_X as usize * work.tiles + i) * half + slot;
        if slot < half && row < place.rows / 2usize {
            let value = gate / (1.0f32 + (-gate).exp()) * up;
            let rounded = Y::cast_from(value);
            let to = CUBE_POS_Y as usize * work.halves() * stride + row;
            h[to] = rounded;
            if comptime!(work.split) {
                h[to + stride] = Y::cast_from(value - f32::cast_from(rounded));
            }
        }
    }
}

/// The lane's number of the residual row, and its weight in the norm that follows: asked for before the sums are formed.
#[cube]
pub(super) fn load_residual(
    residual: &mut Array<f32>,
    h: &mut [f32],
    norm: &[f32],
    place: &Place,
    #[comptime] work: Work,
) {
    if plane_of(work) == 0 {
        let wanted = CUBE_POS_X as usize * ROWS + UNIT_POS_X as usize % ROWS;
        let last = place.rows - 1usize;
        let row = select(wanted < last, wanted, last);
        residual[0] = load_now(&h[row..], 0usize);
        residual[1] = load_now(norm, row);
    }
}

/// Adds the sums to the residual row, and writes what the next product takes: the row times the weight of its norm in two
/// halves of bf16, and the sum of the squares.
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
    let lane = UNIT_POS_X as usize;
    let row = CUBE_POS_X as usize * ROWS + lane % ROWS;
    let inside = row < place.rows;
    let sum = total(parts, factors, 0usize, work);
    let value = select(inside, residual[0] + sum, 0.0f32);
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
