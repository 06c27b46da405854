//! Rows of activations to 4 bits.

use cubecl::prelude::*;

use super::encode::{code_of, e8m0_of};
use super::order::{STEP, activation_word};
use super::recode;
use crate::Buffer;
use crate::On;
use crate::e4m3::{finite, magnitude_of};
use crate::grid::{cubes, flat};
use crate::packed::tiles::{Scaled, Tiling};
use crate::units::Units;

/// Units of a row.
const UNITS: usize = 64;

/// Rows in the format of the weights that they are multiplied with.
#[derive(Clone, Debug)]
pub struct Quantized {
    /// Codes: u32 `[rows, columns / 8]`, in the order of `order::activation_word` and `recode::column`.
    pub codes: Buffer,
    /// The scales of each step, the first in the lowest byte: u32 `[rows, columns / 64]`.
    pub scales: Buffer,
    /// What the values of a row are multiplied with besides: f32 `[rows]`. Not finite where a number of the row is not.
    pub factors: Buffer,
}

/// Rounds rows of `x`, each by itself, and pads them to the columns of a tiling.
///
/// For NVFP4 a row's factor is `amax / 2688`, a block's scale `amax / (6 * factor)` in E4M3, and codes are those of the
/// values over both, as for weights; for MXFP4 a block's scale is the smallest power of two that does not saturate.
///
/// - x: `[rows, width]`
#[must_use]
pub fn quantize<'a>(
    on: impl Into<On<'a>>,
    (x, width): (&Buffer, usize),
    tiling: Tiling,
) -> Quantized {
    let On { client, units } = on.into();
    let rows = x.len() / width;
    let steps = tiling.columns() / STEP;
    let u32s = |len| Buffer::empty(client, u32::elem_type_native(), len);
    let quantized = Quantized {
        codes: u32s(rows * steps * 8),
        scales: u32s(rows * steps),
        factors: Buffer::empty(client, f32::elem_type_native(), rows),
    };
    #[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
    // SAFETY: cubes behind the rows return, and columns behind the width are not read.
    unsafe {
        quantize_kernel::launch_unchecked(
            client,
            cubes(rows),
            CubeDim::new_1d(UNITS as u32),
            x.arg(),
            quantized.codes.arg(),
            quantized.scales.arg(),
            quantized.factors.arg(),
            rows as u32,
            width as u32,
            steps as u32,
            tiling.scaled.block,
            tiling.scaled.e8m0(),
            units == Units::Together,
            x.elem,
        );
    }
    quantized
}

/// The values of quantized rows in f32, padding included: `[rows, columns]`.
#[must_use]
pub fn dequantize(client: &Client, x: &Quantized, tiling: Tiling) -> Buffer {
    let values = Buffer::empty(client, f32::elem_type_native(), x.codes.len() * 8);
    let (cubes, dim) = flat(values.len());
    #[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
    // SAFETY: units beyond the values return.
    unsafe {
        dequantize_kernel::launch_unchecked(
            client,
            cubes,
            dim,
            x.codes.arg(),
            x.scales.arg(),
            x.factors.arg(),
            values.arg(),
            tiling.columns() as u32,
            tiling.scaled,
        );
    }
    values
}

#[cube(launch_unchecked)]
fn quantize_kernel<X: Float>(
    x: &[X],
    codes: &mut [u32],
    scales: &mut [u32],
    factors: &mut [f32],
    rows: u32,
    width: u32,
    steps: u32,
    #[comptime] block: usize,
    #[comptime] e8m0: bool,
    #[comptime] together: bool,
    #[define(X)] _elem: ElemType,
) {
    let row = CUBE_POS;
    if row >= rows as usize {
        terminate!();
    }
    let (width, steps) = (width as usize, steps as usize);
    let unit = UNIT_POS_X as usize;
    let mut factor = 1.0f32;
    if comptime!(!e8m0) {
        let largest = row_largest(x, row * width, width, together);
        let scale = f32::from_bits(largest) / 2688.0f32;
        let is_finite = largest < 0x7F80_0000u32;
        factor = select(is_finite && scale > 0.0f32, scale, 1.0f32);
        if unit == 0usize {
            factors[row] = select(is_finite, factor, f32::from_bits(largest));
        }
    } else if unit == 0usize {
        factors[row] = factor;
    }
    let mut step = unit;
    while step < steps {
        let mut scale_word = 0u32;
        let mut values = Array::<f32>::new(block);
        #[unroll]
        for b in 0..comptime!(STEP / block) {
            let first = step * STEP + b * block;
            let mut largest = 0u32;
            #[unroll]
            for i in 0..block {
                values[i] = value_at(x, row, first + i, width);
                let bits = values[i].to_bits() & 0x7FFF_FFFFu32;
                largest = select(bits > largest, bits, largest);
            }
            let byte = scale_byte(f32::from_bits(largest), factor, e8m0);
            scale_word |= byte << comptime!(b as u32 * 8);
            let divisor = divisor(byte, factor, e8m0);
            #[unroll]
            for eight in 0..comptime!(block / 8) {
                let word = code_word(&values, eight, divisor);
                let part = comptime!(b * block / 8 + eight);
                let at = activation_word(step, comptime!(part / 4), comptime!(part % 4));
                codes[row * steps * 8usize + at] = word;
            }
        }
        scales[row * steps + step] = scale_word;
        step += UNITS;
    }
}

/// The scale of a block with this largest magnitude.
#[cube]
fn scale_byte(largest: f32, factor: f32, #[comptime] e8m0: bool) -> u32 {
    if comptime!(e8m0) {
        e8m0_of(largest)
    } else {
        // A block of zeros has scale 1, and no scale is smaller than the smallest.
        let scale = largest / (6.0f32 * factor);
        let scale = select(scale == 0.0f32, 1.0f32, scale);
        let scale = select(scale < 0.001_953_125f32, 0.001_953_125f32, scale);
        magnitude_of(select(scale > 448.0f32, 448.0f32, scale))
    }
}

/// What the values of a block of this scale are divided by.
#[cube]
fn divisor(byte: u32, factor: f32, #[comptime] e8m0: bool) -> f32 {
    if comptime!(e8m0) {
        f32::from_bits(select(byte == 0u32, 0x0040_0000u32, byte << 23u32))
    } else {
        finite(byte) * factor
    }
}

/// The codes of eight values.
#[cube]
fn code_word(values: &Array<f32>, #[comptime] eight: usize, divisor: f32) -> u32 {
    let mut word = 0u32;
    #[unroll]
    for nibble in 0..8usize {
        let value = values[comptime!(eight * 8 + recode::column(nibble))];
        word |= code_of(value / divisor) << comptime!(nibble as u32 * 4);
    }
    word
}

/// A value of a row, 0 in padding.
#[cube]
fn value_at<X: Float>(x: &[X], row: usize, column: usize, width: usize) -> f32 {
    let mut value = 0.0f32;
    if column < width {
        value = f32::cast_from(x[row * width + column]);
    }
    value
}

/// The bits of the largest magnitude of a row; magnitudes are ordered as their bits are, NaN above all.
#[cube]
fn row_largest<X: Float>(x: &[X], start: usize, width: usize, #[comptime] together: bool) -> u32 {
    if comptime!(!together) {
        part_largest(x, start, width, 0usize, 1usize)
    } else {
        let unit = UNIT_POS_X as usize;
        let mut room = Shared::<[u32]>::new_slice(UNITS);
        room[unit] = part_largest(x, start, width, unit, UNITS);
        sync_cube();
        #[unroll]
        for step in 0..comptime!(UNITS.ilog2() as usize) {
            let half = comptime!(UNITS >> (step + 1));
            if unit < half {
                let other = room[unit + half];
                if other > room[unit] {
                    room[unit] = other;
                }
            }
            sync_cube();
        }
        room[0]
    }
}

/// The same of every `stride`th number from `first` on.
#[cube]
fn part_largest<X: Float>(
    x: &[X],
    start: usize,
    width: usize,
    first: usize,
    #[comptime] stride: usize,
) -> u32 {
    let mut largest = 0u32;
    let mut column = first;
    while column < width {
        let bits = f32::cast_from(x[start + column]).to_bits() & 0x7FFF_FFFFu32;
        largest = select(bits > largest, bits, largest);
        column += stride;
    }
    largest
}

#[cube(launch_unchecked)]
fn dequantize_kernel(
    codes: &[u32],
    scales: &[u32],
    factors: &[f32],
    values: &mut [f32],
    columns: u32,
    #[comptime] scaled: Scaled,
) {
    let at = ABSOLUTE_POS;
    if at >= values.len() {
        terminate!();
    }
    let columns = columns as usize;
    let (row, column) = (at / columns, at % columns);
    let step = column / STEP;
    let word = activation_word(step, column % STEP / 32usize, column % 32usize / 8usize);
    let mut nibble = 0u32;
    #[unroll]
    for place in 0..8usize {
        if column % 8usize == comptime!(recode::column(place)) {
            nibble = comptime!(place as u32);
        }
    }
    let code = (codes[row * (columns / 8usize) + word] >> (nibble * 4u32)) & 15u32;
    let magnitude = code & 7u32;
    let large = f32::from_bits((magnitude << 22u32) + 0x3F00_0000u32);
    let value = select(magnitude < 2u32, f32::cast_from(magnitude) * 0.5f32, large);
    let block = column % STEP / scaled.block;
    let scale_word = scales[row * (columns / STEP) + step];
    let byte = (scale_word >> (block as u32 * 8u32)) & 0xFFu32;
    let scale = if comptime!(scaled.e8m0()) {
        f32::from_bits(byte << 23u32)
    } else {
        finite(byte)
    };
    let product = value * scale * factors[row];
    values[at] = select(code >= 8u32, -product, product);
}
