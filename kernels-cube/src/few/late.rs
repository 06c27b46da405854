//! Weights in two parts, of which a plane multiplies the first while the second is on its way.
//!
//! `ptxas` waits for all loads before a jump together, and puts loads without a jump behind them beside their uses. So the
//! first part comes before a jump that is not taken ([`stay`](super::weights::stay)), and the second behind it by loads that
//! keep their order. What keeps these before the products is one load more, behind them and needed by every product: the mask
//! that decodes values. It comes from shared memory, so that nobody waits for it, through an address of which the compiler
//! does not know that: else it would be no load of the same order.

use cubecl::prelude::*;

use super::work::Work;
use crate::packed::tiles::decode::mask_of;

type N4 = Const<4>;

/// A load of weights, which are read once, that keeps its place among those of its kind. What is constant of the index is a
/// part of the instruction.
#[cube]
pub(super) fn load(from: &[Vector<u32, N4>], #[comptime] at: usize) -> Vector<u32, N4> {
    let address = from.as_ptr();
    let value: Vector<u32, N4>;
    gpu_asm!(
        "ld.relaxed.gpu.global.L1::no_allocate.v4.u32 {v}, [{a}+{o}];",
        v = out(_) value, a = in(_) address, o = const at * 16, options(nomem),
    );
    value
}

/// The mask that decodes values, for each unit from a place of its own.
///
/// - anything: an address that would be read if a matrix had 2^32 - 1 rows
#[cube]
pub(super) fn mask(anything: &[Vector<u32, N4>], rows: u32, #[comptime] work: Work) -> u32 {
    let address = anything.as_ptr();
    let value: u32;
    gpu_asm!(
        "{{ .reg .pred never; .reg .b64 place; .reg .b32 own; .shared .align 4 .b8 masks[{bytes}];
        mov.u32 own, masks; mad.lo.u32 own, {unit}, 4, own; st.shared.u32 [own], {mask};
        cvt.u64.u32 place, own; cvta.shared.u64 place, place;
        setp.eq.u32 never, {rows}, 4294967295; selp.b64 place, {address}, place, never;
        ld.relaxed.gpu.u32 {value}, [place]; }}",
        value = out(_) value, address = in(_) address, rows = in(_) rows, unit = in(_) UNIT_POS,
        mask = const mask_of(work.form.scaled()), bytes = const work.planes * 128, options(nomem),
    );
    value
}
