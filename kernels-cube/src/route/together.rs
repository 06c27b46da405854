//! One cube a row.

use cubecl::ir::features::Plane;
use cubecl::prelude::*;

use super::Routes;
use crate::reduce::{Lanes, cube_sum};
use crate::{Matrix, grid};

/// Units of a cube, and the most experts that a row can choose.
pub(super) const UNITS: usize = 32;

pub(super) fn launch(client: &Client, logits: &Matrix, routes: &Routes, normalize: bool) {
    let lanes = Lanes::of(client);
    let meets = client.properties().features.plane.contains(Plane::Sync);
    route_kernel::launch(
        client,
        grid::cubes(logits.rows),
        CubeDim::new_1d(UNITS as u32),
        logits.buffer.arg(),
        routes.ids.arg(),
        routes.weights.arg(),
        logits.rows,
        logits.stride,
        logits.width,
        routes.top_k,
        normalize,
        lanes.is_plane && lanes.count == UNITS && meets,
        logits.buffer.elem,
    );
}

#[cube(launch)]
fn route_kernel<X: Float>(
    logits: &[X],
    ids: &mut [i32],
    weights: &mut [X],
    rows: usize,
    stride: usize,
    #[comptime] experts: usize,
    #[comptime] top_k: usize,
    #[comptime] normalize: bool,
    #[comptime] is_plane: bool,
    #[define(X)] _elem: ElemType,
) {
    let row = CUBE_POS;
    if row >= rows {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let mut room = Shared::<[f32]>::new_slice(UNITS);
    let mut numbers = Shared::<[u32]>::new_slice(UNITS);
    let mut scores = Shared::<[f32]>::new_slice(experts);
    let mut shares = Shared::<[f32]>::new_slice(UNITS);
    let mut largest = f32::cast_from(logits[row * stride]);
    let mut i = unit;
    while i < experts {
        let score = f32::cast_from(logits[row * stride + i]);
        scores[i] = score;
        if score > largest {
            largest = score;
        }
        i += UNITS;
    }
    let (largest, _) = best_of_all(largest, 0u32, &mut room, &mut numbers, is_plane);
    let mut sum = 0.0f32;
    let mut i = unit;
    while i < experts {
        let share = (scores[i] - largest).exp();
        scores[i] = share;
        sum += share;
        i += UNITS;
    }
    let sum = if comptime!(is_plane) {
        sync_plane();
        plane_sum(sum)
    } else {
        cube_sum(sum, &mut room, UNITS)
    };
    let mut chosen = 0.0f32;
    for slot in 0..top_k {
        let (own, id) = best_of_unit(&scores, experts);
        let (best, id) = best_of_all(own, id, &mut room, &mut numbers, is_plane);
        chosen += best;
        // Nobody else reads this score.
        if id as usize % UNITS == unit {
            scores[id as usize] = -2.0f32;
        }
        if unit == 0 {
            ids[row * top_k + slot] = i32::cast_from(id);
            shares[slot] = best;
        }
    }
    sync_cube();
    if unit < top_k {
        let total = if comptime!(normalize) { chosen } else { sum };
        weights[row * top_k + unit] = X::cast_from(shares[unit] / total);
    }
}

/// The best of the scores of all units, and its number.
#[cube]
fn best_of_all(
    own: f32,
    id: u32,
    room: &mut Shared<[f32]>,
    numbers: &mut Shared<[u32]>,
    #[comptime] is_plane: bool,
) -> (f32, u32) {
    if comptime!(is_plane) {
        // Lanes come from loops of other lengths.
        sync_plane();
        let best = plane_max(own);
        (best, plane_min(select(own == best, id, u32::MAX)))
    } else {
        let unit = UNIT_POS as usize;
        // What was there before is read by all.
        sync_cube();
        room[unit] = own;
        numbers[unit] = id;
        sync_cube();
        keep_best(room, numbers);
        let (best, id) = (room[0], numbers[0]);
        sync_cube();
        (best, id)
    }
}

/// Brings the best score of all units to the front, and its number; of equal scores the lower number is better.
#[cube]
fn keep_best(scores: &mut Shared<[f32]>, numbers: &mut Shared<[u32]>) {
    let unit = UNIT_POS as usize;
    #[unroll]
    for step in 0..comptime!(UNITS.ilog2() as usize) {
        let half = comptime!(UNITS >> (step + 1));
        if unit < half {
            let score = scores[unit + half];
            let number = numbers[unit + half];
            let better = score > scores[unit] || (score == scores[unit] && number < numbers[unit]);
            if better {
                scores[unit] = score;
                numbers[unit] = number;
            }
        }
        sync_cube();
    }
}

/// The best of the scores that fall to this unit, and its number.
#[cube]
fn best_of_unit(scores: &Shared<[f32]>, #[comptime] experts: usize) -> (f32, u32) {
    let mut best = f32::new(-1.0);
    let mut id = 0u32;
    let mut i = UNIT_POS as usize;
    while i < experts {
        if scores[i] > best {
            best = scores[i];
            id = i as u32;
        }
        i += UNITS;
    }
    (best, id)
}
