//! Weights of bf16 in rows: a lane has one vector of eight numbers of a row at a time, which two products take. They and
//! the activations meet in that order.

use cubecl::prelude::*;

use super::kernel::Place;
use super::stage::{STAGES, Stage, copy};
use super::work::{GROUP, VECTORS, Work};
use super::write::row_of;
use crate::matrix_units::{Exchange, commit, mma, read_behind, spot, wait};

type N4 = Const<4>;

/// Adds the products of all chunks, in halves of 32 numbers. What is multiplied [`Work::halves_ahead`] halves later is loaded
/// before the products that it would otherwise wait for.
#[cube]
pub(super) fn sum(
    sums: &mut Array<Vector<f32, N4>>,
    weights: &[Vector<u32, N4>],
    x: &[Vector<u32, N4>],
    stage: &mut Stage,
    place: &Place,
    exchange: &mut Exchange,
    #[comptime] work: Work,
) {
    let count = comptime!(work.blocking.tiles * 2);
    let ahead = work.halves_ahead();
    let turns = comptime!(ahead.div_ceil(2));
    let mut words = Array::<Vector<u32, N4>>::new(comptime!(ahead * count));
    #[unroll]
    for half in 0..ahead {
        load(
            &mut words,
            comptime!(half * count),
            weights,
            place,
            half,
            work,
        );
    }
    let mut first = 0usize;
    while first < place.chunks {
        #[unroll]
        for turn in 0..turns {
            let chunk = first + turn;
            if comptime!(turn == 0) || chunk < place.chunks {
                wait(comptime!(work.ahead() - 1), work.instructions);
                sync_cube();
                if chunk + work.ahead() < place.chunks {
                    copy(x, stage, place, chunk + work.ahead(), work);
                }
                commit(work.instructions);
                #[unroll]
                for half in 0..2usize {
                    let own = comptime!((turn * 2 + half) % ahead * count);
                    let mut next = Array::<Vector<u32, N4>>::new(count);
                    let later = chunk * 2usize + half + ahead;
                    load(&mut next, 0usize, weights, place, later, work);
                    multiply(sums, &words, own, stage, chunk, exchange, half, work);
                    #[unroll]
                    for i in 0..count {
                        words[comptime!(own + i)] = next[i];
                    }
                }
            }
        }
        first += turns;
    }
}

/// The lane's numbers of half chunk `step`, into vectors `to` and behind: of each tile rows `lane / 4` and 8 more. Behind the
/// width anything, which meets zeros.
#[cube]
fn load(
    words: &mut Array<Vector<u32, N4>>,
    #[comptime] to: usize,
    weights: &[Vector<u32, N4>],
    place: &Place,
    step: usize,
    #[comptime] work: Work,
) {
    let at = step * comptime!(VECTORS / 2) + UNIT_POS_X as usize % 4usize;
    let at = select(at < place.width, at, place.width - 1usize);
    #[unroll]
    for i in 0..work.blocking.tiles {
        #[unroll]
        for lower in 0..2usize {
            let row = row_of(place, i, lower, work);
            let row = select(row < place.rows, row, place.rows - 1usize);
            let row = place.expert * place.rows + row;
            words[comptime!(to + i * 2 + lower)] = weights[row * place.width + at];
        }
    }
}

/// Adds the products of one half of a chunk, whose weights are vectors `from` and behind.
#[cube]
fn multiply(
    sums: &mut Array<Vector<f32, N4>>,
    words: &Array<Vector<u32, N4>>,
    #[comptime] from: usize,
    stage: &mut Stage,
    chunk: usize,
    exchange: &mut Exchange,
    #[comptime] half: usize,
    #[comptime] work: Work,
) {
    let blocking = work.blocking;
    let lane = UNIT_POS_X as usize;
    let side = UNIT_POS_Y as usize % blocking.across;
    let column = side * comptime!(blocking.groups * GROUP) + lane / 4usize;
    let swizzle = column % 2usize * comptime!(work.swizzle());
    let vector = (lane % 4usize + comptime!(half * VECTORS / 2)) ^ swizzle;
    let read = chunk % STAGES * blocking.vectors() + column * VECTORS + vector;
    let read = spot(&stage.vectors, read, work.instructions);
    let mut a = Array::<u32>::new(comptime!(blocking.tiles * 8));
    #[unroll]
    for i in 0..blocking.tiles {
        #[unroll]
        for step in 0..2usize {
            #[unroll]
            for part in 0..4usize {
                // Upper and lower row of the first two columns, then of the others.
                let word = words[comptime!(from + i * 2 + part % 2)];
                a[comptime!((i * 2 + step) * 4 + part)] =
                    word.extract(comptime!(step * 2 + part / 2));
            }
        }
    }
    #[unroll]
    for group in 0..blocking.groups {
        let ahead = comptime!(group * GROUP * VECTORS);
        let v = read_behind(&stage.vectors, &read, ahead, work.instructions);
        #[unroll]
        for step in 0..2usize {
            #[unroll]
            for i in 0..blocking.tiles {
                let sum = comptime!(i * blocking.groups + group);
                sums[sum] = mma(
                    &a,
                    comptime!((i * 2 + step) * 4),
                    v.extract(comptime!(step * 2)),
                    v.extract(comptime!(step * 2 + 1)),
                    sums[sum],
                    exchange,
                    work.instructions,
                );
            }
        }
    }
}
