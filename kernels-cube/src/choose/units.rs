//! What the units of a cube find out together, over one number each.

use cubecl::prelude::*;

use super::Form;

/// Groups of units whose largest numbers are compared with one another.
pub(super) const PEAKS: usize = 256;

/// A number of every unit, one of every side of them, and one of every group.
#[derive(CubeType)]
pub(super) struct Shares {
    own: Shared<[u32]>,
    sides: Shared<[u32]>,
    peaks: Shared<[u32]>,
}

/// Where a unit's sum begins and ends among those of all, and where all end. Ends are the next unit's begins to the bit.
#[derive(CubeType)]
pub(super) struct Span {
    pub(super) begin: f32,
    pub(super) end: f32,
    pub(super) total: f32,
}

#[cube]
pub(super) fn shares(#[comptime] form: Form) -> Shares {
    Shares {
        // Sides begin in different banks.
        own: Shared::<[u32]>::new_slice(form.units + form.side()),
        sides: Shared::<[u32]>::new_slice(form.side()),
        peaks: Shared::<[u32]>::new_slice(PEAKS),
    }
}

/// The largest number of all units, and one that at least `top` numbers of groups of them are not smaller than.
#[cube]
pub(super) fn largest(
    own: u32,
    top: u32,
    shares: &mut Shares,
    #[comptime] form: Form,
) -> (u32, u32) {
    let unit = UNIT_POS as usize;
    let parts = comptime!(form.units / PEAKS);
    sync_cube();
    shares.own[unit] = own;
    sync_cube();
    if unit < PEAKS {
        let mut most = 0u32;
        for i in 0..parts {
            let other = shares.own[i * PEAKS + unit];
            most = select(other > most, other, most);
        }
        shares.peaks[unit] = most;
    }
    sync_cube();
    let peak = shares.peaks[unit % PEAKS];
    let first = unit / PEAKS * comptime!(PEAKS * PEAKS / form.units);
    // How many are larger in the lower half of the word, and how many are equal in the upper one.
    let mut compared = 0u32;
    for i in 0..comptime!(PEAKS * PEAKS / form.units) {
        let other = shares.peaks[first + i];
        compared += select(other > peak, 1u32, 0u32);
        compared += select(other == peak, 0x1_0000u32, 0u32);
    }
    shares.own[unit] = compared;
    sync_cube();
    if unit < PEAKS {
        let mut compared = 0u32;
        for i in 0..parts {
            compared += shares.own[i * PEAKS + unit];
        }
        let larger = compared & 0xFFFFu32;
        if larger == 0u32 {
            shares.sides[0] = peak;
        }
        if larger < top && larger + (compared >> 16u32) >= top {
            shares.sides[1] = peak;
        }
    }
    sync_cube();
    (shares.sides[0], shares.sides[1])
}

/// The sums of the units before this one, in their order; no number is negative.
#[cube]
pub(super) fn span(own: f32, shares: &mut Shares, #[comptime] form: Form) -> Span {
    let unit = UNIT_POS as usize;
    let side = comptime!(form.side());
    sync_cube();
    shares.own[unit + unit / side] = u32::reinterpret(own);
    sync_cube();
    if unit < side {
        let mut sum = 0.0f32;
        for i in 0..side {
            sum += f32::from_bits(shares.own[unit * comptime!(form.side() + 1) + i]);
        }
        shares.sides[unit] = u32::reinterpret(sum);
    }
    sync_cube();
    let mut base = 0.0f32;
    let mut total = 0.0f32;
    for i in 0..side {
        if i == unit / side {
            base = total;
        }
        total += f32::from_bits(shares.sides[i]);
    }
    let mut part = 0.0f32;
    for i in 0..unit % side {
        part += f32::from_bits(shares.own[unit / side * comptime!(form.side() + 1) + i]);
    }
    Span {
        begin: base + part,
        end: base + (part + own),
        total,
    }
}
