//! Activations on their way through shared memory.

use cubecl::prelude::*;

use super::kernel::Place;
use super::work::{Mode, VECTORS, Work};
use crate::matrix_units::{copy_behind, spot, unit};
use crate::packed::tiles::BLOCKS;

type N4 = Const<4>;

/// Chunks of activations in shared memory.
pub(super) const STAGES: usize = 4;

/// Chunks of 64 numbers of the cube's columns.
#[derive(CubeType)]
pub(super) struct Stage {
    pub(super) vectors: Shared<[Vector<u32, N4>]>,
    /// Where the listed rows come from, in vectors of `x`, for each unit's copies of a chunk: here, since registers are what
    /// the kernel lacks.
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
            work.alignment(),
        ),
        sources: Shared::<[u32]>::new_slice(work.sources()),
        targets: Shared::<[u32]>::new_slice(work.targets()),
        factors: Shared::<[f32]>::new_slice(work.targets()),
    }
}

/// Finds out where this unit's copies of listed rows come from.
#[cube]
pub(super) fn find_sources(
    stage: &mut Stage,
    order: &[u32],
    place: &Place,
    #[comptime] work: Work,
) {
    let unit = unit();
    let halves = work.halves();
    if comptime!(work.mode == Mode::GateUp) {
        #[unroll]
        for i in 0..comptime!(work.blocking.copies()) {
            let at = i * work.blocking.units() + unit;
            let wanted = place.first + at / VECTORS;
            let column = select(wanted < place.end, wanted, place.end - 1usize);
            let row = order[column / halves] as usize / place.slots * halves + column % halves;
            stage.sources[at] = (row * place.depth) as u32;
        }
    }
}

/// Where the rows of this unit's copies come from, in vectors of `x`: listed ones as [`find_sources`] found, others follow
/// one another.
#[cube]
fn sources(stage: &mut Stage, place: &Place, #[comptime] work: Work) -> Array<usize> {
    let units = work.blocking.units();
    let copies = comptime!(work.blocking.copies());
    let mut from = Array::<usize>::new(copies);
    let first = (place.first + unit() / VECTORS) * place.depth;
    let last = (place.end - 1usize) * place.depth;
    #[unroll]
    for i in 0..copies {
        if comptime!(work.mode == Mode::GateUp) {
            from[i] = stage.sources[i * units + unit()] as usize;
        } else {
            let wanted = first + comptime!(i * units / VECTORS) * place.depth;
            from[i] = select(wanted < last, wanted, last);
        }
    }
    from
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
    if comptime!(work.form.is_tiles() && !work.instructions.are_of_warpgroups()) {
        // Vector `v` of a chunk has columns `v % 2 * 8 .. + 8` of its part of block `v / 2`.
        let block = comptime!(work.form.scaled().block / 8);
        inside = tile_start(chunk, work) + unit % VECTORS / 2usize * block + unit % 2usize;
    }
    if comptime!(work.form.has_taps()) {
        inside = at / place.depth * place.reach + at % place.depth;
    }
    let behind = at >= place.width;
    let sources = sources(stage, place, work);
    // A unit's columns are a multiple of eight apart.
    let column = unit / VECTORS;
    let mut swizzle = column % 2usize * comptime!(work.swizzle());
    if comptime!(work.instructions.are_of_warpgroups()) {
        swizzle = column % 8usize;
    }
    let first =
        chunk % STAGES * blocking.vectors() + column * VECTORS + ((unit % VECTORS) ^ swizzle);
    let spot = spot(&stage.vectors, first, work.instructions);
    #[unroll]
    for i in 0..comptime!(blocking.copies()) {
        let ahead = comptime!(i * blocking.units());
        if comptime!(blocking.vectors().is_multiple_of(blocking.units()))
            || ahead + unit < blocking.vectors()
        {
            let from = sources[i] + inside;
            if comptime!(work.form.is_tiles()) {
                copy_behind(x, from, &mut stage.vectors, &spot, ahead, work.instructions);
            } else if behind {
                // What weights behind their width meet.
                stage.vectors[first + ahead] = Vector::<u32, N4>::new(0u32);
            } else {
                copy_behind(x, from, &mut stage.vectors, &spot, ahead, work.instructions);
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
