//! Attention of one token over the cache, in one launch (FlashAttention-2, Dao 2023; split over the keys as in
//! Flash-Decoding).
//!
//! A cube has the query heads of one key head and a part of the keys; its planes take 16 keys at a time. Queries and
//! probabilities are two halves of bf16 each, in rows of the matrix units that a group of heads leaves free, so both have
//! 16 significant bits. The last cube of a key head to finish joins the parts, in their order.
//!
//! Keys and values of E4M3 become bf16, which holds all its numbers, in registers. They are half the bytes, so a plane
//! loads its next ones before it works on those that it has.

use cubecl::prelude::*;

use super::{arrive, pack_bf16, warm};
use crate::Buffer;
use crate::control::LEN;
use crate::e4m3::{self, bf16_pairs, byte_of};
use crate::matrix_units::{high, low};
use crate::packed::tiles::Activations;
use crate::packed::tiles::decode::mma;
use crate::plane::plane_total;

type N4 = Const<4>;
type N2 = Const<2>;

/// Numbers of a head.
pub(super) const HEAD: usize = 128;
/// Query heads of a key head at most.
const GROUP: usize = 8;
/// Planes of a cube.
const PLANES: usize = 8;
/// Keys that a plane takes at a time.
const KEYS: usize = 16;
/// Parts that the keys of a head are split in at most.
const SPLITS: usize = 32;
/// Parts that are loaded at once when they are joined.
const JOINED: usize = 8;
/// Numbers between heads in shared memory, so that the lanes of a plane meet different banks.
const PITCH: usize = HEAD + 8;
/// A score that no key has.
const LOWEST: f32 = -1e30;

/// Vectors of 16 bytes of a key or value.
const fn row_vectors(e4m3: bool) -> usize {
    if e4m3 { HEAD / 16 } else { HEAD / 8 }
}

/// Vectors of keys, and as many of values, that a lane holds of those of its plane.
const fn held(e4m3: bool) -> usize {
    KEYS * row_vectors(e4m3) / 32
}

/// The keys and values of a layer, `[capacity, heads, 128]` each: of bf16, or of E4M3 ([`crate::E4M3`]).
#[derive(Clone, Debug)]
pub struct Cache {
    /// Keys, normed and rotated.
    pub keys: Buffer,
    /// Values.
    pub values: Buffer,
}

/// The sizes of attention, and what all layers share.
#[derive(Clone, Debug)]
pub struct Attend {
    /// Query heads and key heads.
    pub heads: [usize; 2],
    /// What is added to the mean square of a head.
    pub eps: f32,
    /// The frequencies by which positions turn, f32 `[64]`.
    pub inverse_frequency: Buffer,
    /// Cosines and sines of the token's position, f32 `[2, 64]`.
    pub angles: Buffer,
    /// f32 `[key heads, SPLITS, group, 128]`
    parts: Buffer,
    /// f32 `[key heads, SPLITS, group, 2]`
    sums: Buffer,
    /// u32 `[key heads]`
    counters: Buffer,
}

impl Attend {
    /// Room for what cubes tell one another.
    ///
    /// # Panics
    /// When a key head has more than 8 query heads.
    #[must_use]
    pub fn new(client: &Client, heads: [usize; 2], eps: f32, inverse_frequency: &[f32]) -> Self {
        assert!(heads[0] / heads[1] <= GROUP && inverse_frequency.len() == HEAD / 2);
        let f32 = f32::elem_type_native();
        Self {
            heads,
            eps,
            inverse_frequency: Buffer::of(client, inverse_frequency),
            angles: Buffer::empty(client, f32, HEAD),
            parts: Buffer::empty(client, f32, SPLITS * heads[0] * HEAD),
            sums: Buffer::empty(client, f32, SPLITS * heads[0] * 2),
            counters: Buffer::numbers(client, &vec![0; heads[1]]),
        }
    }
}

/// What attention reads and writes.
#[derive(Clone, Copy, Debug)]
pub struct Attended<'a> {
    /// f32 `[(query heads + 2 key heads) * 128]`
    pub qkv: &'a Buffer,
    /// f32 `[128]` each, of queries and keys.
    pub norms: [&'a Buffer; 2],
    /// See [`crate::control::Control`].
    pub control: &'a Buffer,
    /// Gets the token's key and value.
    pub cache: &'a Cache,
    /// Two halves of `[query heads * 128]`, and the numbers between them.
    pub output: (&'a Activations, usize),
    /// What the next launch reads.
    pub next: &'a Buffer,
}

/// Writes key and value of the token into the cache, and attends over all of it.
pub fn attend(client: &Client, attend: &Attend, attended: Attended<'_>) {
    let [heads, kv_heads] = attend.heads;
    let Attended {
        qkv,
        norms,
        control,
        cache,
        output: (a, columns),
        next,
    } = attended;
    #[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
    // SAFETY: the lengths are stated above; the rows in the cache are fewer than its capacity.
    unsafe {
        attend_kernel::launch_unchecked(
            client,
            CubeCount::Static(SPLITS as u32, kv_heads as u32, 1),
            CubeDim::new_2d(32, PLANES as u32),
            qkv.vectors(4),
            norms[0].vectors(4),
            norms[1].vectors(4),
            attend.angles.vectors(4),
            control.arg(),
            cache.keys.bytes(16),
            cache.values.bytes(16),
            attend.parts.vectors(4),
            attend.sums.arg(),
            attend.counters.arg(),
            a.buffer.vectors(4),
            next.bytes(16),
            kv_heads as u32,
            (columns / 4) as u32,
            attend.eps,
            heads / kv_heads,
            e4m3::are_in(&cache.keys),
        );
    }
}

#[cube(launch_unchecked)]
#[allow(
    clippy::too_many_lines,
    clippy::collapsible_if,
    reason = "queries, keys and the join share what they have in registers; what is compiled at all is asked by itself"
)]
fn attend_kernel(
    qkv: &[Vector<f32, N4>],
    q_norm: &[Vector<f32, N4>],
    k_norm: &[Vector<f32, N4>],
    angles: &[Vector<f32, N4>],
    control: &[u32],
    keys: &mut [Vector<u32, N4>],
    values: &mut [Vector<u32, N4>],
    parts: &mut [Vector<f32, N4>],
    sums: &mut [f32],
    counters: &mut [u32],
    a: &mut [Vector<u32, N2>],
    next: &[Vector<u32, N4>],
    kv_heads: u32,
    columns: u32,
    eps: f32,
    #[comptime] group: usize,
    #[comptime] e4m3: bool,
) {
    warm(next);
    let lane = UNIT_POS_X as usize;
    let plane = UNIT_POS_Y as usize;
    let split = CUBE_POS_X as usize;
    let kv = CUBE_POS_Y as usize;
    let kv_heads = kv_heads as usize;
    let last = control[LEN] as usize;
    // The part of the keys of this cube.
    let least = comptime!(PLANES * KEYS);
    let even = (last / comptime!(SPLITS * KEYS) + 1usize) * KEYS;
    let length = select(even < least, least, even);
    let active = last / length + 1usize;
    if split >= active {
        terminate!();
    }
    let start = split * length;
    let end = select(split + 1usize == active, last + 1usize, start + length);

    // The first keys and values come while the queries are made.
    let head = lane / 4usize;
    let t = lane % 4usize;
    let mut base = start + plane * KEYS;
    let row_vectors = comptime!(row_vectors(e4m3));
    let held = comptime!(held(e4m3));
    let mut k = Array::<Vector<u32, N4>>::new(held);
    let mut v = Array::<Vector<u32, N4>>::new(held);
    load_rows(&mut k, &mut v, keys, values, base, last, kv, kv_heads, e4m3);
    let mut queries =
        Shared::<[Vector<u32, N2>]>::new_aligned_slice(comptime!(2 * GROUP * HEAD / 4), 16usize);
    // Key and value of the token.
    let mut fresh =
        Shared::<[Vector<u32, N4>]>::new_aligned_slice(comptime!(2 * row_vectors), 16usize);
    let mut query = Vector::<f32, N4>::new(0.0f32);
    if comptime!(group == PLANES) || plane < group {
        query = rotated(
            qkv[(kv * group + plane) * comptime!(HEAD / 4) + lane],
            q_norm[lane],
            angles[lane % 16usize],
            angles[16usize + lane % 16usize],
            eps,
        );
        // The scale of the scores, and the base of the exponential: log2(e) / sqrt(128).
        query *=
            Vector::<f32, N4>::new(comptime!((std::f64::consts::LOG2_E / 128f64.sqrt()) as f32));
    }
    let (hi, lo) = halves(query);
    queries[plane * comptime!(HEAD / 4) + lane] = hi;
    queries[comptime!(GROUP * HEAD / 4) + plane * comptime!(HEAD / 4) + lane] = lo;
    if split + 1usize == active && plane < 2usize {
        let first = (kv_heads * group + kv + plane * kv_heads) * comptime!(HEAD / 4);
        let mut row = qkv[first + lane];
        if plane == 0usize {
            row = rotated(
                row,
                k_norm[lane],
                angles[lane % 16usize],
                angles[16usize + lane % 16usize],
                eps,
            );
        }
        if comptime!(e4m3) {
            // The matrix units take NaN of E4M3 for 480: a query that is NaN makes the scores of the step NaN instead, as a key
            // or value of bf16 that is does.
            if plane == 0usize {
                let value = qkv[first + kv_heads * comptime!(HEAD / 4) + lane];
                if has_nan(row) || has_nan(value) {
                    queries[lane] = Vector::<u32, N2>::new(0x7FC0_7FC0u32);
                }
            }
        }
        // Lanes that have a vector together.
        let lanes = comptime!(32 / row_vectors);
        let vector = stored(row, e4m3);
        if lane & comptime!(lanes - 1) == 0usize {
            let at = (last * kv_heads + kv) * row_vectors + lane / lanes;
            fresh[plane * row_vectors + lane / lanes] = vector;
            if plane == 0usize {
                keys[at] = vector;
            } else {
                values[at] = vector;
            }
        }
    }
    sync_cube();
    if base + KEYS > last && base <= last {
        // The new row is among them; those behind it are not looked at, but have to be numbers.
        #[unroll]
        for i in 0..held {
            let (of_key, of_value) = comptime!((held / 2, held / 4));
            if base + comptime!(i / of_key * 8) + head >= last {
                k[i] = fresh[comptime!(i % of_key * 4) + t];
            }
            let value = comptime!(i / of_value);
            if base + comptime!(value / 2 * 8 + value % 2) + t * 2usize >= last {
                v[i] = fresh[comptime!(row_vectors + i % of_value) + head * of_value];
            }
        }
    }

    // Rows of the first operand: the upper halves of the queries, then the lower ones. Each product has four numbers of
    // this lane's vectors of keys.
    let mut q = Array::<u32>::new(32usize);
    let fours = comptime!(32 / row_vectors);
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
    let mut next_k = Array::<Vector<u32, N4>>::new(held);
    let mut next_v = Array::<Vector<u32, N4>>::new(held);
    if comptime!(e4m3) {
        #[unroll]
        for i in 0..held {
            next_k[i] = k[i];
            next_v[i] = v[i];
        }
    }
    let mut largest = f32::new(LOWEST);
    let mut total = 0.0f32;
    let mut o = Array::<Vector<f32, N4>>::new(16usize);
    #[unroll]
    for m in 0..16usize {
        o[m] = Vector::<f32, N4>::new(0.0f32);
    }
    while base < end {
        let ahead = base + comptime!(PLANES * KEYS);
        if comptime!(e4m3) {
            if ahead < end {
                load_rows(
                    &mut next_k,
                    &mut next_v,
                    keys,
                    values,
                    ahead,
                    last + 1usize,
                    kv,
                    kv_heads,
                    e4m3,
                );
            }
        }
        // Scores of two times eight keys.
        let mut s = Array::<Vector<f32, N4>>::new(2usize);
        #[unroll]
        for tile in 0..2usize {
            s[tile] = Vector::<f32, N4>::new(0.0f32);
            #[unroll]
            for product in 0..8usize {
                let k = k[comptime!(tile * held / 2 + product / fours)];
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
        let mut p = Array::<f32>::new(4usize);
        let mut highest = largest;
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
        let kept = exp2(largest - highest);
        largest = highest;
        total *= kept;
        #[unroll]
        for i in 0..4usize {
            p[i] = exp2(p[i] - highest);
            total += p[i];
        }
        let mut w = Array::<u32>::new(4usize);
        #[unroll]
        for tile in 0..2usize {
            let (first, second) = (p[comptime!(tile * 2)], p[comptime!(tile * 2 + 1)]);
            w[comptime!(tile * 2)] = pack_bf16(first, second);
            w[comptime!(tile * 2 + 1)] = pack_bf16(
                first - low(w[comptime!(tile * 2)]),
                second - high(w[comptime!(tile * 2)]),
            );
        }
        #[unroll]
        for two in 0..8usize {
            // By columns and pairs of keys.
            let mut b = Array::<u32>::new(4usize);
            pairs_of_keys(&v, &mut b, two, e4m3);
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
        base = ahead;
        if comptime!(e4m3) {
            #[unroll]
            for i in 0..held {
                k[i] = next_k[i];
                v[i] = next_v[i];
            }
        } else if base < end {
            load_rows(
                &mut k,
                &mut v,
                keys,
                values,
                base,
                last + 1usize,
                kv,
                kv_heads,
                e4m3,
            );
        }
    }
    total += plane_shuffle_xor(total, 1u32);
    total += plane_shuffle_xor(total, 2u32);

    // All planes of the cube together.
    let mut peaks = Shared::<[f32]>::new_slice(comptime!(PLANES * GROUP));
    let mut weights = Shared::<[f32]>::new_slice(comptime!(PLANES * GROUP));
    let mut outputs = Shared::<[Vector<f32, N2>]>::new_aligned_slice(
        comptime!(PLANES * GROUP * PITCH / 2),
        8usize,
    );
    if t == 0usize {
        peaks[plane * GROUP + head] = largest;
        weights[plane * GROUP + head] = total;
    }
    let own = &mut outputs[(plane * GROUP + head) * comptime!(PITCH / 2) + t..];
    #[unroll]
    for m in 0..16usize {
        let mut two = Vector::<f32, N2>::new(0.0f32);
        two.insert(0usize, o[m].extract(0usize) + o[m].extract(2usize));
        two.insert(1usize, o[m].extract(1usize) + o[m].extract(3usize));
        own[comptime!(m * 4)] = two;
    }
    sync_cube();
    // From here on a plane has a head, a lane four numbers of it as they lie here: number `d` at `d % 16 * 8 + d / 16`.
    let mut value = Vector::<f32, N4>::new(0.0f32);
    let mut sum = 0.0f32;
    let mut top = f32::new(LOWEST);
    if comptime!(group == PLANES) || plane < group {
        #[unroll]
        for other in 0..PLANES {
            top = larger(top, peaks[other * GROUP + plane]);
        }
        #[unroll]
        for other in 0..PLANES {
            let at = other * GROUP + plane;
            let factor = exp2(peaks[at] - top);
            sum += weights[at] * factor;
            let own = &outputs[at * comptime!(PITCH / 2) + lane * 2usize..];
            let (first, second) = (own[0usize], own[1usize]);
            let mut four = Vector::<f32, N4>::new(0.0f32);
            four.insert(0usize, first.extract(0usize));
            four.insert(1usize, first.extract(1usize));
            four.insert(2usize, second.extract(0usize));
            four.insert(3usize, second.extract(1usize));
            value += four * Vector::<f32, N4>::new(factor);
        }
    }
    if active > 1usize {
        let at = (kv * SPLITS + split) * group + plane;
        if comptime!(group == PLANES) || plane < group {
            parts[at * comptime!(HEAD / 4) + lane] = value;
            if lane == 0usize {
                sums[at * 2usize] = top;
                sums[at * 2usize + 1usize] = sum;
            }
        }
        let mut turn = Shared::<[u32]>::new_slice(1usize);
        sync_cube();
        if UNIT_POS == 0 {
            turn[0] = arrive(counters, kv);
        }
        sync_cube();
        if turn[0] as usize + 1usize < active {
            terminate!();
        }
        if UNIT_POS == 0 {
            counters[kv] = 0u32;
        }
        if comptime!(group == PLANES) || plane < group {
            // A lane has the peak and the sum of a part.
            let part = select(lane < active, lane, 0usize);
            let at = ((kv * SPLITS + part) * group + plane) * 2usize;
            let (own_top, own_sum) = (sums[at], sums[at + 1usize]);
            top = own_top;
            #[unroll]
            for step in 0..5u32 {
                top = larger(top, plane_shuffle_xor(top, comptime!(16 >> step)));
            }
            let factor = select(lane < active, exp2(own_top - top), 0.0f32);
            sum = plane_total(own_sum * factor, 32usize);
            value = Vector::<f32, N4>::new(0.0f32);
            let mut first = 0usize;
            while first < active {
                // Loads that do not wait for one another.
                let mut some = Array::<Vector<f32, N4>>::new(JOINED);
                #[unroll]
                for i in 0..JOINED {
                    let part = select(first + i < active, first + i, first);
                    let at = (kv * SPLITS + part) * group + plane;
                    some[i] = parts[at * comptime!(HEAD / 4) + lane];
                }
                #[unroll]
                for i in 0..JOINED {
                    let factor = plane_shuffle(factor, (first + i) as u32);
                    value += some[i] * Vector::<f32, N4>::new(factor);
                }
                first += JOINED;
            }
        }
    }
    if comptime!(group == PLANES) || plane < group {
        // Into their order, in what only this plane has read.
        let own = &mut outputs[plane * comptime!(PITCH / 2)..];
        let mut two = Vector::<f32, N2>::new(0.0f32);
        two.insert(0usize, value.extract(0usize));
        two.insert(1usize, value.extract(1usize));
        own[lane * 2usize] = two;
        two.insert(0usize, value.extract(2usize));
        two.insert(1usize, value.extract(3usize));
        own[lane * 2usize + 1usize] = two;
        sync_plane();
        let pair = lane / 8usize;
        let upper = lane / 4usize % 2usize == 1usize;
        #[unroll]
        for e in 0..4usize {
            let two = own[(lane % 4usize * 4usize + e) * 4usize + pair];
            value.insert(e, select(upper, two.extract(1usize), two.extract(0usize)));
        }
        let (hi, lo) = halves(value * Vector::<f32, N4>::new(1.0f32 / sum));
        let at = (kv * group + plane) * comptime!(HEAD / 4) + lane;
        a[at] = hi;
        a[columns as usize + at] = lo;
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

/// Whether one of four numbers is NaN.
#[cube]
fn has_nan(numbers: Vector<f32, N4>) -> bool {
    let mut largest = 0u32;
    #[unroll]
    for i in 0..4usize {
        let magnitude = numbers.extract(i).to_bits() & 0x7FFF_FFFFu32;
        largest = select(magnitude > largest, magnitude, largest);
    }
    largest > 0x7F80_0000u32
}

/// A head as the cache has it, of which a lane has four numbers: the vector that this lane's are the first of.
#[cube]
fn stored(row: Vector<f32, N4>, #[comptime] e4m3: bool) -> Vector<u32, N4> {
    let mut words = Array::<u32>::new(2usize);
    let mut vector = Vector::<u32, N4>::new(0u32);
    if comptime!(e4m3) {
        words[0] = 0u32;
        #[unroll]
        for i in 0..4usize {
            words[0] |= byte_of(row.extract(i)) << comptime!(i as u32 * 8);
        }
        #[unroll]
        for i in 0..4usize {
            vector.insert(i, plane_shuffle_xor(words[0], comptime!(i as u32)));
        }
    } else {
        words[0] = pack_bf16(row.extract(0usize), row.extract(1usize));
        words[1] = pack_bf16(row.extract(2usize), row.extract(3usize));
        vector.insert(0usize, words[0]);
        vector.insert(1usize, words[1]);
        vector.insert(2usize, plane_shuffle_xor(words[0], 1u32));
        vector.insert(3usize, plane_shuffle_xor(words[1], 1u32));
    }
    vector
}

/// The lane's parts of 16 keys and values from `base` on, of those before `end`: of key `lane / 4` of both groups of eight,
/// every fourth vector from `lane % 4` on; of four values, the 16 numbers from `lane / 4 * 16` on, which are pairs of rows
/// of the second operand.
#[cube]
fn load_rows(
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

/// A head divided by its root mean square, times `norm`, rotated by the angles of its position. A lane has four numbers.
#[cube]
fn rotated(
    head: Vector<f32, N4>,
    norm: Vector<f32, N4>,
    cos: Vector<f32, N4>,
    sin: Vector<f32, N4>,
    eps: f32,
) -> Vector<f32, N4> {
    let lane = UNIT_POS_X;
    let squares = head * head;
    let mut sum = 0.0f32;
    #[unroll]
    for i in 0..4usize {
        sum += squares.extract(i);
    }
    let scale = (plane_total(sum, 32usize) * comptime!(1.0 / HEAD as f32) + eps).inverse_sqrt();
    let mut result = Vector::<f32, N4>::new(0.0f32);
    #[unroll]
    for i in 0..4usize {
        let value = head.extract(i) * scale * norm.extract(i);
        let other = plane_shuffle_xor(value, 16u32);
        let other = select(lane < 16u32, -other, other);
        result.insert(i, value * cos.extract(i) + other * sin.extract(i));
    }
    result
}

/// Four numbers rounded to bf16, and what the rounding took away.
#[cube]
fn halves(value: Vector<f32, N4>) -> (Vector<u32, N2>, Vector<u32, N2>) {
    let mut words = Array::<u32>::new(4usize);
    #[unroll]
    for i in 0..2usize {
        let first = value.extract(comptime!(i * 2));
        let second = value.extract(comptime!(i * 2 + 1));
        words[i] = pack_bf16(first, second);
        words[comptime!(i + 2)] = pack_bf16(first - low(words[i]), second - high(words[i]));
    }
    let mut hi = Vector::<u32, N2>::new(0u32);
    hi.insert(0usize, words[0]);
    hi.insert(1usize, words[1]);
    let mut lo = Vector::<u32, N2>::new(0u32);
    lo.insert(0usize, words[2]);
    lo.insert(1usize, words[3]);
    (hi, lo)
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

#[cube]
fn larger(a: f32, b: f32) -> f32 {
    select(a > b, a, b)
}

/// 2 to the power of `x`, 0 for what is far below.
#[cube]
fn exp2(x: f32) -> f32 {
    let d: f32;
    gpu_asm!("ex2.approx.ftz.f32 {d}, {a};", d = out(_) d, a = in(_) x, options(pure, nomem));
    d
}
