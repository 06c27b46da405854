//! Activations on their way through shared memory.

use cubecl::prelude::*;

use super::kernel::Place;
use super::work::{Mode, VECTORS, Work};
use crate::matrix_units::{copy_vector, unit};
use crate::packed::tiles::BLOCKS;

type N4 = Const<4>;

/// Chunks of activations in shared memory.
pub(super) const STAGES: usize = 4;

/// Chunks of 64 numbers of the cube's columns.
#[derive(CubeType)]
pub(super) struct Stage {
    pub(super) vectors: Shared<[Vector<u32, N4>]>,
    /// Where each unit's copies of a chunk come from, in vectors of `x`: here, since registers are what the kernel lacks.
    sources: Shared<[u32]>,
    /// Where the listed rows go, and their factors: what waits for them is all that is left at the end.
    pub(super) targets: Shared<[u32]>,
    pub(super) factors: Shared<[f32]>,
}

#[cube]
pub(super) fn stage(#[comptime] work: Work) -> Stage {
    let blocking = work.blocking;
    Stage {
        vectors: Shared::<[Vector<u32, N4>]>::new_aligned_slice(
            comptime!(STAGES * blocking.vectors()),
            16usize,
        ),
        sources: Shared::<[u32]>::new_slice(comptime!(blocking.copies() * blocking.units())),
        targets: Shared::<[u32]>::new_slice(work.targets()),
        factors: Shared::<[f32]>::new_slice(work.targets()),
    }
}

/// Finds out where this unit's copies come from.
#[cube]
pub(super) fn find_sources(
    stage: &mut Stage,
    order: &[u32],
    place: &Place,
    #[comptime] work: Work,
) {
    let unit = unit();
    let halves = work.halves();
    #[unroll]
    for i in 0..comptime!(work.blocking.copies()) {
        let at = i * work.blocking.units() + unit;
        let wanted = place.first + at / VECTORS;
        let column = select(wanted < place.end, wanted, place.end - 1usize);
        let mut row = column;
        if comptime!(work.mode == Mode::GateUp) {
            row = order[column / halves] as usize / place.slots * halves + column % halves;
        }
        let mut from = row * place.depth;
        if comptime!(work.form.is_tiles()) {
            // Vector `v` of a chunk has columns `v % 2 * 8 .. + 8` of its part of block `v / 2`.
            let block = comptime!(work.form.scaled().block / 8);
            from += unit % VECTORS / 2usize * block + unit % 2usize;
        }
        stage.sources[at] = from as u32;
    }
}

/// Finds out where the listed rows go.
#[cube]
pub(super) fn find_targets(
    stage: &mut Stage,
    order: &[u32],
    shares: &[f32],
    place: &Place,
    #[comptime] work: Work,
) {
    let halves = work.halves();
    let mut at = unit();
    while at < work.targets() {
        let wanted = place.first / halves + at;
        let last = place.end / halves - 1usize;
        let target = order[select(wanted < last, wanted, last)];
        stage.targets[at] = target;
        stage.factors[at] = shares[target as usize];
        at += work.blocking.units();
    }
}

/// Starts the copies of a chunk.
#[cube]
pub(super) fn copy(
    x: &[Vector<u32, N4>],
    stage: &mut Stage,
    place: &Place,
    chunk: usize,
    #[comptime] work: Work,
) {
    let blocking = work.blocking;
    let unit = unit();
    // All copies of a unit are of the same vector of a column.
    let at = chunk * VECTORS + unit % VECTORS;
    let mut inside = at;
    if comptime!(work.form.is_tiles()) {
        inside = tile_start(chunk, work);
    }
    if comptime!(work.form.has_taps()) {
        inside = at / place.depth * place.reach + at % place.depth;
    }
    let behind = at >= place.width;
    #[unroll]
    for i in 0..comptime!(blocking.copies()) {
        let at = i * blocking.units() + unit;
        if comptime!(blocking.vectors().is_multiple_of(blocking.units())) || at < blocking.vectors()
        {
            let column = at / VECTORS;
            let swizzle = column % 2usize * comptime!(work.swizzle());
            let to =
                chunk % STAGES * blocking.vectors() + column * VECTORS + ((at % VECTORS) ^ swizzle);
            let from = stage.sources[at] as usize + inside;
            if comptime!(work.form.is_tiles()) {
                copy_vector(x, from, &mut stage.vectors, to, work.instructions);
            } else if behind {
                // What weights behind their width meet.
                stage.vectors[to] = Vector::<u32, N4>::new(0u32);
            } else {
                copy_vector(x, from, &mut stage.vectors, to, work.instructions);
            }
        }
    }
}

/// The first vector of a chunk's part of block 0 of its span.
#[cube]
fn tile_start(chunk: usize, #[comptime] work: Work) -> usize {
    let block = comptime!(work.form.scaled().block);
    let steps = comptime!(block / 16);
    chunk / steps * comptime!(BLOCKS / 2 * block / 8) + chunk % steps * 2usize
}
