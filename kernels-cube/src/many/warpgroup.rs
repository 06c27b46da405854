//! Packed weights, decoded for the products of warpgroups: while one chunk is multiplied, the next one is decoded, so that
//! products are under way all the time.

use cubecl::prelude::*;

use super::kernel::Place;
use super::stage::{STAGES, Stage, copy};
use super::tiles::{load_scales, load_words};
use super::work::Work;
use crate::matrix_units::{commit, spot, wait};
use crate::packed::tiles::decode::{mask_of, operand, scale_bf16};
use crate::warpgroup::{self, STEPS};

type N4 = Const<4>;

/// Adds the products of all chunks.
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
    let blocking = work.blocking;
    let tiles = blocking.tiles;
    let chunks = comptime!(work.form.scaled().chunks());
    let pairs = place.chunks / chunks;
    let of = comptime!(work.form.scaled());
    let mut words = Array::<Vector<u32, N4>>::new(comptime!(tiles * of.vectors()));
    let mut scale = Array::<u32>::new(tiles);
    let mut a = Array::<Vector<u32, N4>>::new(comptime!(2 * STEPS * tiles));
    load_chunk(&mut words, codes, place, 0usize, work);
    load_scales(&mut scale, scales, place, pairs, 0usize, work);
    decode(&mut a, &words, &scale, 0usize, work);
    load_chunk(&mut words, codes, place, 1usize, work);
    for pair in 0..pairs {
        let mut later = Array::<u32>::new(tiles);
        load_scales(&mut later, scales, place, pairs, pair + 1usize, work);
        #[unroll]
        for c in 0..chunks {
            let chunk = pair * chunks + c;
            wait(comptime!(work.ahead() - 1), work.instructions);
            warpgroup::show_copies();
            sync_cube();
            if chunk + work.ahead() < place.chunks {
                copy(x, stage, place, chunk + work.ahead(), work);
            }
            commit(work.instructions);
            let columns = chunk % STAGES * blocking.vectors();
            let columns = spot(&stage.vectors, columns, work.instructions);
            let own = comptime!(c % 2 * STEPS * tiles);
            warpgroup::multiply(&a, own, &columns, tiles, blocking.groups);
            warpgroup::finish(1usize);
            if comptime!(c + 1 == chunks) {
                #[unroll]
                for i in 0..tiles {
                    scale[i] = later[i];
                }
            }
            decode(&mut a, &words, &scale, comptime!((c + 1) % chunks), work);
            load_chunk(&mut words, codes, place, chunk + 2usize, work);
        }
    }
    warpgroup::finish(0usize);
    #[unroll]
    for i in 0..tiles {
        #[unroll]
        for group in 0..blocking.groups {
            sums[comptime!(i * blocking.groups + group)] = warpgroup::sums(i, group);
        }
    }
}

/// The codes of chunk number `chunk`, of the last one where there are no more: one vector of each tile, of 8-bit codes two.
#[cube]
fn load_chunk(
    words: &mut Array<Vector<u32, N4>>,
    codes: &[Vector<u32, N4>],
    place: &Place,
    chunk: usize,
    #[comptime] work: Work,
) {
    let tiles = work.blocking.tiles;
    let vectors = comptime!(work.form.scaled().vectors());
    let last = place.chunks - 1usize;
    let chunk = select(chunk < last, chunk, last);
    #[unroll]
    for n in 0..vectors {
        let mut next = Array::<Vector<u32, N4>>::new(tiles);
        load_words(&mut next, codes, place, chunk * vectors + n, work);
        #[unroll]
        for i in 0..tiles {
            words[comptime!(n * tiles + i)] = next[i];
        }
    }
}

/// Decodes chunk number `c` of its pair of spans into the half of `a` that is its turn.
#[cube]
fn decode(
    a: &mut Array<Vector<u32, N4>>,
    words: &Array<Vector<u32, N4>>,
    scale: &Array<u32>,
    #[comptime] c: usize,
    #[comptime] work: Work,
) {
    let tiles = work.blocking.tiles;
    let of = comptime!(work.form.scaled());
    let span = comptime!(c / (of.chunks() / 2));
    #[unroll]
    for i in 0..tiles {
        let lo = scale_bf16(scale[i], comptime!(span * 2), of);
        let hi = scale_bf16(scale[i], comptime!(span * 2 + 1), of);
        #[unroll]
        for step in 0..STEPS {
            // Four parts are one vector, of 8-bit codes two.
            let parts = comptime!(STEPS / of.vectors());
            let codes = words[comptime!(step / parts * tiles + i)];
            a[comptime!(c % 2 * STEPS * tiles + step * tiles + i)] = operand(
                codes,
                lo,
                hi,
                comptime!(mask_of(of)).runtime(),
                comptime!(step % parts),
                of,
                work.instructions,
            );
        }
    }
}
