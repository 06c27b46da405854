//! Packed weights: a tile is already in the order of the first operand.

use cubecl::prelude::*;

use super::kernel::Place;
use super::stage::{STAGES, Stage, copy};
use super::work::{GROUP, VECTORS, Work};
use crate::matrix_units::{Exchange, commit, exchange, mma, read_behind, spot, wait};
use crate::packed::tiles::ROWS;
use crate::packed::tiles::decode::{mask_of, operand, scale_bf16};

type N4 = Const<4>;

/// Adds the products of all chunks. What is multiplied next is loaded before the products that it would otherwise wait
/// for.
#[cube]
pub(super) fn sum(
    sums: &mut Array<Vector<f32, N4>>,
    codes: &[Vector<u32, N4>],
    scales: &[u32],
    x: &[Vector<u32, N4>],
    stage: &mut Stage,
    place: &Place,
    #[comptime] work: Work,
) {
    let of = comptime!(work.form.scaled());
    let mut exchange = exchange(comptime!(work.blocking.planes()), work.instructions);
    let tiles = work.blocking.tiles;
    let steps = comptime!(of.vectors());
    let scales_of = comptime!(tiles * of.scale_words().max(1));
    let chunks = comptime!(of.chunks());
    let pairs = place.chunks / chunks;
    let mut words = Array::<Vector<u32, N4>>::new(tiles);
    let mut scale = Array::<u32>::new(scales_of);
    load_words(&mut words, codes, place, 0usize, work);
    load_scales(&mut scale, scales, place, pairs, 0usize, work);
    for pair in 0..pairs {
        let mut later = Array::<u32>::new(scales_of);
        load_scales(&mut later, scales, place, pairs, pair + 1usize, work);
        #[unroll]
        for c in 0..chunks {
            let chunk = pair * chunks + c;
            wait(comptime!(work.ahead() - 1), work.instructions);
            sync_cube();
            if chunk + work.ahead() < place.chunks {
                copy(x, stage, place, chunk + work.ahead(), work);
            }
            commit(work.instructions);
            #[unroll]
            for step in 0..steps {
                let mut next = Array::<Vector<u32, N4>>::new(tiles);
                let after = chunk * steps + comptime!(step + 1);
                load_words(&mut next, codes, place, after, work);
                multiply(
                    sums,
                    &words,
                    &scale,
                    stage,
                    chunk,
                    c,
                    step,
                    &mut exchange,
                    work,
                );
                #[unroll]
                for i in 0..tiles {
                    words[i] = next[i];
                }
            }
        }
        if comptime!(of.in_sums()) {
            rescale(sums, &scale, &later, pair + 1usize < pairs, work);
        }
        #[unroll]
        for i in 0..scales_of {
            scale[i] = later[i];
        }
    }
}

/// Brings sums in units of a pair's scales to those of the next pair, behind the last one to 1: there is no room in registers
/// for the sums of a pair beside those of all.
#[cube]
fn rescale(
    sums: &mut Array<Vector<f32, N4>>,
    scale: &Array<u32>,
    later: &Array<u32>,
    goes_on: bool,
    #[comptime] work: Work,
) {
    #[unroll]
    for i in 0..work.blocking.tiles {
        let mut factors = Array::<f32>::new(2usize);
        #[unroll]
        for half in 0..2usize {
            let at = comptime!(i * 2 + half);
            let next = select(goes_on, f32::from_bits(later[at]), 1.0f32);
            factors[half] = f32::from_bits(scale[at]) / next;
        }
        #[unroll]
        for group in 0..work.blocking.groups {
            let at = comptime!(i * work.blocking.groups + group);
            let mut sum = sums[at];
            #[unroll]
            for n in 0..4usize {
                sum.insert(n, sum.extract(n) * factors[comptime!(n / 2)]);
            }
            sums[at] = sum;
        }
    }
}

/// Tile `i` of this plane, the last one where there are no more.
#[cube]
fn tile_of(place: &Place, i: usize) -> usize {
    let last = place.tiles - 1usize;
    place.expert * place.tiles + select(place.tile + i < last, place.tile + i, last)
}

/// The vector of codes number `step` of each tile; the last one where there are no more. A chunk of 8-bit codes is two.
#[cube]
pub(super) fn load_words(
    words: &mut Array<Vector<u32, N4>>,
    codes: &[Vector<u32, N4>],
    place: &Place,
    step: usize,
    #[comptime] work: Work,
) {
    let count = place.chunks * comptime!(work.form.scaled().vectors());
    let step = select(step < count, step, count - 1usize);
    #[unroll]
    for i in 0..work.blocking.tiles {
        let at = tile_of(place, i) * count + step;
        words[i] = codes[at * 32usize + UNIT_POS_X as usize];
    }
}

/// The scales of a pair of spans, the last one where there are no more.
#[cube]
pub(super) fn load_scales(
    scale: &mut Array<u32>,
    scales: &[u32],
    place: &Place,
    pairs: usize,
    pair: usize,
    #[comptime] work: Work,
) {
    let last = pairs - 1usize;
    let pair = select(pair < last, pair, last);
    #[unroll]
    for i in 0..work.blocking.tiles {
        let at = tile_of(place, i) * pairs + pair;
        let lane = UNIT_POS_X as usize;
        if comptime!(work.form.scaled().in_sums()) {
            // Of rows `lane / 4` and 8 more.
            let own = at * ROWS + lane / 4usize;
            scale[comptime!(2 * i)] = scales[own];
            scale[comptime!(2 * i + 1)] = scales[own + comptime!(ROWS / 2)];
        } else if comptime!(work.form.scaled().in_values()) {
            scale[i] = scales[at * 32usize + lane];
        }
    }
}

/// Adds the products of the columns that one vector of codes has of one chunk, number `c` of its pair of spans.
#[cube]
fn multiply(
    sums: &mut Array<Vector<f32, N4>>,
    words: &Array<Vector<u32, N4>>,
    scale: &Array<u32>,
    stage: &mut Stage,
    chunk: usize,
    #[comptime] c: usize,
    #[comptime] step: usize,
    exchange: &mut Exchange,
    #[comptime] work: Work,
) {
    let blocking = work.blocking;
    let of = comptime!(work.form.scaled());
    let halves = comptime!(2 / of.vectors());
    let how = work.instructions;
    let lane = UNIT_POS_X as usize;
    let span = comptime!(c / (of.chunks() / 2));
    let side = UNIT_POS_Y as usize % blocking.across;
    let column = side * comptime!(blocking.groups * GROUP) + lane / 4usize;
    let base = chunk % STAGES * blocking.vectors() + column * VECTORS;
    let mut a = Array::<u32>::new(comptime!(blocking.tiles * 8));
    #[unroll]
    for n in 0..halves {
        let half = comptime!(step * halves + n);
        #[unroll]
        for i in 0..blocking.tiles {
            let lo = scale_bf16(scale[i], comptime!(span * 2), of);
            let hi = scale_bf16(scale[i], comptime!(span * 2 + 1), of);
            decode(&mut a, words[i], lo, hi, i, half, work);
        }
        let read = base + ((lane % 4usize * 2usize + half) ^ (column % 2usize));
        let read = spot(&stage.vectors, read, work.instructions);
        #[unroll]
        for group in 0..blocking.groups {
            let ahead = comptime!(group * GROUP * VECTORS);
            let v = read_behind(&stage.vectors, &read, ahead, work.instructions);
            #[unroll]
            for b in 0..2usize {
                #[unroll]
                for i in 0..blocking.tiles {
                    let at = comptime!((i * 2 + b) * 4);
                    let sum = comptime!(i * blocking.groups + group);
                    sums[sum] = mma(
                        &a,
                        at,
                        v.extract(comptime!(b * 2)),
                        v.extract(comptime!(b * 2 + 1)),
                        sums[sum],
                        exchange,
                        how,
                    );
                }
            }
        }
    }
}

/// Decodes what one vector of codes has of half a chunk, tile number `i`, times the scales of its upper and lower rows.
#[cube]
fn decode(
    a: &mut Array<u32>,
    vector: Vector<u32, N4>,
    lo: u32,
    hi: u32,
    #[comptime] i: usize,
    #[comptime] half: usize,
    #[comptime] work: Work,
) {
    let of = comptime!(work.form.scaled());
    #[unroll]
    for b in 0..2usize {
        // Half a chunk is half a vector, of 8-bit codes a whole one.
        let part = comptime!(if of.bytes { b } else { half * 2 + b });
        let mask = comptime!(mask_of(of)).runtime();
        let four = operand(vector, lo, hi, mask, part, of, work.instructions);
        #[unroll]
        for n in 0..4usize {
            a[comptime!((i * 2 + b) * 4 + n)] = four.extract(n);
        }
    }
}
