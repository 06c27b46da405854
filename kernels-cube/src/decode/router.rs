//! The choice of experts for the normed row: a cube an expert, of which the last to finish chooses.

use cubecl::prelude::*;

use super::{arrive, warm};
use crate::Buffer;
use crate::few::write::plane_total;
use crate::few::{Row, Rows};
use crate::linear::across;

type N8 = Const<8>;

/// Planes of a cube.
const PLANES: usize = 4;
/// Units of a cube.
const UNITS: usize = PLANES * 32;

/// How experts are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Routing {
    /// How many there are.
    pub experts: usize,
    /// How many are chosen.
    pub top_k: usize,
    /// Whether the weights of the chosen add up to one, or those of all.
    pub normalize: bool,
}

/// What the router reads: a row an expert, and the row that weighs the shared expert.
#[derive(Clone, Debug)]
pub struct Router {
    /// `[experts, width]`
    pub weights: Rows,
    /// `[1, width]`
    pub shared: Option<Rows>,
    /// How experts are chosen.
    pub routing: Routing,
}

/// The experts that were chosen.
#[derive(Clone, Debug)]
pub struct Choice {
    /// u32 `[top_k]`, the highest score first, the lower number first among equals.
    pub ids: Buffer,
    /// Their shares of the softmax, f32 `[top_k]`.
    pub shares: Buffer,
    /// The only number of the shared expert, u32 `[1]`.
    pub shared_id: Buffer,
    /// Its share, f32 `[1]`.
    pub shared: Buffer,
    /// f32 `[experts]`
    scores: Buffer,
    /// How many cubes are done.
    counter: Buffer,
}

impl Choice {
    /// Room for a choice among `experts`.
    #[must_use]
    pub fn new(client: &Client, experts: usize, top_k: usize) -> Self {
        Self {
            ids: Buffer::empty(client, u32::elem_type_native(), top_k),
            shares: Buffer::empty(client, f32::elem_type_native(), top_k),
            shared_id: Buffer::numbers(client, &[0]),
            shared: Buffer::empty(client, f32::elem_type_native(), 1),
            scores: Buffer::empty(client, f32::elem_type_native(), experts),
            counter: Buffer::numbers(client, &[0]),
        }
    }
}

/// Chooses experts by the scores `weights * row`, divided by the root mean square of the row; the shared expert's share is
/// the logistic function of its score.
///
/// - next: what a launch reads soon
pub fn router(client: &Client, router: &Router, row: &Row, choice: &Choice, next: &Buffer) {
    let Router {
        weights,
        shared,
        routing,
    } = router;
    let cubes = weights.rows + usize::from(shared.is_some());
    #[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
    // SAFETY: a cube reads a row of the weights and the row.
    unsafe {
        router_kernel::launch_unchecked(
            client,
            CubeCount::Static(cubes as u32, 1, 1),
            CubeDim::new_2d(32, PLANES as u32),
            weights.buffer.vectors(8),
            shared.as_ref().unwrap_or(weights).buffer.vectors(8),
            row.x.buffer.vectors(8),
            row.squares.arg(),
            choice.scores.arg(),
            choice.counter.arg(),
            choice.ids.arg(),
            choice.shares.arg(),
            choice.shared.arg(),
            next.bytes(16),
            (weights.width / 8) as u32,
            (row.columns / 8) as u32,
            row.squares.len() as u32,
            1.0 / row.width as f32,
            row.eps,
            *routing,
        );
    }
}

#[cube(launch_unchecked)]
fn router_kernel(
    weights: &[Vector<half::bf16, N8>],
    shared_weights: &[Vector<half::bf16, N8>],
    x: &[Vector<half::bf16, N8>],
    squares: &[f32],
    scores: &mut [f32],
    counter: &mut [u32],
    ids: &mut [u32],
    shares: &mut [f32],
    shared: &mut [f32],
    next: &[Vector<u32, Const<4>>],
    width: u32,
    columns: u32,
    parts_of_norm: u32,
    inverse_width: f32,
    eps: f32,
    #[comptime] routing: Routing,
) {
    let lane = UNIT_POS_X as usize;
    let plane = UNIT_POS_Y as usize;
    let (width, columns) = (width as usize, columns as usize);
    let is_shared = CUBE_POS_X as usize == routing.experts;
    let mut sum = Vector::<f32, N8>::new(0.0f32);
    let mut at = UNIT_POS as usize;
    while at < width {
        let expert = select(is_shared, 0usize, CUBE_POS_X as usize);
        let mut weight = Vector::<f32, N8>::cast_from(weights[expert * width + at]);
        if is_shared {
            weight = Vector::<f32, N8>::cast_from(shared_weights[at]);
        }
        let hi = Vector::<f32, N8>::cast_from(x[at]);
        let lo = Vector::<f32, N8>::cast_from(x[columns + at]);
        sum += weight * (hi + lo);
        at += UNITS;
    }
    let mut square = 0.0f32;
    let mut at = UNIT_POS as usize;
    while at < parts_of_norm as usize {
        square += squares[at];
        at += UNITS;
    }
    warm(next);
    let mut room = Shared::<[f32]>::new_slice(comptime!(PLANES * 2));
    let mut turn = Shared::<[u32]>::new_slice(1usize);
    let dot = plane_total(across(sum), 32usize);
    let square = plane_total(square, 32usize);
    if lane == 0usize {
        room[plane] = dot;
        room[PLANES + plane] = square;
    }
    sync_cube();
    if UNIT_POS == 0 {
        let mut dot = 0.0f32;
        let mut square = 0.0f32;
        #[unroll]
        for i in 0..PLANES {
            dot += room[i];
            square += room[comptime!(PLANES + i)];
        }
        let score = dot * (square * inverse_width + eps).inverse_sqrt();
        if is_shared {
            shared[0] = 1.0f32 / (1.0f32 + (-score).exp());
            turn[0] = u32::new(u32::MAX as i64);
        } else {
            scores[CUBE_POS_X as usize] = score;
            turn[0] = arrive(counter, 0usize);
        }
    }
    sync_cube();
    if turn[0] == comptime!(routing.experts as u32 - 1) {
        if UNIT_POS == 0 {
            counter[0] = 0u32;
        }
        choose(scores, ids, shares, routing);
    }
}

/// An expert is chosen if few are above it: every unit counts for its own.
#[cube]
fn choose(scores: &mut [f32], ids: &mut [u32], shares: &mut [f32], #[comptime] routing: Routing) {
    let padded = comptime!(routing.experts.next_multiple_of(UNITS));
    let mut all = Shared::<[f32]>::new_slice(padded);
    let mut top = Shared::<[f32]>::new_slice(routing.top_k);
    let unit = UNIT_POS as usize;
    #[unroll]
    for i in 0..comptime!(padded / UNITS) {
        let expert = comptime!(i * UNITS) + unit;
        let mut score = f32::new(f32::MIN);
        if comptime!(routing.experts.is_multiple_of(UNITS)) || expert < routing.experts {
            score = scores[expert];
        }
        all[expert] = score;
    }
    sync_cube();
    #[unroll]
    for i in 0..comptime!(padded / UNITS) {
        let expert = comptime!(i * UNITS) + unit;
        let score = all[expert];
        let mut above = 0u32;
        #[unroll(routing.experts <= 256)]
        for other in 0..routing.experts {
            let score_of = all[other];
            above += u32::cast_from(score_of > score || (score_of == score && other < expert));
        }
        if expert < routing.experts && above < comptime!(routing.top_k as u32) {
            ids[above as usize] = expert as u32;
            top[above as usize] = score;
        }
    }
    sync_cube();
    let largest = top[0];
    let mut sum = 0.0f32;
    if comptime!(routing.normalize) {
        #[unroll]
        for i in 0..routing.top_k {
            sum += (top[i] - largest).exp();
        }
    } else {
        for i in 0..routing.experts {
            sum += (all[i] - largest).exp();
        }
    }
    if unit < routing.top_k {
        shares[unit] = (top[unit] - largest).exp() / sum;
    }
}
