//! What a plane makes of a tile of keys and values in shared memory.

use cubecl::prelude::*;

use super::rows::Visible;
use super::{GROUP, LOWEST, N4, Room, STEP, Shape, Sums, TILE, UNSEEN, VECTOR};
use crate::matrix_units::{Exchange, exp2, mma, pack_bf16, quad_largest, transposed, unit};

/// Groups of keys that are loaded at a time: products that do not wait for one another.
const AHEAD: usize = 4;

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
    let ahead = comptime!(if groups < AHEAD { groups } else { AHEAD });
    let (g, t) = (UNIT_POS_X as usize / 4usize, UNIT_POS_X as usize % 4usize);
    let first = side + g * shape.key_stride() + t;
    #[unroll]
    for i in 0..comptime!(blocking.tiles * groups) {
        scores[i] = Vector::<f32, N4>::new(0.0f32);
    }
    #[unroll(shape.is_unrolled())]
    for step in 0..shape.steps() {
        let mut a = Array::<u32>::new(comptime!(blocking.tiles * 8));
        #[unroll]
        for tile in 0..blocking.tiles {
            let from = tile * shape.steps() + step;
            #[unroll]
            for u in 0..2usize {
                let mut words = Vector::<u32, N4>::new(0u32);
                if comptime!(!blocking.held) {
                    words = room.queries[(from * 2usize + u) * blocking.units() + unit()];
                }
                #[unroll]
                for word in 0..4usize {
                    a[comptime!(tile * 8 + u * 4 + word)] = if comptime!(blocking.held) {
                        queries[from * 8usize + comptime!(u * 4 + word)]
                    } else {
                        words.extract(word)
                    };
                }
            }
        }
        #[unroll(shape.is_unrolled())]
        for some in 0..comptime!(groups / ahead) {
            let mut keys = Array::<Vector<u32, N4>>::new(ahead);
            #[unroll]
            for j in 0..ahead {
                let row = (some * ahead + j) * comptime!(GROUP * shape.key_stride());
                keys[j] = room.stage[first + (row + step * comptime!(STEP / VECTOR))];
            }
            #[unroll]
            for u in 0..2usize {
                #[unroll(shape.is_unrolled())]
                for j in 0..ahead {
                    let b0 = keys[j].extract(comptime!(u * 2));
                    let b1 = keys[j].extract(comptime!(u * 2 + 1));
                    #[unroll]
                    for tile in 0..blocking.tiles {
                        let sum = comptime!(tile * groups) + some * ahead + j;
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
            sums.outputs[at] = sums.outputs[at] * kept;
        }
    }
}

/// Adds the tile's weighted values.
#[cube]
pub(super) fn add(
    sums: &mut Sums,
    weights: &Array<u32>,
    room: &mut Room,
    side: usize,
    #[comptime] shape: Shape,
) {
    let (groups, columns) = comptime!((shape.key_groups(), shape.groups()));
    let stride = shape.value_stride();
    let first = side + shape.key_vectors();
    #[unroll(shape.is_unrolled())]
    for keys in 0..comptime!(shape.blocking.keys / TILE) {
        #[unroll(shape.is_unrolled())]
        for pair in 0..comptime!(columns.div_ceil(2)) {
            let from = first + (keys * comptime!(TILE * stride) + pair * 2usize);
            let b = transposed(&room.stage, from, stride, shape.instructions);
            #[unroll]
            for side in 0..2usize {
                let column = pair * 2usize + side;
                let b0 = b.extract(comptime!(side * 2));
                let b1 = b.extract(comptime!(side * 2 + 1));
                if column < columns {
                    #[unroll]
                    for tile in 0..shape.blocking.tiles {
                        let sum = comptime!(tile * columns) + column;
                        sums.outputs[sum] = mma(
                            weights,
                            comptime!(tile * groups * 2) + keys * 4usize,
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
}
