//! What the units of a cube find out together, over one number each.

use cubecl::prelude::*;

use super::Form;

/// A number of every unit and one of every side of them.
#[derive(CubeType)]
pub(super) struct Shares {
    own: Shared<[u32]>,
    sides: Shared<[u32]>,
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
        own: Shared::<[u32]>::new_slice(form.units),
        sides: Shared::<[u32]>::new_slice(form.side()),
    }
}

/// The largest number of all units.
#[cube]
pub(super) fn largest(own: u32, shares: &mut Shares, #[comptime] form: Form) -> u32 {
    let unit = UNIT_POS as usize;
    sync_cube();
    shares.own[unit] = own;
    sync_cube();
    if unit < comptime!(form.side()) {
        let mut most = 0u32;
        for i in 0..comptime!(form.side()) {
            let other = shares.own[unit * comptime!(form.side()) + i];
            most = select(other > most, other, most);
        }
        shares.sides[unit] = most;
    }
    sync_cube();
    let mut most = 0u32;
    for i in 0..comptime!(form.side()) {
        let other = shares.sides[i];
        most = select(other > most, other, most);
    }
    most
}

/// The sums of the units before this one, in their order; no number is negative.
#[cube]
pub(super) fn span(own: f32, shares: &mut Shares, #[comptime] form: Form) -> Span {
    let unit = UNIT_POS as usize;
    let side = comptime!(form.side());
    sync_cube();
    shares.own[unit] = u32::reinterpret(own);
    sync_cube();
    if unit < side {
        let mut sum = 0.0f32;
        for i in 0..side {
            sum += f32::from_bits(shares.own[unit * side + i]);
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
        part += f32::from_bits(shares.own[unit / side * side + i]);
    }
    Span {
        begin: base + part,
        end: base + (part + own),
        total,
    }
}
