//! Products of four planes together: `wgmma`, which `sm_90a` has and nothing before or after it.
//!
//! The first operand lies in registers, a tile of 16 rows a plane in the order of `mma.sync`; the second one in shared
//! memory, columns of 64 bf16 one after another whose vectors change places, `v` in column `c` with `v ^ c % 8`. Sums stay
//! in registers of the unit that only this file names: the products run beside what the unit does next, and a compiler
//! that knew them would have to wait before every one.

use std::fmt::Write;

use cubecl::prelude::*;

use crate::matrix_units::Spot;
use crate::packed::tiles::scaled::capability;

type N4 = Const<4>;

/// Products of 16 columns in a chunk of 64.
pub(crate) const STEPS: usize = 4;
/// Bytes between groups of eight columns, and the order of vectors in them, as a descriptor has them in its upper word.
const UPPER: u32 = (1 << 30) | (1024 >> 4);
/// What a descriptor's lower word has beside the address.
const LOWER: u32 = 1 << 16;

/// Whether a device has the instructions.
pub(crate) fn runs_on(client: &Client) -> bool {
    capability(&client.properties().identity.fingerprint) == Some(90)
}

/// Makes the sums: zeros for `tiles` tiles and `groups` groups of eight columns. Once in a kernel, before anything else.
#[cube]
pub(crate) fn begin(#[comptime] tiles: usize, #[comptime] groups: usize) {
    gpu_asm!("{text}", text = const zeros(tiles, groups));
}

/// Starts the products of a chunk; `a` has the words of tile `i` for step `s` at `first + s * tiles + i`. Neither they nor
/// the columns may change before [`finish`] says so.
#[cube]
pub(crate) fn multiply(
    a: &Array<Vector<u32, N4>>,
    #[comptime] first: usize,
    columns: &Spot,
    #[comptime] tiles: usize,
    #[comptime] groups: usize,
) {
    let address = columns.address();
    let a0 = a[first];
    let a1 = a[comptime!(first + 1)];
    let a2 = a[comptime!(first + 2)];
    let a3 = a[comptime!(first + 3)];
    if comptime!(tiles == 1) {
        gpu_asm!(
            "{text} /* {a0} {a1} {a2} {a3} {c} */",
            text = const products(1, groups),
            a0 = in(_) a0, a1 = in(_) a1, a2 = in(_) a2, a3 = in(_) a3, c = in(_) address,
        );
    } else {
        let a4 = a[comptime!(first + 4)];
        let a5 = a[comptime!(first + 5)];
        let a6 = a[comptime!(first + 6)];
        let a7 = a[comptime!(first + 7)];
        gpu_asm!(
            "{text} /* {a0} {a1} {a2} {a3} {a4} {a5} {a6} {a7} {c} */",
            text = const products(2, groups),
            a0 = in(_) a0, a1 = in(_) a1, a2 = in(_) a2, a3 = in(_) a3,
            a4 = in(_) a4, a5 = in(_) a5, a6 = in(_) a6, a7 = in(_) a7, c = in(_) address,
        );
    }
}

/// Waits until the products of no more than `left` chunks are under way.
#[cube]
pub(crate) fn finish(#[comptime] left: usize) {
    gpu_asm!("wgmma.wait_group.sync.aligned {n};", n = const left);
}

/// Makes this unit's finished copies known to the products; a barrier then makes all units' copies so.
#[cube]
pub(crate) fn show_copies() {
    gpu_asm!("fence.proxy.async.shared::cta;");
}

/// The sums of a tile and a group: those of [`mma`](crate::matrix_units::mma).
#[cube]
pub(crate) fn sums(#[comptime] tile: usize, #[comptime] group: usize) -> Vector<f32, N4> {
    let found: Vector<f32, N4>;
    gpu_asm!("mov.v4.b32 {d}, {text};", d = out(_) found, text = const four(tile, group));
    found
}

/// A register of a unit.
fn register(tile: usize, number: usize) -> String {
    format!("sum{tile}_{number}")
}

fn list(tile: usize, numbers: std::ops::Range<usize>) -> String {
    let names: Vec<String> = numbers.map(|number| register(tile, number)).collect();
    names.join(", ")
}

fn four(tile: usize, group: usize) -> String {
    format!("{{{}}}", list(tile, group * 4..group * 4 + 4))
}

fn zeros(tiles: usize, groups: usize) -> String {
    let mut text = String::new();
    for tile in 0..tiles {
        let numbers = groups * 4;
        let _ = writeln!(text, ".reg .f32 {};", list(tile, 0..numbers));
        for number in 0..numbers {
            let _ = writeln!(text, "mov.f32 {}, 0f00000000;", register(tile, number));
        }
    }
    text
}

/// Operands: the words of the first operand, then the address of the columns.
fn products(tiles: usize, groups: usize) -> String {
    let columns = groups * 8;
    let address = tiles * STEPS;
    let mut text = format!(
        "{{ .reg .b32 lower, upper; .reg .b64 columns; .reg .pred adds;
        setp.eq.u32 adds, 0, 0;
        mov.b32 upper, {UPPER};
        and.b32 lower, ${address}, 0x3FFFF;
        shr.u32 lower, lower, 4;
        or.b32 lower, lower, {LOWER};
        wgmma.fence.sync.aligned;\n"
    );
    for step in 0..STEPS {
        let _ = writeln!(text, "mov.b64 columns, {{lower, upper}};");
        for tile in 0..tiles {
            let _ = writeln!(
                text,
                "wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.bf16.bf16 {{{}}}, ${}, columns, adds, 1, 1, 0;",
                list(tile, 0..groups * 4),
                step * tiles + tile,
            );
        }
        // 16 columns are 32 bytes.
        let _ = writeln!(text, "add.u32 lower, lower, 2;");
    }
    text.push_str("wgmma.commit_group.sync.aligned; }");
    text
}
