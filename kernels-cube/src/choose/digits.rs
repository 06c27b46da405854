//! Limits among keys, found a digit at a time.

use cubecl::prelude::*;

use super::Form;
use super::score::value;

/// Values of a digit of 8 bits.
const BINS: usize = 256;
/// Bins whose sums are one sum.
const SIDE: usize = 16;
/// Weights are multiples of 2^-28, in two words of 14 bits, so that sums of 2^18 of them fit into two words as well.
const HALF: u32 = 14;

/// Sums by digit, and what is known so far.
#[derive(CubeType)]
pub(super) struct Digits {
    low: Shared<[Atomic<u32>]>,
    high: Shared<[Atomic<u32>]>,
    sides: Shared<[u32]>,
    found: Shared<[u32]>,
}

/// A limit among keys.
#[derive(CubeType)]
pub(super) struct Limit {
    /// The smallest key whose weight and those of all smaller ones together exceed the budget.
    pub(super) key: u32,
    /// By how many of this key's weights they would not, rounded down.
    pub(super) spared: f32,
}

/// The keys that a limit is looked for in: all, or those of the listed groups.
#[derive(CubeType)]
pub(super) struct Weighed {
    /// How many there are.
    pub(super) count: usize,
    /// The largest.
    pub(super) largest: u32,
    pub(super) temperature: f32,
}

#[cube]
pub(super) fn digits() -> Digits {
    Digits {
        low: Shared::<[Atomic<u32>]>::new_slice(BINS),
        high: Shared::<[Atomic<u32>]>::new_slice(BINS),
        sides: Shared::<[u32]>::new_slice(comptime!(2 * SIDE)),
        found: Shared::<[u32]>::new_slice(3usize),
    }
}

/// Where the key number `at` of those that are looked at lies.
#[cube]
pub(super) fn place(list: &[u32], at: usize, #[comptime] group: usize) -> usize {
    if comptime!(group == 0) {
        at
    } else {
        list[at / group] as usize * group + at % group
    }
}

/// The weight of a key, as a share of the largest.
#[cube]
pub(super) fn weight(key: u32, largest: u32, temperature: f32) -> f32 {
    // Without a temperature there is no other key.
    let other = ((value(key) - value(largest)) / temperature).exp();
    select(key == largest, 1.0f32, other)
}

/// The number in two words.
#[cube]
fn joined(low: u32, high: u32) -> f32 {
    let high = high + (low >> HALF);
    let low = select(
        high >> 24u32 == 0u32,
        low & comptime!((1u32 << HALF) - 1),
        0u32,
    );
    f32::cast_from(high) * comptime!((1u32 << HALF) as f32) + f32::cast_from(low)
}

/// The budget, of the sum of all weights: all but `top_k` keys, or all but the share `top_p`. Something is always above it.
#[cube]
fn budget(total: f32, top: f32, #[comptime] mass: bool) -> f32 {
    if comptime!(mass) {
        let share = (1.0f32 - top) * total;
        let most = total - comptime!((1u32 << (2 * HALF - 1)) as f32);
        select(share < most, share, most)
    } else {
        select(total > top, total - top, 0.0f32)
    }
}

/// The limit above which `top` of the keys stay, or of their weights.
///
/// - list: numbers of groups, where keys lie in groups
/// - floor: smaller keys do not count
#[cube]
pub(super) fn limit(
    keys: &[u32],
    list: &[u32],
    weighed: &Weighed,
    floor: u32,
    top: f32,
    digits: &mut Digits,
    #[comptime] group: usize,
    #[comptime] mass: bool,
    #[comptime] form: Form,
) -> Limit {
    let mut known = 0u32;
    let mut mask = 0u32;
    let mut low = 0u32;
    let mut high = 0u32;
    let mut allowed = 0.0f32;
    for digit in 0..4u32 {
        let shift = 24u32 - digit * 8u32;
        clear(digits);
        let mut at = UNIT_POS as usize;
        while at < weighed.count {
            let key = keys[place(list, at, group)];
            if key >= floor && key & mask == known {
                add(digits, key, key >> shift & 0xFFu32, weighed, mass);
            }
            at += form.units;
        }
        sum_sides(digits);
        if digit == 0u32 {
            let mut lows = 0u32;
            let mut highs = 0u32;
            for i in 0..SIDE {
                lows += digits.sides[i];
                highs += digits.sides[SIDE + i];
            }
            allowed = budget(joined(lows, highs), top, mass);
        }
        find(digits, low, high, allowed);
        known |= digits.found[0] << shift;
        mask |= 0xFFu32 << shift;
        low = digits.found[1];
        high = digits.found[2];
    }
    let mut own = 1.0f32;
    if comptime!(mass) {
        let share = weight(known, weighed.largest, weighed.temperature);
        own = (share * comptime!((1u32 << (2 * HALF)) as f32)).floor();
    }
    Limit {
        key: known,
        spared: ((allowed - joined(low, high)) / own).floor(),
    }
}

#[cube]
fn clear(digits: &mut Digits) {
    let unit = UNIT_POS as usize;
    if unit < BINS {
        digits.low[unit].store(0u32);
        digits.high[unit].store(0u32);
    }
    sync_cube();
}

/// Adds a key to its bin.
#[cube]
fn add(digits: &mut Digits, key: u32, bin: u32, weighed: &Weighed, #[comptime] mass: bool) {
    let bin = bin as usize;
    if comptime!(mass) {
        let share = weight(key, weighed.largest, weighed.temperature);
        let share = u32::cast_from(share * comptime!((1u32 << (2 * HALF)) as f32));
        // Units wait for one another, and most weights are zero.
        if share != 0u32 {
            digits.low[bin].fetch_add(share & comptime!((1u32 << HALF) - 1));
        }
        if share >> HALF != 0u32 {
            digits.high[bin].fetch_add(share >> HALF);
        }
    } else {
        digits.low[bin].fetch_add(1u32);
    }
}

#[cube]
fn sum_sides(digits: &mut Digits) {
    let unit = UNIT_POS as usize;
    sync_cube();
    if unit < SIDE {
        let mut lows = 0u32;
        let mut highs = 0u32;
        for i in 0..SIDE {
            lows += digits.low[unit * SIDE + i].load();
            highs += digits.high[unit * SIDE + i].load();
        }
        digits.sides[unit] = lows;
        digits.sides[SIDE + unit] = highs;
    }
    sync_cube();
}

/// Finds the bin in which the sum, which is `low` and `high` before the first, comes to exceed what is allowed.
#[cube]
fn find(digits: &mut Digits, low: u32, high: u32, allowed: f32) {
    let unit = UNIT_POS as usize;
    if unit < BINS {
        let mut lows = low;
        let mut highs = high;
        for i in 0..unit / SIDE {
            lows += digits.sides[i];
            highs += digits.sides[SIDE + i];
        }
        for i in 0..unit % SIDE {
            lows += digits.low[unit / SIDE * SIDE + i].load();
            highs += digits.high[unit / SIDE * SIDE + i].load();
        }
        let before = joined(lows, highs);
        let after = joined(
            lows + digits.low[unit].load(),
            highs + digits.high[unit].load(),
        );
        if before <= allowed && after > allowed {
            digits.found[0] = unit as u32;
            digits.found[1] = lows;
            digits.found[2] = highs;
        }
    }
    sync_cube();
}
