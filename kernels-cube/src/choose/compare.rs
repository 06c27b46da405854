//! A draw from few candidates, each compared with all.

use cubecl::prelude::*;

use super::TOP_P;
use super::digits::{Weighed, weight};
use super::random::uniform;

/// Candidates at most.
pub(super) const FEW: usize = 256;

/// Keys in the order of their tokens.
#[derive(CubeType)]
pub(super) struct Candidates {
    pub(super) keys: Shared<[u32]>,
    pub(super) ids: Shared<[u32]>,
    weights: Shared<[f32]>,
}

#[cube]
pub(super) fn candidates() -> Candidates {
    Candidates {
        keys: Shared::<[u32]>::new_slice(FEW),
        ids: Shared::<[u32]>::new_slice(FEW),
        weights: Shared::<[f32]>::new_slice(FEW),
    }
}

/// Draws one of `count` candidates, the `top` largest keys and those that equal the last of them being among them.
#[cube]
pub(super) fn compare(
    candidates: &mut Candidates,
    count: usize,
    weighed: &Weighed,
    top: u32,
    state: &[u32],
    choice: &mut Shared<[u32]>,
) {
    let unit = UNIT_POS as usize;
    let own = select(unit < count, unit, 0usize);
    sync_cube();
    let key = candidates.keys[own];
    let mut larger = 0u32;
    for i in 0..count {
        larger += select(candidates.keys[i] > key, 1u32, 0u32);
    }
    let mut share = 0.0f32;
    if larger < top {
        share = weight(key, weighed.largest, weighed.temperature);
    }
    if unit < count {
        candidates.weights[unit] = share;
    }
    sync_cube();
    let top_p = f32::from_bits(state[TOP_P]);
    if weighed.temperature != 0.0f32 && top_p < 1.0f32 {
        let mut total = 0.0f32;
        // Its own and all that are dropped before it: the first among equals are dropped first.
        let mut below = 0.0f32;
        for i in 0..count {
            let other = candidates.keys[i];
            let added = candidates.weights[i];
            total += added;
            below += select(other < key || (other == key && i <= own), added, 0.0f32);
        }
        // Something always stays.
        let budget = (1.0f32 - top_p) * total;
        let budget = select(budget < total - 0.5f32, budget, total - 0.5f32);
        sync_cube();
        if unit < count && below <= budget {
            candidates.weights[unit] = 0.0f32;
        }
        sync_cube();
    }
    let mut total = 0.0f32;
    let mut begin = 0.0f32;
    for i in 0..count {
        if i == own {
            begin = total;
        }
        total += candidates.weights[i];
    }
    let end = begin + candidates.weights[own];
    let number = select(weighed.temperature != 0.0f32, uniform(state), 0.0f32);
    let target = number * total;
    if unit < count && begin <= target && target < end {
        choice[0] = candidates.ids[unit];
    }
}
