//! Keys and values of a plane, 16 at a time: their scores, the probabilities these give, and the values by them.

use cubecl::prelude::*;

use super::{GROUP, HEAD, LOWEST, exp2, held, larger, row_vectors};
use crate::decode::pack_bf16;
use crate::e4m3::bf16_pairs;
use crate::matrix_units::{high, low};
use crate::packed::tiles::decode::mma;

type N4 = Const<4>;
type N2 = Const<2>;

/// The lane's parts of 16 keys and values from `base` on, of those before `end`: of key `lane / 4` of both groups of eight,
/// every fourth vector from `lane % 4` on; of four values, the 16 numbers from `lane / 4 * 16` on, which are pairs of rows
/// of the second operand.
#[cube]
pub(super) fn load_rows(
    k: &mut Array<Vector<u32, N4>>,
    v: &mut Array<Vector<u32, N4>>,
    keys: &mut [Vector<u32, N4>],
    values: &mut [Vector<u32, N4>],
    base: usize,
    end: usize,
    kv: usize,
    kv_heads: usize,
    #[comptime] e4m3: bool,
) {
    let row_vectors = comptime!(row_vectors(e4m3));
    let (of_key, of_value) = comptime!((held(e4m3) / 2, held(e4m3) / 4));
    let head = UNIT_POS_X as usize / 4usize;
    let t = UNIT_POS_X as usize % 4usize;
    let last = select(end > 0usize, end, 1usize) - 1usize;
    #[unroll]
    for tile in 0..2usize {
        let key = base + tile * 8usize + head;
        let at = (select(key < last, key, last) * kv_heads + kv) * row_vectors + t;
        #[unroll]
        for j in 0..of_key {
            k[comptime!(tile * of_key + j)] = load(keys, at + j * 4usize);
        }
    }
    #[unroll]
    for i in 0..4usize {
        let key = base + comptime!(i / 2 * 8 + i % 2) + t * 2usize;
        let at = (select(key < last, key, last) * kv_heads + kv) * row_vectors + head * of_value;
        #[unroll]
        for j in 0..of_value {
            v[comptime!(i * of_value + j)] = load(values, at + j);
        }
    }
}

/// A load that stays where it is written.
#[cube]
fn load(from: &mut [Vector<u32, N4>], at: usize) -> Vector<u32, N4> {
    let address = from[at..].as_ptr();
    let value: Vector<u32, N4>;
    gpu_asm!("ld.volatile.global.v4.u32 {v}, [{a}];", v = out(_) value, a = in(_) address);
    value
}

/// Rows of the first operand: the upper halves of the queries, then the lower ones. Each product has four numbers of this
/// lane's vectors of keys.
#[cube]
pub(super) fn load_queries(
    q: &mut Array<u32>,
    queries: &Shared<[Vector<u32, N2>]>,
    #[comptime] e4m3: bool,
) {
    let head = UNIT_POS_X as usize / 4usize;
    let t = UNIT_POS_X as usize % 4usize;
    let fours = comptime!(32 / row_vectors(e4m3));
    #[unroll]
    for product in 0..8usize {
        #[unroll]
        for half in 0..2usize {
            let four = (comptime!(product / fours * 4) + t) * fours + comptime!(product % fours);
            let word = queries[(half * GROUP + head) * comptime!(HEAD / 4) + four];
            let (first, second) = (word.extract(0usize), word.extract(1usize));
            if comptime!(e4m3) {
                q[comptime!(product * 4 + half)] = halves_of(first, second, false);
                q[comptime!(product * 4 + half + 2)] = halves_of(first, second, true);
            } else {
                q[comptime!(product * 4 + half)] = first;
                q[comptime!(product * 4 + half + 2)] = second;
            }
        }
    }
}

/// Scores of two times eight keys.
#[cube]
pub(super) fn scores(
    s: &mut Array<Vector<f32, N4>>,
    q: &Array<u32>,
    k: &Array<Vector<u32, N4>>,
    #[comptime] e4m3: bool,
) {
    let fours = comptime!(32 / row_vectors(e4m3));
    #[unroll]
    for tile in 0..2usize {
        s[tile] = Vector::<f32, N4>::new(0.0f32);
        #[unroll]
        for product in 0..8usize {
            let k = k[comptime!(tile * held(e4m3) / 2 + product / fours)];
            let mut b = Array::<u32>::new(2usize);
            if comptime!(e4m3) {
                bf16_pairs(k.extract(comptime!(product % fours)), &mut b);
            } else {
                b[0] = k.extract(comptime!(product % fours * 2));
                b[1] = k.extract(comptime!(product % fours * 2 + 1));
            }
            s[tile] = mma(
                q[comptime!(product * 4)],
                q[comptime!(product * 4 + 1)],
                q[comptime!(product * 4 + 2)],
                q[comptime!(product * 4 + 3)],
                b[0],
                b[1],
                s[tile],
            );
        }
    }
}

/// From scores of the keys from `base` on, of those before `end`, to what their values are multiplied with, in two halves of
/// bf16: the factor that what was added before them keeps.
///
/// - peak: the largest score so far, and the sum of what is multiplied with
#[cube]
pub(super) fn weights(
    w: &mut Array<u32>,
    s: &Array<Vector<f32, N4>>,
    peak: &mut Array<f32>,
    base: usize,
    end: usize,
) -> f32 {
    let t = UNIT_POS_X as usize % 4usize;
    let mut p = Array::<f32>::new(4usize);
    let mut highest = peak[0];
    #[unroll]
    for i in 0..4usize {
        let tile = comptime!(i / 2);
        let odd = comptime!(i % 2);
        let key = base + comptime!(tile * 8 + odd) + t * 2usize;
        let score = s[tile].extract(odd) + s[tile].extract(comptime!(odd + 2));
        p[i] = select(key < end, score, f32::new(LOWEST));
        highest = larger(highest, p[i]);
    }
    highest = larger(highest, plane_shuffle_xor(highest, 1u32));
    highest = larger(highest, plane_shuffle_xor(highest, 2u32));
    let kept = exp2(peak[0] - highest);
    peak[0] = highest;
    peak[1] *= kept;
    #[unroll]
    for i in 0..4usize {
        p[i] = exp2(p[i] - highest);
        peak[1] += p[i];
    }
    #[unroll]
    for tile in 0..2usize {
        let (first, second) = (p[comptime!(tile * 2)], p[comptime!(tile * 2 + 1)]);
        w[comptime!(tile * 2)] = pack_bf16(first, second);
        w[comptime!(tile * 2 + 1)] = pack_bf16(
            first - low(w[comptime!(tile * 2)]),
            second - high(w[comptime!(tile * 2)]),
        );
    }
    kept
}

/// Adds the values times their weights to what is kept.
#[cube]
pub(super) fn add_values(
    o: &mut Array<Vector<f32, N4>>,
    kept: f32,
    w: &Array<u32>,
    v: &Array<Vector<u32, N4>>,
    #[comptime] e4m3: bool,
) {
    #[unroll]
    for two in 0..8usize {
        // By columns and pairs of keys.
        let mut b = Array::<u32>::new(4usize);
        pairs_of_keys(v, &mut b, two, e4m3);
        #[unroll]
        for odd in 0..2usize {
            let m = comptime!(two * 2 + odd);
            o[m] *= Vector::<f32, N4>::new(kept);
            o[m] = mma(
                w[0],
                w[1],
                w[2],
                w[3],
                b[comptime!(odd * 2)],
                b[comptime!(odd * 2 + 1)],
                o[m],
            );
        }
    }
}

/// Of two columns of a plane's values, number `two` of a lane's eight, the pairs of rows of the second operand:
/// `[column, pair]`.
#[cube]
fn pairs_of_keys(
    v: &Array<Vector<u32, N4>>,
    b: &mut Array<u32>,
    #[comptime] two: usize,
    #[comptime] e4m3: bool,
) {
    #[unroll]
    for i in 0..2usize {
        if comptime!(e4m3) {
            let first = v[comptime!(i * 2)].extract(comptime!(two / 2));
            let second = v[comptime!(i * 2 + 1)].extract(comptime!(two / 2));
            // Two numbers of the one and two of the other.
            let mut four = Array::<u32>::new(1usize);
            four[0] = halves_of(first, second, comptime!(two % 2 == 1));
            let mut columns = Array::<u32>::new(2usize);
            bf16_pairs(four[0], &mut columns);
            b[i] = columns[0];
            b[i + 2usize] = columns[1];
        } else {
            let first = v[comptime!(i * 4 + two / 4)].extract(comptime!(two % 4));
            let second = v[comptime!(i * 4 + 2 + two / 4)].extract(comptime!(two % 4));
            b[i] = halves_of(first, second, false);
            b[i + 2usize] = halves_of(first, second, true);
        }
    }
}

/// The lower or the upper halves of two words.
#[cube]
fn halves_of(first: u32, second: u32, #[comptime] upper: bool) -> u32 {
    let d: u32;
    if comptime!(upper) {
        gpu_asm!("prmt.b32 {d}, {a}, {b}, 0x7632;", d = out(_) d, a = in(_) first, b = in(_) second, options(pure, nomem));
    } else {
        gpu_asm!("prmt.b32 {d}, {a}, {b}, 0x5410;", d = out(_) d, a = in(_) first, b = in(_) second, options(pure, nomem));
    }
    d
}
