//! Scores as whole numbers in the same order.

use cubecl::prelude::*;

use super::{BANS, CHOSEN, Chooser, Form, PENALTY, SEEN, marks};
use crate::Buffer;

/// Units of a cube, and the scores of each.
const UNITS: usize = 256;
const EACH: usize = 4;

/// What stands for scores that are NaN or infinite; no number is larger.
pub(super) const NOT_FINITE: u32 = u32::MAX;

/// The keys of all scores, and the largest of each group.
#[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
pub(super) fn launch(client: &Client, chooser: &Chooser, scores: &Buffer) {
    let cubes = chooser.keys.len().div_ceil(UNITS * EACH);
    // SAFETY: units stop at the last score and at the last group.
    unsafe {
        score_kernel::launch_unchecked(
            client,
            CubeCount::Static(cubes as u32, 1, 1),
            CubeDim::new_1d(UNITS as u32),
            scores.arg(),
            chooser.state.arg(),
            chooser.keys.arg(),
            chooser.peaks.arg(),
            chooser.vocabulary as u32,
            chooser.groups() as u32,
            marks(chooser.vocabulary) as u32,
            chooser.form,
        );
    }
}

#[cube(launch_unchecked)]
fn score_kernel(
    scores: &[f32],
    state: &[u32],
    keys: &mut [u32],
    peaks: &mut [u32],
    vocabulary: u32,
    groups: u32,
    marks: u32,
    #[comptime] form: Form,
) {
    let unit = UNIT_POS as usize;
    let mut largest = Shared::<[u32]>::new_slice(comptime!(UNITS * EACH));
    let first = CUBE_POS_X as usize * comptime!(UNITS * EACH);
    #[unroll]
    for i in 0..EACH {
        let at = i * UNITS + unit;
        let id = first + at;
        let mut key = 0u32;
        if id < vocabulary as usize {
            key = key_of(scores[id], id, state, marks);
        }
        if id < groups as usize * comptime!(form.group) {
            keys[id] = key;
        }
        largest[at] = key;
    }
    sync_cube();
    // Cubes have whole groups.
    if unit < comptime!(UNITS * EACH / form.group) {
        let mut most = 0u32;
        for i in 0..comptime!(form.group) {
            // Units begin in different banks.
            let other = largest[unit * comptime!(form.group) + (i + unit) % comptime!(form.group)];
            most = select(other > most, other, most);
        }
        let group = first / comptime!(form.group) + unit;
        if group < groups as usize {
            peaks[group] = most;
        }
    }
}

/// The key of a score after penalty and bans: zero where the token is banned.
#[cube]
pub(super) fn key_of(score: f32, id: usize, state: &[u32], marks: u32) -> u32 {
    let word = SEEN + id / 32usize;
    let bit = 1u32 << (id as u32 % 32u32);
    let penalty = f32::from_bits(state[PENALTY]);
    let mut value = score;
    if state[word] & bit != 0u32 {
        value = select(score < 0.0f32, score * penalty, score / penalty);
    }
    let bits = u32::reinterpret(value);
    // Both zeros are one.
    let bits = select(value == 0.0f32, 0u32, bits);
    let mut key = select(bits >> 31u32 == 1u32, !bits, bits | 0x8000_0000u32);
    if state[CHOSEN] < state[BANS] && state[word + marks as usize] & bit != 0u32 {
        key = 0u32;
    }
    // NaN and both infinities have all bits of the exponent.
    let exponent = u32::reinterpret(score) & 0x7F80_0000u32;
    select(exponent == 0x7F80_0000u32, u32::new(NOT_FINITE as i64), key)
}

/// The score of a key.
#[cube]
pub(super) fn value(key: u32) -> f32 {
    let positive = key >> 31u32 == 1u32;
    f32::from_bits(select(positive, key & 0x7FFF_FFFFu32, !key))
}
