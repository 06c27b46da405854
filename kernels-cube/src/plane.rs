//! What the lanes of a plane find together.

use cubecl::prelude::*;

/// The sum over groups of `count` lanes; every lane of the plane takes part.
#[cube]
pub(crate) fn plane_total(value: f32, #[comptime] count: usize) -> f32 {
    let mut sum = value;
    #[unroll]
    for step in 0..comptime!(count.ilog2()) {
        sum += plane_shuffle_xor(sum, comptime!(count as u32 >> (step + 1)));
    }
    sum
}

/// The largest number of all lanes, by an instruction of NVIDIA GPUs.
#[cube]
pub(crate) fn plane_largest(value: u32) -> u32 {
    let d: u32;
    gpu_asm!("redux.sync.max.u32 {d}, {a}, 0xffffffff;", d = out(_) d, a = in(_) value, options(nomem));
    d
}

/// The smallest one, likewise.
#[cube]
pub(crate) fn plane_smallest(value: u32) -> u32 {
    let d: u32;
    gpu_asm!("redux.sync.min.u32 {d}, {a}, 0xffffffff;", d = out(_) d, a = in(_) value, options(nomem));
    d
}
