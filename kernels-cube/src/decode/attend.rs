//! Attention of one token over the cache, in one launch (FlashAttention-2, Dao 2023; split over the keys as in
//! Flash-Decoding).
//!
//! A cube has the query heads of one key head and a part of the keys; its planes take 16 keys at a time. Queries and
//! probabilities are two halves of bf16 each, in rows of the matrix units that a group of heads leaves free, so both have
//! 16 significant bits. The last cube of a key head to finish joins the parts, in their order.

use cubecl::prelude::*;

use super::{LEN, arrive, pack_bf16, warm};
use crate::Buffer;
use crate::few::single::plane_total;
use crate::matrix_units::{high, low};
use crate::packed::tiles::Activations;
use crate::packed::tiles::decode::mma;

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

/// The keys and values of a layer, bf16 `[capacity, heads, 128]` each.
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
    /// See [`super::Control`].
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
            cache.keys.vectors(8),
            cache.values.vectors(8),
            attend.parts.vectors(4),
            attend.sums.arg(),
            attend.counters.arg(),
            a.buffer.vectors(4),
            next.bytes(16),
            kv_heads as u32,
            (columns / 4) as u32,
            attend.eps,
            heads / kv_heads,
        );
    }
}

#[cube(launch_unchecked)]
#[allow(
    clippy::too_many_lines,
    reason = "queries, keys and the join share what they have in registers"
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
    let mut k = Array::<Vector<u32, N4>>::new(8usize);
    let mut v = Array::<Vector<u32, N4>>::new(8usize);
    load_rows(&mut k, &mut v, keys, values, base, last, kv, kv_heads);
    let mut queries =
        Shared::<[Vector<u32, N2>]>::new_aligned_slice(comptime!(2 * GROUP * HEAD / 4), 16usize);
    // Key and value of the token.
    let mut fresh =
        Shared::<[Vector<u32, N4>]>::new_aligned_slice(comptime!(2 * HEAD / 8), 16usize);
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
        let mut words = Array::<u32>::new(2usize);
        words[0] = pack_bf16(row.extract(0usize), row.extract(1usize));
        words[1] = pack_bf16(row.extract(2usize), row.extract(3usize));
        let mut both = Vector::<u32, N4>::new(0u32);
        both.insert(0usize, words[0]);
        both.insert(1usize, words[1]);
        both.insert(2usize, plane_shuffle_xor(words[0], 1u32));
        both.insert(3usize, plane_shuffle_xor(words[1], 1u32));
        if lane & 1usize == 0usize {
            let at = (last * kv_heads + kv) * comptime!(HEAD / 8) + lane / 2usize;
            fresh[plane * comptime!(HEAD / 8) + lane / 2usize] = both;
            if plane == 0usize {
                keys[at] = both;
            } else {
                values[at] = both;
            }
        }
    }
    sync_cube();
    if base + KEYS > last && base <= last {
        // The new row is among them; those behind it are not looked at, but have to be numbers.
        #[unroll]
        for i in 0..8usize {
            if base + comptime!(i / 4 * 8) + head >= last {
                k[i] = fresh[comptime!(i % 4 * 4) + t];
            }
            if base + comptime!(i / 4 * 8 + i / 2 % 2) + t * 2usize >= last {
                v[i] = fresh[comptime!(HEAD / 8 + i % 2) + head * 2usize];
            }
        }
    }

    // Rows of the first operand: the upper halves of the queries, then the lower ones.
    let mut q = Array::<u32>::new(32usize);
    #[unroll]
    for j in 0..4usize {
        #[unroll]
        for half in 0..2usize {
            #[unroll]
            for u in 0..2usize {
                let at =
                    (half * GROUP + head) * comptime!(HEAD / 4) + (j * 4usize + t) * 2usize + u;
                let word = queries[at];
                q[comptime!(j * 8 + u * 4 + half)] = word.extract(0usize);
                q[comptime!(j * 8 + u * 4 + half + 2)] = word.extract(1usize);
            }
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
        // Scores of two times eight keys.
        let mut s = Array::<Vector<f32, N4>>::new(2usize);
        #[unroll]
        for tile in 0..2usize {
            s[tile] = Vector::<f32, N4>::new(0.0f32);
            #[unroll]
            for j in 0..4usize {
                let k = k[comptime!(tile * 4 + j)];
                #[unroll]
                for u in 0..2usize {
                    s[tile] = mma(
                        q[comptime!(j * 8 + u * 4)],
                        q[comptime!(j * 8 + u * 4 + 1)],
                        q[comptime!(j * 8 + u * 4 + 2)],
                        q[comptime!(j * 8 + u * 4 + 3)],
                        k.extract(comptime!(u * 2)),
                        k.extract(comptime!(u * 2 + 1)),
                        s[tile],
                    );
                }
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
        for m in 0..16usize {
            let (word, odd) = comptime!((m % 8 / 2, m % 2 == 1));
            let mut b = Array::<u32>::new(2usize);
            #[unroll]
            for i in 0..2usize {
                let first = v[comptime!(i * 4 + m / 8)].extract(word);
                let second = v[comptime!(i * 4 + 2 + m / 8)].extract(word);
                b[i] = halves_of(first, second, odd);
            }
            o[m] *= Vector::<f32, N4>::new(kept);
            o[m] = mma(w[0], w[1], w[2], w[3], b[0], b[1], o[m]);
        }
        base += comptime!(PLANES * KEYS);
        if base < end {
            load_rows(
                &mut k,
                &mut v,
                keys,
                values,
                base,
                last + 1usize,
                kv,
                kv_heads,
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
) {
    let head = UNIT_POS_X as usize / 4usize;
    let t = UNIT_POS_X as usize % 4usize;
    let last = select(end > 0usize, end, 1usize) - 1usize;
    #[unroll]
    for tile in 0..2usize {
        let key = base + tile * 8usize + head;
        let at = (select(key < last, key, last) * kv_heads + kv) * comptime!(HEAD / 8) + t;
        #[unroll]
        for j in 0..4usize {
            k[comptime!(tile * 4 + j)] = load(keys, at + j * 4usize);
        }
    }
    #[unroll]
    for i in 0..4usize {
        let key = base + comptime!(i / 2 * 8 + i % 2) + t * 2usize;
        let at =
            (select(key < last, key, last) * kv_heads + kv) * comptime!(HEAD / 8) + head * 2usize;
        v[comptime!(i * 2)] = load(values, at);
        v[comptime!(i * 2 + 1)] = load(values, at + 1usize);
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
