//! The instructions of matrix units (`sm_80` and later), and plain code that stands in for them, so that kernels made of
//! them are tested where there are none.
//!
//! Whoever calls these has planes of 32 units along the first axis of its cube. Plain code passes operands through shared
//! memory, so all units of a cube must come by together.

use cubecl::frontend::barrier::copy_async;
use cubecl::prelude::*;

type N4 = Const<4>;

/// Words that a unit shows the others.
const SHOWN: usize = 6;

/// What a kernel is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Instructions {
    /// Those of the device.
    Native,
    /// Those of four planes together, of the one architecture that has them: `wgmma`.
    Warpgroup,
    /// Plain code, for tests: slow, and in need of shared memory.
    Plain,
}

impl Instructions {
    const fn are_plain(self) -> bool {
        matches!(self, Self::Plain)
    }

    pub(crate) const fn are_of_warpgroups(self) -> bool {
        matches!(self, Self::Warpgroup)
    }

    const fn words(self, planes: usize) -> usize {
        if self.are_plain() {
            planes * 32 * SHOWN
        } else {
            1
        }
    }
}

/// What plain code passes operands through.
#[derive(CubeType)]
pub(crate) struct Exchange {
    words: Shared<[u32]>,
}

#[cube]
pub(crate) fn exchange(
    #[comptime] planes: usize,
    #[comptime] instructions: Instructions,
) -> Exchange {
    Exchange {
        words: Shared::new_slice(comptime!(instructions.words(planes))),
    }
}

/// `c` plus 16 rows x 16 columns of bf16 times 16 x 8. `a` has the words of rows `lane / 4` and 8 more, first of the
/// columns from `lane % 4 * 2` on, then of those 8 behind; `b` the rows likewise, of column `lane / 4`; `c` of both rows
/// the columns from `lane % 4 * 2` on.
#[cube]
pub(crate) fn mma(
    a: &Array<u32>,
    at: usize,
    b0: u32,
    b1: u32,
    c: Vector<f32, N4>,
    exchange: &mut Exchange,
    #[comptime] instructions: Instructions,
) -> Vector<f32, N4> {
    let a0 = a[at];
    let a1 = a[at + 1usize];
    let a2 = a[at + 2usize];
    let a3 = a[at + 3usize];
    if comptime!(instructions.are_plain()) {
        let own = unit() * SHOWN;
        exchange.words[own] = a0;
        exchange.words[own + 1usize] = a1;
        exchange.words[own + 2usize] = a2;
        exchange.words[own + 3usize] = a3;
        exchange.words[own + 4usize] = b0;
        exchange.words[own + 5usize] = b1;
        sync_cube();
        let d = plain(exchange, c);
        sync_cube();
        d
    } else {
        crate::packed::tiles::decode::mma(a0, a1, a2, a3, b0, b1, c)
    }
}

/// The number of this unit in its cube.
#[cube]
pub(crate) fn unit() -> usize {
    UNIT_POS_Y as usize * 32usize + UNIT_POS_X as usize
}

#[cube]
fn plain(exchange: &mut Exchange, c: Vector<f32, N4>) -> Vector<f32, N4> {
    let first = UNIT_POS_Y as usize * 32usize;
    let (g, t) = (UNIT_POS_X as usize / 4usize, UNIT_POS_X as usize % 4usize);
    let mut d = c;
    #[unroll]
    for i in 0..4usize {
        let column = t * 2usize + comptime!(i % 2);
        let mut sum = c.extract(i);
        for pair in 0..8usize {
            let (late, lane) = (pair / 4usize, pair % 4usize);
            let left = (first + g * 4usize + lane) * SHOWN + late * 2usize + comptime!(i / 2);
            let right = (first + column * 4usize + lane) * SHOWN + 4usize + late;
            let (left, right) = (exchange.words[left], exchange.words[right]);
            sum += low(left) * low(right);
            sum += high(left) * high(right);
        }
        d.insert(i, sum);
    }
    d
}

/// Starts a copy of a vector to shared memory; see [`commit`].
#[cube]
pub(crate) fn copy_vector(
    x: &[Vector<u32, N4>],
    from: usize,
    stage: &mut Shared<[Vector<u32, N4>]>,
    to: usize,
    #[comptime] instructions: Instructions,
) {
    if comptime!(instructions.are_plain()) {
        stage[to] = x[from];
    } else {
        copy_async(&x[from..from + 1usize], &mut stage[to..to + 1usize], 4u32);
    }
}

/// A vector in shared memory. Those at constant distances from it need no address of their own.
#[derive(CubeType)]
pub(crate) struct Spot {
    /// Natively an address, else the number of the vector; in an array, since what an instruction gives would be passed to
    /// another as its address.
    at: Array<u32>,
}

#[cube]
impl Spot {
    /// Natively the address in shared memory.
    pub(crate) fn address(&self) -> u32 {
        self.at[0]
    }
}

/// Vector number `at`.
#[cube]
pub(crate) fn spot(
    stage: &Shared<[Vector<u32, N4>]>,
    at: usize,
    #[comptime] instructions: Instructions,
) -> Spot {
    let mut found = Array::<u32>::new(1usize);
    if comptime!(instructions.are_plain()) {
        found[0] = at as u32;
    } else {
        let generic = stage[at..].as_ptr();
        let address: u32;
        gpu_asm!(
            "{{ .reg .u64 shared; cvta.to.shared.u64 shared, {a}; cvt.u32.u64 {d}, shared; }}",
            d = out(_) address, a = in(_) generic, options(pure, nomem),
        );
        found[0] = address;
    }
    Spot { at: found }
}

/// Starts a copy of a vector to the one so many behind a spot; see [`commit`].
#[cube]
pub(crate) fn copy_behind(
    x: &[Vector<u32, N4>],
    from: usize,
    stage: &mut Shared<[Vector<u32, N4>]>,
    spot: &Spot,
    #[comptime] behind: usize,
    #[comptime] instructions: Instructions,
) {
    if comptime!(instructions.are_plain()) {
        stage[spot.at[0] as usize + behind] = x[from];
    } else {
        let from = x[from..].as_ptr();
        let address = spot.at[0];
        gpu_asm!(
            "cp.async.cg.shared.global [{a}+{o}], [{x}], 16;",
            a = in(_) address, o = const behind * 16, x = in(_) from,
        );
    }
}

/// The vector so many behind a spot. To the compiler it touches no memory, so that other values stay in registers; being no
/// pure function of its operands either, it keeps its place behind [`wait`] and barriers.
#[cube]
pub(crate) fn read_behind(
    stage: &Shared<[Vector<u32, N4>]>,
    spot: &Spot,
    #[comptime] behind: usize,
    #[comptime] instructions: Instructions,
) -> Vector<u32, N4> {
    if comptime!(instructions.are_plain()) {
        stage[spot.at[0] as usize + behind]
    } else {
        let address = spot.at[0];
        let vector: Vector<u32, N4>;
        gpu_asm!(
            "ld.shared.v4.u32 {v}, [{a}+{o}];",
            v = out(_) vector, a = in(_) address, o = const behind * 16, options(nomem),
        );
        vector
    }
}

/// Ends a group of copies.
#[cube]
pub(crate) fn commit(#[comptime] instructions: Instructions) {
    if comptime!(!instructions.are_plain()) {
        gpu_asm!("cp.async.commit_group;");
    }
}

/// Waits until this unit has no more than `left` groups of copies under way.
#[cube]
pub(crate) fn wait(#[comptime] left: usize, #[comptime] instructions: Instructions) {
    if comptime!(!instructions.are_plain()) {
        gpu_asm!("cp.async.wait_group {n};", n = const left);
    }
}

/// Two numbers rounded to bf16, the first in the lower half.
#[cube]
pub(crate) fn pack_bf16(lo: f32, hi: f32, #[comptime] instructions: Instructions) -> u32 {
    if comptime!(instructions.are_plain()) {
        rounded(lo) | (rounded(hi) << 16u32)
    } else {
        let d: u32;
        gpu_asm!("cvt.rn.bf16x2.f32 {d}, {hi}, {lo};", d = out(_) d, hi = in(_) hi, lo = in(_) lo, options(pure, nomem));
        d
    }
}

/// A finite number as bf16, to the nearest, ties to even.
#[cube]
fn rounded(x: f32) -> u32 {
    let bits = x.to_bits();
    (bits + 0x7FFFu32 + ((bits >> 16u32) & 1u32)) >> 16u32
}

/// The lower half of a word of two bf16.
#[cube]
pub(crate) fn low(word: u32) -> f32 {
    f32::from_bits(word << 16u32)
}

/// The upper half of a word of two bf16.
#[cube]
pub(crate) fn high(word: u32) -> f32 {
    f32::from_bits(word & 0xFFFF_0000u32)
}

/// Where 16 rows of two vectors of bf16 lie that [`transposed`] loads, from vector `first` on, `stride` vectors apart, and
/// others at constant distances: natively this unit's row, else the first one.
#[cube]
pub(crate) fn matrices(
    stage: &Shared<[Vector<u32, N4>]>,
    first: usize,
    #[comptime] stride: usize,
    #[comptime] instructions: Instructions,
) -> Spot {
    if comptime!(instructions.are_plain()) {
        spot(stage, first, instructions)
    } else {
        let lane = UNIT_POS_X as usize;
        let row = first + lane % 16usize * stride + lane / 16usize;
        spot(stage, row, instructions)
    }
}

/// Those `from` vectors behind the first, turned around: pairs of rows from `lane % 4 * 2` on, and of those 8 below, of
/// column `lane / 4`, first of the left vectors, then of the right ones.
#[cube]
pub(crate) fn transposed(
    stage: &Shared<[Vector<u32, N4>]>,
    matrices: &Spot,
    from: usize,
    #[comptime] stride: usize,
    #[comptime] instructions: Instructions,
) -> Vector<u32, N4> {
    if comptime!(instructions.are_plain()) {
        let first = matrices.at[0] as usize + from;
        let (g, t) = (UNIT_POS_X as usize / 4usize, UNIT_POS_X as usize % 4usize);
        let mut words = Vector::<u32, N4>::new(0u32);
        #[unroll]
        for i in 0..4usize {
            let at = first + (t * 2usize + comptime!(i % 2 * 8)) * stride + comptime!(i / 2);
            let (upper, lower) = (number(stage[at], g), number(stage[at + stride], g));
            words.insert(i, upper | (lower << 16u32));
        }
        words
    } else {
        let address = matrices.at[0] + from as u32 * 16u32;
        let words: Vector<u32, N4>;
        gpu_asm!(
            "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {d}, [{a}];",
            d = out(_) words, a = in(_) address,
        );
        words
    }
}

/// The bits of number `i` of eight.
#[cube]
fn number(vector: Vector<u32, N4>, i: usize) -> u32 {
    let mut word = vector.extract(0usize);
    #[unroll]
    for other in 1..4usize {
        word = select(i / 2usize == other, vector.extract(other), word);
    }
    select(i & 1usize == 0usize, word & 0xFFFFu32, word >> 16u32)
}

/// 2 to the power of `x`, 0 for what is far below.
#[cube]
pub(crate) fn exp2(x: f32, #[comptime] instructions: Instructions) -> f32 {
    if comptime!(instructions.are_plain()) {
        (x * comptime!(std::f32::consts::LN_2)).exp()
    } else {
        let d: f32;
        gpu_asm!("ex2.approx.ftz.f32 {d}, {a};", d = out(_) d, a = in(_) x, options(pure, nomem));
        d
    }
}

/// The sum over the four units whose `lane / 4` is the same.
#[cube]
pub(crate) fn quad_sum(
    value: f32,
    exchange: &mut Exchange,
    #[comptime] instructions: Instructions,
) -> f32 {
    let other = beside(value, 1u32, exchange, instructions);
    let both = value + other;
    both + beside(both, 2u32, exchange, instructions)
}

/// The largest number of the four units whose `lane / 4` is the same.
#[cube]
pub(crate) fn quad_largest(
    value: f32,
    exchange: &mut Exchange,
    #[comptime] instructions: Instructions,
) -> f32 {
    let other = beside(value, 1u32, exchange, instructions);
    let both = select(value > other, value, other);
    let other = beside(both, 2u32, exchange, instructions);
    select(both > other, both, other)
}

/// The number of the unit whose lane differs in the bits of `mask`.
#[cube]
fn beside(
    value: f32,
    #[comptime] mask: u32,
    exchange: &mut Exchange,
    #[comptime] instructions: Instructions,
) -> f32 {
    if comptime!(instructions.are_plain()) {
        exchange.words[unit()] = value.to_bits();
        sync_cube();
        let other = f32::from_bits(exchange.words[(unit() as u32 ^ mask) as usize]);
        sync_cube();
        other
    } else {
        plane_shuffle_xor(value, mask)
    }
}
