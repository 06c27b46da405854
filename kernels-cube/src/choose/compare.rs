//! A draw from few candidates, each compared with all.

use cubecl::prelude::*;

use super::digits::{Weighed, weight};

/// Candidates at most.
pub(super) const FEW: usize = 256;
/// Candidates that are read at once.
const AT_ONCE: usize = 4;

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

/// Draws one of `count` candidates by a number in `[0, 1)`, the `top` largest keys and those that equal the last of them
/// being among them.
#[cube]
pub(super) fn compare(
    candidates: &mut Candidates,
    count: usize,
    weighed: &Weighed,
    top: u32,
    top_p: f32,
    number: f32,
    choice: &mut Shared<[u32]>,
) {
    let unit = UNIT_POS as usize;
    let own = select(unit < count, unit, 0usize);
    // Behind the candidates are keys that are smaller than all, and weigh nothing.
    let steps = count.div_ceil(AT_ONCE);
    if unit >= count && unit < FEW {
        candidates.keys[unit] = 0u32;
        candidates.weights[unit] = 0.0f32;
    }
    sync_cube();
    let key = candidates.keys[own];
    let mut larger = 0u32;
    for step in 0..steps {
        #[unroll]
        for i in 0..AT_ONCE {
            larger += select(candidates.keys[step * AT_ONCE + i] > key, 1u32, 0u32);
        }
    }
    if unit < count {
        let share = weight(key, weighed.largest, weighed.temperature);
        candidates.weights[unit] = select(larger < top, share, 0.0f32);
    }
    sync_cube();
    if weighed.temperature != 0.0f32 && top_p < 1.0f32 {
        let mut total = 0.0f32;
        // Its own and all that are dropped before it: the first among equals are dropped first.
        let mut below = 0.0f32;
        for step in 0..steps {
            #[unroll]
            for i in 0..AT_ONCE {
                let at = step * AT_ONCE + i;
                let other = candidates.keys[at];
                let added = candidates.weights[at];
                total += added;
                let before = other < key || (other == key && at <= own);
                below += select(before, added, 0.0f32);
            }
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
    for step in 0..steps {
        #[unroll]
        for i in 0..AT_ONCE {
            let at = step * AT_ONCE + i;
            begin = select(at == own, total, begin);
            total += candidates.weights[at];
        }
    }
    let end = begin + candidates.weights[own];
    let target = number * total;
    if unit < count && begin <= target && target < end {
        choice[0] = candidates.ids[unit];
    }
}
