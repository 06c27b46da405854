//! Random numbers that are a function of their number.

use cubecl::prelude::*;

use super::{DRAWS, SEED, STAGE};

/// The first word of Philox 4x32-10 (Salmon et al., 2011) of the next draw, as 24 bits in `[0, 1)`: an f32 holds no more. A
/// host that takes 53 bits of the same two words has the same number but for those that are cut off.
#[cube]
pub(super) fn uniform(state: &[u32]) -> f32 {
    let mut a = state[DRAWS];
    let mut b = state[DRAWS + 1];
    let mut c = state[STAGE];
    let mut d = 0u32;
    let mut low = state[SEED];
    let mut high = state[SEED + 1];
    for _ in 0..10 {
        let first = u32::mul_hi(a, 0xD251_1F53u32);
        let second = u32::mul_hi(c, 0xCD9E_8D57u32);
        let next = second ^ b ^ low;
        b = c * 0xCD9E_8D57u32;
        c = first ^ d ^ high;
        d = a * 0xD251_1F53u32;
        a = next;
        low += 0x9E37_79B9u32;
        high += 0xBB67_AE85u32;
    }
    f32::cast_from(a >> 8u32) * 5.960_464_5e-8f32
}
