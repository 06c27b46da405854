//! Packed weights: a tile is already in the order of the first operand.

use cubecl::prelude::*;

use super::kernel::Place;
use super::stage::{STAGES, Stage, copy};
use super::work::{GROUP, VECTORS, Work};
use crate::matrix_units::{commit, read_behind, spot, wait};
use crate::packed::tiles::decode::{
    mma, mul_bf16x2, scale_bf16, values0, values1, values2, values3,
};

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
    let tiles = work.blocking.tiles;
    let chunks = comptime!(work.form.scaled().chunks());
    let pairs = place.chunks / chunks;
    let mut words = Array::<Vector<u32, N4>>::new(tiles);
    let mut scale = Array::<u32>::new(tiles);
    load_words(&mut words, codes, place, 0usize, work);
    load_scales(&mut scale, scales, place, pairs, 0usize, work);
    for pair in 0..pairs {
        let mut later = Array::<u32>::new(tiles);
        load_scales(&mut later, scales, place, pairs, pair + 1usize, work);
        #[unroll]
        for c in 0..chunks {
            let chunk = pair * chunks + c;
            wait(comptime!(STAGES - 2), work.instructions);
            sync_cube();
            if chunk + comptime!(STAGES - 1) < place.chunks {
                copy(x, stage, place, chunk + comptime!(STAGES - 1), work);
            }
            commit(work.instructions);
            let mut next = Array::<Vector<u32, N4>>::new(tiles);
            load_words(&mut next, codes, place, chunk + 1usize, work);
            multiply(sums, &words, &scale, stage, chunk, c, work);
            #[unroll]
            for i in 0..tiles {
                words[i] = next[i];
            }
        }
        #[unroll]
        for i in 0..tiles {
            scale[i] = later[i];
        }
    }
}

/// Tile `i` of this plane, the last one where there are no more.
#[cube]
fn tile_of(place: &Place, i: usize) -> usize {
    let last = place.tiles - 1usize;
    place.expert * place.tiles + select(place.tile + i < last, place.tile + i, last)
}

/// The codes of chunk number `chunk`; of the last one where there are no more.
#[cube]
pub(super) fn load_words(
    words: &mut Array<Vector<u32, N4>>,
    codes: &[Vector<u32, N4>],
    place: &Place,
    chunk: usize,
    #[comptime] work: Work,
) {
    let count = place.chunks;
    let chunk = select(chunk < count, chunk, count - 1usize);
    #[unroll]
    for i in 0..work.blocking.tiles {
        let at = tile_of(place, i) * count + chunk;
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
        scale[i] = scales[at * 32usize + UNIT_POS_X as usize];
    }
}

/// Adds the products of one chunk, number `c` of its pair of spans.
#[cube]
fn multiply(
    sums: &mut Array<Vector<f32, N4>>,
    words: &Array<Vector<u32, N4>>,
    scale: &Array<u32>,
    stage: &mut Stage,
    chunk: usize,
    #[comptime] c: usize,
    #[comptime] work: Work,
) {
    let blocking = work.blocking;
    let scaled = comptime!(work.form.scaled());
    let lane = UNIT_POS_X as usize;
    let span = comptime!(c / (scaled.chunks() / 2));
    let side = UNIT_POS_Y as usize % blocking.across;
    let column = side * comptime!(blocking.groups * GROUP) + lane / 4usize;
    let base = chunk % STAGES * blocking.vectors() + column * VECTORS;
    let mut a = Array::<u32>::new(comptime!(blocking.tiles * 8));
    #[unroll]
    for half in 0..2usize {
        #[unroll]
        for i in 0..blocking.tiles {
            let lo = scale_bf16(scale[i], comptime!(span * 2), scaled.e8m0);
            let hi = scale_bf16(scale[i], comptime!(span * 2 + 1), scaled.e8m0);
            #[unroll]
            for b in 0..2usize {
                let word = words[i].extract(comptime!(half * 2 + b));
                let at = comptime!((i * 2 + b) * 4);
                a[at] = mul_bf16x2(values0(word), lo);
                a[comptime!(at + 1)] = mul_bf16x2(values1(word), hi);
                a[comptime!(at + 2)] = mul_bf16x2(values2(word), lo);
                a[comptime!(at + 3)] = mul_bf16x2(values3(word), hi);
            }
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
                        a[at],
                        a[comptime!(at + 1)],
                        a[comptime!(at + 2)],
                        a[comptime!(at + 3)],
                        v.extract(comptime!(b * 2)),
                        v.extract(comptime!(b * 2 + 1)),
                        sums[sum],
                    );
                }
            }
        }
    }
}
