//! What planes and cubes found of a head, joined: from here on a plane has a head, a lane four numbers of it as they lie in
//! shared memory, number `d` at `d % 16 * 8 + d / 16`.

use cubecl::prelude::*;

use super::head::halves;
use super::{GROUP, HEAD, JOINED, PITCH, PLANES, SPLITS, exp2, larger};
use crate::plane::plane_total;

type N4 = Const<4>;
type N2 = Const<2>;

/// What the planes of a cube found.
#[derive(CubeType)]
pub(super) struct Planes {
    /// The largest score, `[plane, head]`.
    peaks: Shared<[f32]>,
    /// The sum of what values were multiplied with.
    weights: Shared<[f32]>,
    /// The sum of the values, `[plane, head, PITCH]`.
    outputs: Shared<[Vector<f32, N2>]>,
}

/// Room for it.
#[cube]
pub(super) fn planes() -> Planes {
    Planes {
        peaks: Shared::<[f32]>::new_slice(comptime!(PLANES * GROUP)),
        weights: Shared::<[f32]>::new_slice(comptime!(PLANES * GROUP)),
        outputs: Shared::<[Vector<f32, N2>]>::new_aligned_slice(
            comptime!(PLANES * GROUP * PITCH / 2),
            8usize,
        ),
    }
}

/// Puts what this plane found where all see it.
///
/// - peak: the largest score, and what of the sum this lane has
#[cube]
pub(super) fn share(planes: &mut Planes, peak: &Array<f32>, o: &Array<Vector<f32, N4>>) {
    let plane = UNIT_POS_Y as usize;
    let head = UNIT_POS_X as usize / 4usize;
    let t = UNIT_POS_X as usize % 4usize;
    let mut total = peak[1];
    total += plane_shuffle_xor(total, 1u32);
    total += plane_shuffle_xor(total, 2u32);
    if t == 0usize {
        planes.peaks[plane * GROUP + head] = peak[0];
        planes.weights[plane * GROUP + head] = total;
    }
    let own = &mut planes.outputs[(plane * GROUP + head) * comptime!(PITCH / 2) + t..];
    #[unroll]
    for m in 0..16usize {
        let mut two = Vector::<f32, N2>::new(0.0f32);
        two.insert(0usize, o[m].extract(0usize) + o[m].extract(2usize));
        two.insert(1usize, o[m].extract(1usize) + o[m].extract(3usize));
        own[comptime!(m * 4)] = two;
    }
}

/// What all planes found of this plane's head: the sum of the values. The largest score and the sum are added to `peak`, which
/// has none before.
#[cube]
pub(super) fn join_planes(planes: &Planes, peak: &mut Array<f32>) -> Vector<f32, N4> {
    let plane = UNIT_POS_Y as usize;
    let mut value = Vector::<f32, N4>::new(0.0f32);
    #[unroll]
    for other in 0..PLANES {
        peak[0] = larger(peak[0], planes.peaks[other * GROUP + plane]);
    }
    #[unroll]
    for other in 0..PLANES {
        let at = other * GROUP + plane;
        let factor = exp2(planes.peaks[at] - peak[0]);
        peak[1] += planes.weights[at] * factor;
        let own = &planes.outputs[at * comptime!(PITCH / 2) + UNIT_POS_X as usize * 2usize..];
        let (first, second) = (own[0usize], own[1usize]);
        let mut four = Vector::<f32, N4>::new(0.0f32);
        four.insert(0usize, first.extract(0usize));
        four.insert(1usize, first.extract(1usize));
        four.insert(2usize, second.extract(0usize));
        four.insert(3usize, second.extract(1usize));
        value += four * Vector::<f32, N4>::new(factor);
    }
    value
}

/// What the first `active` cubes of key head `kv` found of this plane's head; the sum goes to `peak`.
#[cube]
pub(super) fn join_cubes(
    parts: &mut [Vector<f32, N4>],
    sums: &mut [f32],
    peak: &mut Array<f32>,
    kv: usize,
    active: usize,
    #[comptime] group: usize,
) -> Vector<f32, N4> {
    let plane = UNIT_POS_Y as usize;
    let lane = UNIT_POS_X as usize;
    // A lane has the peak and the sum of a part.
    let part = select(lane < active, lane, 0usize);
    let at = ((kv * SPLITS + part) * group + plane) * 2usize;
    let (own_top, own_sum) = (sums[at], sums[at + 1usize]);
    let mut top = own_top;
    #[unroll]
    for step in 0..5u32 {
        top = larger(top, plane_shuffle_xor(top, comptime!(16 >> step)));
    }
    let factor = select(lane < active, exp2(own_top - top), 0.0f32);
    peak[1] = plane_total(own_sum * factor, 32usize);
    let mut value = Vector::<f32, N4>::new(0.0f32);
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
    value
}

/// Writes the head, divided by the sum, in two halves of bf16.
///
/// - at, columns: where it begins, and how far the halves are apart, in vectors of four numbers
#[cube]
pub(super) fn write(
    a: &mut [Vector<u32, N2>],
    planes: &mut Planes,
    value: Vector<f32, N4>,
    sum: f32,
    at: usize,
    columns: usize,
) {
    let lane = UNIT_POS_X as usize;
    // Into their order, in what only this plane has read.
    let own = &mut planes.outputs[UNIT_POS_Y as usize * comptime!(PITCH / 2)..];
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
    let mut ordered = Vector::<f32, N4>::new(0.0f32);
    #[unroll]
    for e in 0..4usize {
        let two = own[(lane % 4usize * 4usize + e) * 4usize + pair];
        ordered.insert(e, select(upper, two.extract(1usize), two.extract(0usize)));
    }
    let (hi, lo) = halves(ordered * Vector::<f32, N4>::new(1.0f32 / sum));
    a[at + lane] = hi;
    a[columns + at + lane] = lo;
}
