//! The next token.

use cubecl::prelude::*;

use super::{Control, LEN, POSITION, RING, STEP, TOKEN, TOKENS};
use crate::Buffer;

/// Cubes that look for the largest score.
const CUBES: usize = 128;
/// Units of a cube.
const UNITS: usize = 256;

/// Chooses the token with the largest score, the lower number first among equals.
#[derive(Clone, Debug)]
pub struct Chooser {
    /// The largest score of each cube.
    best: Buffer,
    /// Its number.
    ids: Buffer,
}

impl Chooser {
    /// Room for what cubes tell one another.
    #[must_use]
    pub fn new(client: &Client) -> Self {
        Self {
            best: Buffer::empty(client, f32::elem_type_native(), CUBES),
            ids: Buffer::empty(client, u32::elem_type_native(), CUBES),
        }
    }

    /// Chooses a token, remembers it, and moves on to the next position.
    ///
    /// - scores: f32 `[vocabulary]`
    #[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
    pub fn greedy(&self, client: &Client, scores: &Buffer, control: &Control) {
        // SAFETY: units stop at the last score.
        unsafe {
            largest_kernel::launch_unchecked(
                client,
                CubeCount::Static(CUBES as u32, 1, 1),
                CubeDim::new_1d(UNITS as u32),
                scores.arg(),
                self.best.arg(),
                self.ids.arg(),
            );
            greedy_kernel::launch_unchecked(
                client,
                CubeCount::Static(1, 1, 1),
                CubeDim::new_1d(CUBES as u32),
                self.best.arg(),
                self.ids.arg(),
                control.0.arg(),
            );
        }
    }
}

#[cube(launch_unchecked)]
fn largest_kernel(scores: &[f32], best: &mut [f32], ids: &mut [u32]) {
    let unit = UNIT_POS as usize;
    let each = scores.len().div_ceil(CUBES);
    let first = CUBE_POS_X as usize * each;
    let end = first + each;
    let end = select(end < scores.len(), end, scores.len());
    let mut value = f32::new(f32::MIN);
    let mut id = 0xFFFF_FFFFu32;
    let mut at = first + unit;
    while at < end {
        // NaN and both infinities become what no choice accepts.
        let finite = scores[at].abs() <= f32::new(f32::MAX);
        let score = select(finite, scores[at], f32::new(f32::INFINITY));
        if score > value {
            value = score;
            id = at as u32;
        }
        at += UNITS;
    }
    let mut values = Shared::<[f32]>::new_slice(UNITS);
    let mut numbers = Shared::<[u32]>::new_slice(UNITS);
    winner(&mut values, &mut numbers, value, id, UNITS);
    if unit == 0usize {
        best[CUBE_POS_X as usize] = values[0];
        ids[CUBE_POS_X as usize] = numbers[0];
    }
}

#[cube(launch_unchecked)]
fn greedy_kernel(best: &[f32], ids: &[u32], control: &mut [u32]) {
    let unit = UNIT_POS as usize;
    let mut values = Shared::<[f32]>::new_slice(CUBES);
    let mut numbers = Shared::<[u32]>::new_slice(CUBES);
    winner(&mut values, &mut numbers, best[unit], ids[unit], CUBES);
    if unit == 0usize {
        // Infinity stands for all that is not finite.
        let finite = values[0] <= f32::new(f32::MAX) && numbers[0] != u32::MAX;
        let id = select(finite, numbers[0], u32::new(u32::MAX as i64));
        let step = control[STEP];
        control[TOKENS + step as usize % RING] = id;
        control[TOKEN] = select(finite, id, 0u32);
        control[LEN] += 1u32;
        control[POSITION] = u32::reinterpret(f32::from_bits(control[POSITION]) + 1.0f32);
        control[STEP] = step + 1u32;
    }
}

/// The largest value of all units and its number, the lower number first, into the first place.
#[cube]
fn winner(
    values: &mut Shared<[f32]>,
    numbers: &mut Shared<[u32]>,
    value: f32,
    number: u32,
    #[comptime] units: usize,
) {
    let unit = UNIT_POS as usize;
    values[unit] = value;
    numbers[unit] = number;
    sync_cube();
    #[unroll]
    for step in 0..comptime!(units.ilog2()) {
        let half = comptime!(units >> (step + 1));
        if unit < half {
            let other = values[unit + half];
            let id = numbers[unit + half];
            if other > values[unit] || (other == values[unit] && id < numbers[unit]) {
                values[unit] = other;
                numbers[unit] = id;
            }
        }
        sync_cube();
    }
}
