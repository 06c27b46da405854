//! The choice of experts for the normed row: a cube an expert, of which the last to finish chooses.

use cubecl::prelude::*;

use super::{arrive, warm};
use crate::Buffer;
use crate::few::{Row, Rows};
use crate::linear::across;
use crate::plane::{plane_largest, plane_smallest, plane_total};

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
    /// How many are chosen, at most 32.
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
            Steps {
                vectors: (weights.width / 8).div_ceil(UNITS),
                partial: !(weights.width / 8).is_multiple_of(UNITS),
                squares: row.squares.len().div_ceil(UNITS),
            },
        );
    }
}

/// How often a unit loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Steps {
    /// Vectors of a row.
    vectors: usize,
    /// Whether some units have one less.
    partial: bool,
    /// Sums of squares.
    squares: usize,
}

/// `at`, or the first place where that is behind the last.
#[cube]
fn within(at: usize, count: usize) -> usize {
    select(at < count, at, 0usize)
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
    #[comptime] steps: Steps,
) {
    let lane = UNIT_POS_X as usize;
    let plane = UNIT_POS_Y as usize;
    let is_shared = CUBE_POS_X as usize == routing.experts;
    let (score, squared) = parts_of(
        weights,
        shared_weights,
        x,
        squares,
        next,
        width as usize,
        columns as usize,
        parts_of_norm as usize,
        is_shared,
        steps,
    );
    let mut room = Shared::<[f32]>::new_slice(comptime!(PLANES * 2));
    let mut turn = Shared::<[u32]>::new_slice(1usize);
    let dot = plane_total(score, 32usize);
    let square = plane_total(squared, 32usize);
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
        if plane == 0usize {
            choose(scores, ids, shares, routing);
        }
    }
}

/// This unit's parts of the cube's score and of the sum of squares; all loads come before what needs one of them.
#[cube]
fn parts_of(
    weights: &[Vector<half::bf16, N8>],
    shared_weights: &[Vector<half::bf16, N8>],
    x: &[Vector<half::bf16, N8>],
    squares: &[f32],
    next: &[Vector<u32, Const<4>>],
    width: usize,
    columns: usize,
    parts_of_norm: usize,
    is_shared: bool,
    #[comptime] steps: Steps,
) -> (f32, f32) {
    let expert = select(is_shared, 0usize, CUBE_POS_X as usize);
    let mut parts = Array::<Vector<half::bf16, N8>>::new(comptime!(3 * steps.vectors));
    #[unroll]
    for i in 0..steps.vectors {
        let at = within(comptime!(i * UNITS) + UNIT_POS as usize, width);
        parts[comptime!(i * 3)] = weights[expert * width + at];
        parts[comptime!(i * 3 + 1)] = x[at];
        parts[comptime!(i * 3 + 2)] = x[columns + at];
    }
    let mut square = Array::<f32>::new(steps.squares);
    #[unroll]
    for i in 0..steps.squares {
        let at = comptime!(i * UNITS) + UNIT_POS as usize;
        let of = squares[within(at, parts_of_norm)];
        square[i] = select(at < parts_of_norm, of, 0.0f32);
    }
    if is_shared {
        #[unroll]
        for i in 0..steps.vectors {
            let at = within(comptime!(i * UNITS) + UNIT_POS as usize, width);
            parts[comptime!(i * 3)] = shared_weights[at];
        }
    }
    warm(next, ABSOLUTE_POS, CUBE_COUNT * UNITS);
    let mut sum = Vector::<f32, N8>::new(0.0f32);
    #[unroll]
    for i in 0..steps.vectors {
        let weight = Vector::<f32, N8>::cast_from(parts[comptime!(i * 3)]);
        let hi = Vector::<f32, N8>::cast_from(parts[comptime!(i * 3 + 1)]);
        let lo = Vector::<f32, N8>::cast_from(parts[comptime!(i * 3 + 2)]);
        if comptime!(!steps.partial) || comptime!(i * UNITS) + (UNIT_POS as usize) < width {
            sum += weight * (hi + lo);
        }
    }
    let mut squared = 0.0f32;
    #[unroll]
    for i in 0..steps.squares {
        squared += square[i];
    }
    (across(sum), squared)
}

/// Chooses by one plane: the largest of the scores that are left, as often as experts are wanted.
#[cube]
fn choose(scores: &mut [f32], ids: &mut [u32], shares: &mut [f32], #[comptime] routing: Routing) {
    let lane = UNIT_POS_X;
    let own = comptime!(routing.experts.div_ceil(32));
    // Numbers that are ordered as the scores are; 0 is below all.
    let mut keys = Array::<u32>::new(own);
    #[unroll]
    for j in 0..own {
        let at = comptime!(j * 32) + lane as usize;
        let inside = at < routing.experts;
        let score = scores[select(inside, at, 0usize)];
        keys[j] = select(inside, ordered(score), 0u32);
    }
    // A mutable number handed to an instruction would be passed as its address: an element of an array is not.
    let mut found = Array::<u32>::new(2usize);
    let mut largest = 0.0f32;
    let mut score = f32::new(f32::MIN);
    let mut sum = 0.0f32;
    for number in 0..comptime!(routing.top_k as u32) {
        found[0] = keys[0];
        #[unroll]
        for j in 1..own {
            found[0] = found[0].max(keys[j]);
        }
        found[0] = plane_largest(found[0]);
        found[1] = 0xFFFF_FFFFu32;
        #[unroll]
        for j in 0..own {
            let back = comptime!(own - 1 - j);
            let expert = comptime!(back as u32 * 32) + lane;
            found[1] = select(keys[back] == found[0], expert, found[1]);
        }
        found[1] = plane_smallest(found[1]);
        #[unroll]
        for j in 0..own {
            let taken = comptime!(j as u32 * 32) + lane == found[1];
            keys[j] = select(taken, 0u32, keys[j]);
        }
        let best = restored(found[0]);
        largest = select(number == 0u32, best, largest);
        if lane == number {
            score = best;
            ids[number as usize] = found[1];
        }
    }
    if comptime!(routing.normalize) {
        sum = select(
            lane < comptime!(routing.top_k as u32),
            (score - largest).exp(),
            0.0f32,
        );
    } else {
        #[unroll]
        for j in 0..own {
            let at = comptime!(j * 32) + lane as usize;
            let inside = at < routing.experts;
            let score = scores[select(inside, at, 0usize)];
            sum += select(inside, (score - largest).exp(), 0.0f32);
        }
    }
    let sum = plane_total(sum, 32usize);
    if lane < comptime!(routing.top_k as u32) {
        shares[lane as usize] = (score - largest).exp() / sum;
    }
}

/// A number that is ordered among others as the score is.
#[cube]
fn ordered(score: f32) -> u32 {
    let bits = u32::reinterpret(score);
    select(bits >= 0x8000_0000u32, !bits, bits | 0x8000_0000u32)
}

/// The score of such a number.
#[cube]
fn restored(key: u32) -> f32 {
    f32::from_bits(select(key >= 0x8000_0000u32, key & 0x7FFF_FFFFu32, !key))
}
