//! The choice of experts, one cube a row.

use cubecl::prelude::*;

use crate::reduce::{cube_max, cube_sum};
use crate::{Buffer, Matrix, grid};

/// Units of a cube.
const UNITS: usize = 32;

/// The experts of each row, best first, of equal ones that of the lowest number.
#[derive(Clone, Debug)]
pub struct Routes {
    /// Expert numbers `[rows, top_k]`, i32.
    pub ids: Buffer,
    /// Their shares `[rows, top_k]`, of the type of the logits.
    pub weights: Buffer,
}

/// Softmax of each row of `logits` `[rows, experts]`, the `top_k` largest, divided by their sum with `normalize`.
///
/// # Panics
/// When `top_k` is larger than 32 or than the number of experts.
#[must_use]
pub fn route(client: &Client, logits: &Matrix, top_k: usize, normalize: bool) -> Routes {
    assert!(
        top_k <= logits.width.min(UNITS),
        "a row cannot choose {top_k} of {} experts",
        logits.width
    );
    let count = logits.rows * top_k;
    let routes = Routes {
        ids: Buffer::empty(client, i32::elem_type_native(), count),
        weights: Buffer::empty(client, logits.buffer.elem, count),
    };
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
        top_k,
        normalize,
        logits.buffer.elem,
    );
    routes
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
    #[define(X)] _elem: ElemType,
) {
    let row = CUBE_POS;
    if row >= rows {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let mut room = Shared::<[f32]>::new_slice(UNITS);
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
    let largest = cube_max(largest, &mut room, UNITS);
    let mut sum = 0.0f32;
    let mut i = unit;
    while i < experts {
        let share = (scores[i] - largest).exp();
        scores[i] = share;
        sum += share;
        i += UNITS;
    }
    let sum = cube_sum(sum, &mut room, UNITS);
    let mut numbers = Shared::<[u32]>::new_slice(UNITS);
    let mut chosen = 0.0f32;
    for slot in 0..top_k {
        let mut best = f32::new(-1.0);
        let mut id = 0u32;
        let mut i = unit;
        while i < experts {
            if scores[i] > best {
                best = scores[i];
                id = i as u32;
            }
            i += UNITS;
        }
        room[unit] = best;
        numbers[unit] = id;
        sync_cube();
        keep_best(&mut room, &mut numbers);
        let best = room[0];
        let id = numbers[0];
        chosen += best;
        sync_cube();
        if unit == 0 {
            scores[id as usize] = -2.0f32;
            ids[row * top_k + slot] = i32::cast_from(id);
            shares[slot] = best;
        }
        sync_cube();
    }
    if unit < top_k {
        let total = if comptime!(normalize) { chosen } else { sum };
        weights[row * top_k + unit] = X::cast_from(shares[unit] / total);
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
