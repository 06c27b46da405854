//! A token at a time: the launches of a decoding step, over buffers that never move, so that they can be captured.
//!
//! What changes from step to step lies in [`Control`](crate::control::Control) on the device. A layer is six launches: the product for queries, keys
//! and values; attention with norms, rotation and the write into the cache; the output product, added to the residual row;
//! the choice of experts; their gate and up; their sum, added to the residual row.

mod attend;
mod enter;
mod router;
mod stack;
mod step;

pub use attend::{Attend, Attended, Cache, attend};
pub use enter::{Embedding, Entry, leave};
pub use router::{Choice, Router, Routing, router};
pub use stack::{FeedForward, Layer, Node, Shared, Stack};
pub use step::Step;

use cubecl::prelude::*;

/// Two numbers rounded to bf16, the first in the lower half of the word.
#[cube]
pub(crate) fn pack_bf16(lo: f32, hi: f32) -> u32 {
    let d: u32;
    gpu_asm!("cvt.rn.bf16x2.f32 {d}, {h}, {l};", d = out(_) d, h = in(_) hi, l = in(_) lo, options(pure, nomem));
    d
}

/// Makes what this unit's cube wrote before a barrier visible to others, and returns how many cubes came before.
#[cube]
pub(crate) fn arrive(counters: &mut [u32], at: usize) -> u32 {
    let address = counters[at..].as_ptr();
    let before: u32;
    gpu_asm!("atom.acq_rel.gpu.global.add.u32 {d}, [{a}], 1;", d = out(_) before, a = in(_) address);
    before
}

/// Asks for memory that the next launch reads to be brought into the cache, by so many units together.
///
/// - unit: which of them this is
#[cube]
pub(crate) fn warm(memory: &[Vector<u32, Const<4>>], unit: usize, units: usize) {
    // A line of the cache has 128 bytes.
    let lines = memory.len() / 8usize;
    let mut line = unit;
    while line < lines {
        let address = memory[line * 8usize..].as_ptr();
        gpu_asm!("prefetch.global.L2 [{a}];", a = in(_) address, options(nomem));
        line += units;
    }
}
