//! Planes that ask for their weights in turns.
//!
//! Where all planes of a multiprocessor ask at once, each has its last line late, and all multiply when the memory is idle
//! again. In turns the first ones multiply while the memory works for the others. A turn is a number of cycles: the weights
//! of another plane, which one could wait for instead, come too late. Measured: see benches/NOTES.md.
//!
//! The loads of `down` stay behind the wait, as all that keep their order; those of gates may be moved before it by a
//! compiler, which would undo it.

use cubecl::prelude::*;

use super::kernel::plane_of;
use super::work::Work;
use crate::clock;

/// Waits until it is the plane's turn.
#[cube]
pub(super) fn wait(#[comptime] work: Work) {
    let turn = plane_of(work) * work.turns / work.planes;
    clock::wait(turn as u32 * comptime!(work.turn() as u32));
}
