//! What a plane makes of a tile of keys and values in shared memory.

use cubecl::prelude::*;

use super::rows::Visible;
use super::{GROUP, LOWEST, N4, Room, STEP, Shape, Sums, TILE, UNSEEN, VECTOR};
use crate::matrix_units::{
    Exchange, Spot, exp2, matrices, mma, pack_bf16, quad_largest, transposed, unit,
};

/// Sums of nothing.
#[cube]
pub(super) fn begin(sums: &mut Sums, #[comptime] shape: Shape) {
    #[unroll]
    for i in 0..comptime!(shape.blocking.tiles * shape.groups()) {
        sums.outputs[i] = Vector::<f32, N4>::new(0.0f32);
    }
    #[unroll]
    for i in 0..comptime!(shape.blocking.tiles * 2) {
        sums.largest[i] = f32::new(LOWEST);
        sums.totals[i] = 0.0f32;
    }
}

/// The scores of a tile, `[tiles, key_groups]`, not scaled.
#[cube]
pub(super) fn score(
    scores: &mut Array<Vector<f32, N4>>,
    queries: &Array<u32>,
    room: &mut Room,
    side: usize,
    #[comptime] shape: Shape,
) {
    let blocking = shape.blocking;
    let groups = shape.key_groups();
    let ahead = shape.keys_ahead();
    let (g, t) = (UNIT_POS_X as usize / 4usize, UNIT_POS_X as usize % 4usize);
    let first = side + g * shape.key_stride() + t;
    #[unroll]
    for i in 0..comptime!(blocking.tiles * groups) {
        scores[i] = Vector::<f32, N4>::new(0.0f32);
    }
    let count = comptime!(shape.steps() * groups / ahead);
    let mut next = Array::<Vector<u32, N4>>::new(ahead);
    load_keys(&mut next, room, first, 0usize, shape);
    let mut a = Array::<u32>::new(comptime!(blocking.tiles * 8));
    #[unroll(shape.is_unrolled())]
    for some in 0..count {
        let (step, part) = (
            some / comptime!(groups / ahead),
            some % comptime!(groups / ahead),
        );
        if part == 0usize {
            load_queries(&mut a, queries, room, step, shape);
        }
        let mut now = Array::<Vector<u32, N4>>::new(ahead);
        #[unroll]
        for j in 0..ahead {
            now[j] = next[j];
        }
        if some + 1usize < count {
            load_keys(&mut next, room, first, some + 1usize, shape);
        }
        #[unroll]
        for u in 0..2usize {
            #[unroll(shape.is_unrolled())]
            for j in 0..ahead {
                let b0 = now[j].extract(comptime!(u * 2));
                let b1 = now[j].extract(comptime!(u * 2 + 1));
                #[unroll]
                for tile in 0..blocking.tiles {
                    let sum = comptime!(tile * groups) + part * ahead + j;
                    scores[sum] = mma(
                        &a,
                        comptime!(tile * 8 + u * 4),
                        b0,
                        b1,
                        scores[sum],
                        &mut room.exchange,
                        shape.instructions,
                    );
                }
            }
        }
    }
}

/// The queries of a step, `[tiles, 2, 4]`.
#[cube]
fn load_queries(
    a: &mut Array<u32>,
    queries: &Array<u32>,
    room: &mut Room,
    step: usize,
    #[comptime] shape: Shape,
) {
    let blocking = shape.blocking;
    #[unroll]
    for i in 0..comptime!(blocking.tiles * 2) {
        let from = (comptime!(i / 2 * shape.steps()) + step) * 2usize + comptime!(i % 2);
        let mut words = Vector::<u32, N4>::new(0u32);
        if comptime!(!blocking.held) {
            words = room.queries[from * blocking.units() + unit()];
        }
        #[unroll]
        for word in 0..4usize {
            a[comptime!(i * 4 + word)] = if comptime!(blocking.held) {
                queries[from * 4usize + word]
            } else {
                words.extract(word)
            };
        }
    }
}

/// Vectors of some groups of keys, of one step.
#[cube]
fn load_keys(
    next: &mut Array<Vector<u32, N4>>,
    room: &mut Room,
    first: usize,
    some: usize,
    #[comptime] shape: Shape,
) {
    let groups = shape.key_groups();
    let ahead = shape.keys_ahead();
    let (step, part) = (
        some / comptime!(groups / ahead),
        some % comptime!(groups / ahead),
    );
    // From here on at constant distances, which loads have for nothing.
    let own = &room.stage[first..];
    #[unroll]
    for j in 0..ahead {
        let row = (part * ahead + j) * comptime!(GROUP * shape.key_stride());
        next[j] = own[row + step * comptime!(STEP / VECTOR)];
    }
}

/// Takes away the scores of keys from `base` on that rows do not see.
#[cube]
pub(super) fn mask(
    scores: &mut Array<Vector<f32, N4>>,
    seen: &Visible,
    base: usize,
    #[comptime] shape: Shape,
) {
    let groups = shape.key_groups();
    let first = base as u32 + UNIT_POS_X % 4u32 * 2u32;
    #[unroll]
    for tile in 0..shape.blocking.tiles {
        #[unroll]
        for j in 0..groups {
            let score = scores[comptime!(tile * groups + j)];
            let mut masked = Vector::<f32, N4>::new(0.0f32);
            #[unroll]
            for i in 0..4usize {
                let key = first + comptime!((j * GROUP + i % 2) as u32);
                let row = comptime!(tile * 2 + i / 2);
                let is_seen = key >= seen.starts[row] && key < seen.ends[row];
                masked.insert(i, select(is_seen, score.extract(i), f32::new(UNSEEN)));
            }
            scores[comptime!(tile * groups + j)] = masked;
        }
    }
}

/// From scores to weights, `[tiles, key_groups, 2]`: powers of two over the largest score so far.
#[cube]
pub(super) fn weigh(
    scores: &Array<Vector<f32, N4>>,
    weights: &mut Array<u32>,
    sums: &mut Sums,
    exchange: &mut Exchange,
    scale: f32,
    #[comptime] shape: Shape,
) {
    let instructions = shape.instructions;
    let (groups, columns) = comptime!((shape.key_groups(), shape.groups()));
    #[unroll]
    for tile in 0..shape.blocking.tiles {
        let mut kept = Vector::<f32, N4>::new(0.0f32);
        #[unroll]
        for half in 0..2usize {
            let row = comptime!(tile * 2 + half);
            let mut highest = sums.largest[row];
            #[unroll]
            for j in 0..groups {
                let score = scores[comptime!(tile * groups + j)];
                highest = highest.max(score.extract(comptime!(half * 2)));
                highest = highest.max(score.extract(comptime!(half * 2 + 1)));
            }
            let highest = quad_largest(highest, exchange, instructions);
            let offset = highest * -scale;
            let factor = exp2((sums.largest[row] - highest) * scale, instructions);
            let mut total = sums.totals[row] * factor;
            #[unroll]
            for j in 0..groups {
                let score = scores[comptime!(tile * groups + j)];
                // In an array, since what an instruction gives would be passed to another as its address.
                let mut two = Array::<f32>::new(2usize);
                #[unroll]
                for odd in 0..2usize {
                    let above = score.extract(comptime!(half * 2 + odd)) * scale + offset;
                    two[odd] = exp2(above, instructions);
                }
                total += two[0] + two[1];
                weights[comptime!((tile * groups + j) * 2 + half)] =
                    pack_bf16(two[0], two[1], instructions);
            }
            sums.largest[row] = highest;
            sums.totals[row] = total;
            kept.insert(comptime!(half * 2), factor);
            kept.insert(comptime!(half * 2 + 1), factor);
        }
        #[unroll]
        for column in 0..columns {
            let at = comptime!(tile * columns + column);
            sums.outputs[at] *= kept;
        }
    }
}

/// Adds the tile's weighted values. `zero` is that, which compilers do not know.
#[cube]
pub(super) fn add(
    sums: &mut Sums,
    weights: &Array<u32>,
    room: &mut Room,
    side: usize,
    zero: usize,
    #[comptime] shape: Shape,
) {
    let (groups, columns) = comptime!((shape.key_groups(), shape.groups()));
    let (pairs, count) = comptime!((shape.pairs(), shape.value_loads()));
    let ahead = shape.ahead();
    let is_ahead = comptime!(shape.is_unrolled() && pairs.is_multiple_of(shape.ahead()));
    let values = matrices(
        &room.stage,
        side + shape.key_vectors(),
        shape.value_stride(),
        shape.instructions,
    );
    let mut next = Array::<Vector<u32, N4>>::new(ahead);
    load_values(&mut next, room, &values, 0usize, shape);
    #[unroll(shape.is_unrolled())]
    for some in 0..comptime!(count.div_ceil(ahead)) {
        let mut now = Array::<Vector<u32, N4>>::new(ahead);
        #[unroll]
        for j in 0..ahead {
            now[j] = next[j];
        }
        load_values(&mut next, room, &values, some + 1usize, shape);
        // Nothing, but the last product waits for it: else loads would be put off to where their values are needed.
        let mut nothing = 0u32;
        if comptime!(is_ahead) {
            #[unroll]
            for j in 0..ahead {
                nothing ^= next[j].extract(0usize);
            }
            nothing &= zero as u32;
        }
        #[unroll]
        for i in 0..comptime!(ahead * 2) {
            let load = some * ahead + comptime!(i / 2);
            let column = load % pairs * 2usize + comptime!(i % 2);
            let b0 = now[comptime!(i / 2)].extract(comptime!(i % 2 * 2));
            let last = comptime!(is_ahead && i + 1 == ahead * 2);
            let word = now[comptime!(i / 2)].extract(comptime!(i % 2 * 2 + 1));
            let b1 = if comptime!(last) {
                word ^ nothing
            } else {
                word
            };
            if load < count && column < columns {
                #[unroll]
                for tile in 0..shape.blocking.tiles {
                    let sum = comptime!(tile * columns) + column;
                    sums.outputs[sum] = mma(
                        weights,
                        comptime!(tile * groups * 2) + load / pairs * 4usize,
                        b0,
                        b1,
                        sums.outputs[sum],
                        &mut room.exchange,
                        shape.instructions,
                    );
                }
            }
        }
    }
}

/// The values of some pairs of groups of columns, as second operands.
#[cube]
fn load_values(
    next: &mut Array<Vector<u32, N4>>,
    room: &mut Room,
    values: &Spot,
    some: usize,
    #[comptime] shape: Shape,
) {
    let (pairs, stride) = comptime!((shape.pairs(), shape.value_stride()));
    let ahead = shape.ahead();
    #[unroll]
    for j in 0..ahead {
        let load = some * ahead + j;
        if load < shape.value_loads() {
            let from = load / pairs * comptime!(TILE * stride) + load % pairs * 2usize;
            next[j] = transposed(&room.stage, values, from, stride, shape.instructions);
        }
    }
}
