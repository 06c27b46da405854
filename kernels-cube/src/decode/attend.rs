//! Attention of one token over the cache, in one launch (FlashAttention-2, Dao 2023; split over the keys as in
//! Flash-Decoding).
//!
//! A cube has the query heads of one key head and a part of the keys; its planes take 16 keys at a time. Queries and
//! probabilities are two halves of bf16 each, in rows of the matrix units that a group of heads leaves free, so both have
//! 16 significant bits. The last cube of a key head to finish joins the parts, in their order.
//!
//! [`head`] makes queries and the new key, [`keys`] multiplies, [`join`] joins planes and cubes.
//!
//! Keys and values of E4M3 become bf16, which holds all its numbers, in registers. They are half the bytes, so a plane
//! loads its next ones before it works on those that it has.

mod head;
mod join;
mod keys;

use cubecl::prelude::*;

use super::{arrive, warm};
use crate::Buffer;
use crate::clock;
use crate::control::LEN;
use crate::e4m3;
use crate::packed::tiles::Activations;
use head::{halves, has_nan, rotated, stored};
use keys::{add_values, load_queries, load_rows, scores, weights};

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
/// Cycles that a cube without keys waits before it fetches ahead, so that keys and values are asked for first.
const PAUSE: u32 = 2000;
/// Cubes that fetch ahead, at least and at most: each of a few would have much to fetch, and many may wait where cubes with
/// keys could be. Both are guesses.
const FETCHING: [usize; 2] = [32, 96];
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
    /// What the next launch reads: brought into the cache where enough cubes have no keys.
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
            // The cubes that have keys begin first.
            CubeCount::Static(kv_heads as u32, SPLITS as u32, 1),
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
    let lane = UNIT_POS_X as usize;
    let plane = UNIT_POS_Y as usize;
    let split = CUBE_POS_Y as usize;
    let kv = CUBE_POS_X as usize;
    let kv_heads = kv_heads as usize;
    let last = control[LEN] as usize;
    // The part of the keys of this cube.
    let least = comptime!(PLANES * KEYS);
    let even = (last / comptime!(SPLITS * KEYS) + 1usize) * KEYS;
    let length = select(even < least, least, even);
    let active = last / length + 1usize;
    if split >= active {
        fetch_ahead(
            next,
            (split - active) * kv_heads + kv,
            (SPLITS - active) * kv_heads,
        );
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

    let mut q = Array::<u32>::new(32usize);
    load_queries(&mut q, &queries, e4m3);
    let mut next_k = Array::<Vector<u32, N4>>::new(held);
    let mut next_v = Array::<Vector<u32, N4>>::new(held);
    if comptime!(e4m3) {
        #[unroll]
        for i in 0..held {
            next_k[i] = k[i];
            next_v[i] = v[i];
        }
    }
    // The largest score, and the sum of what values are multiplied with.
    let mut peak = Array::<f32>::new(2usize);
    peak[0] = f32::new(LOWEST);
    peak[1] = 0.0f32;
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
        let mut s = Array::<Vector<f32, N4>>::new(2usize);
        scores(&mut s, &q, &k, e4m3);
        let mut w = Array::<u32>::new(4usize);
        let kept = weights(&mut w, &s, &mut peak, base, end);
        add_values(&mut o, kept, &w, &v, e4m3);
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

    let mut planes = join::planes();
    join::share(&mut planes, &peak, &o);
    sync_cube();
    let mut value = Vector::<f32, N4>::new(0.0f32);
    peak[0] = f32::new(LOWEST);
    peak[1] = 0.0f32;
    if comptime!(group == PLANES) || plane < group {
        value = join::join_planes(&planes, &mut peak);
    }
    if active > 1usize {
        let at = (kv * SPLITS + split) * group + plane;
        if comptime!(group == PLANES) || plane < group {
            parts[at * comptime!(HEAD / 4) + lane] = value;
            if lane == 0usize {
                sums[at * 2usize] = peak[0];
                sums[at * 2usize + 1usize] = peak[1];
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
            value = join::join_cubes(parts, sums, &mut peak, kv, active, group);
        }
    }
    if comptime!(group == PLANES) || plane < group {
        let at = (kv * group + plane) * comptime!(HEAD / 4);
        join::write(a, &mut planes, value, peak[1], at, columns as usize);
    }
}

/// Brings what the next launch reads into the cache, if there are enough cubes without keys.
///
/// - idle: which of them this is, of so many
#[cube]
fn fetch_ahead(next: &[Vector<u32, N4>], idle: usize, count: usize) {
    let [least, most] = FETCHING;
    let cubes = select(count < most, count, most);
    if count >= least && idle < cubes {
        clock::wait(PAUSE);
        let units = comptime!(PLANES * 32);
        warm(next, idle * units + UNIT_POS as usize, cubes * units);
    }
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
