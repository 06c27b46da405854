//! Bicubic resize of 8-bit RGB with antialias, as the reference image processor does it.
//!
//! The default processor of the reference resizes a `u8` tensor with torchvision, which on a CPU
//! means ATen's fixed-point path: rows first, then columns, an 8-bit image between the two, `i16`
//! weights. Every step here is the same integer arithmetic, so the result is equal bit for bit, not
//! merely close (spec D.1, item 3).

use image::RgbImage;
use rayon::prelude::*;

/// Colour channels of an RGB image.
const CHANNELS: usize = 3;
/// Support of the cubic kernel in output pixels, on either side.
const CUBIC_SUPPORT: f64 = 2.0;
/// The reference's cubic parameter when antialias is on (Keys' kernel; without antialias it would
/// be -0.75).
const CUBIC_A: f64 = -0.5;
/// Most fractional bits the reference gives a weight.
const MAX_PRECISION: u32 = 22;

/// Resizes `image` to `width` × `height` pixels with the bicubic antialias filter.
///
/// An axis whose size does not change is copied, not filtered, as in the reference. Both sizes must
/// be above zero.
pub fn resize_bicubic(image: &RgbImage, width: u32, height: u32) -> RgbImage {
    let (from_width, from_height) = (image.width() as usize, image.height() as usize);
    let (to_width, to_height) = (width as usize, height as usize);
    let mut pixels = std::borrow::Cow::Borrowed(image.as_raw().as_slice());
    if from_width != to_width {
        pixels = resize_rows(&pixels, from_width, &Taps::new(from_width, to_width)).into();
    }
    if from_height != to_height {
        pixels = resize_columns(&pixels, to_width, &Taps::new(from_height, to_height)).into();
    }
    RgbImage::from_raw(width, height, pixels.into_owned())
        .expect("a pass writes width * height * 3 bytes")
}

/// Filter taps of one axis: for each output position the first input position and the fixed-point
/// weights from there.
struct Taps {
    /// First input position of each output position; length = output size.
    starts: Vec<usize>,
    /// Where the weights of each output position begin in `weights`; length = output size + 1.
    offsets: Vec<usize>,
    /// Weights times `2^precision`, rounded half away from zero.
    weights: Vec<i16>,
    /// Fractional bits of a weight: the most for which the largest weight still fits in an `i16`.
    precision: u32,
}

impl Taps {
    /// Taps that map `from` input positions to `to` output positions.
    fn new(from: usize, to: usize) -> Self {
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let support = CUBIC_SUPPORT * stretch;
        let mut taps = Self {
            starts: Vec::with_capacity(to),
            offsets: vec![0],
            weights: Vec::new(),
            precision: 0,
        };
        let mut exact = Vec::new();
        for position in 0..to {
            let center = scale * (position as f64 + 0.5);
            // Truncation toward zero, as the cast in the reference does, is what decides the tap
            // count at the edges.
            let start = ((center - support + 0.5) as i64).max(0) as usize;
            let end = ((center + support + 0.5) as i64).clamp(0, from as i64) as usize;
            let first = exact.len();
            exact.extend(
                (start..end).map(|tap| cubic((tap as f64 - center + 0.5) * (1.0 / stretch))),
            );
            let total: f64 = exact[first..].iter().sum();
            if total != 0.0 {
                exact[first..]
                    .iter_mut()
                    .for_each(|weight| *weight /= total);
            }
            taps.starts.push(start);
            taps.offsets.push(exact.len());
        }
        let largest = exact.iter().copied().fold(0.0, f64::max);
        taps.precision = precision(largest);
        let one = f64::from(1u32 << taps.precision);
        taps.weights = exact
            .iter()
            .map(|&weight| (weight * one).round() as i16)
            .collect();
        taps
    }

    /// First input position and weights of output position `position`.
    fn at(&self, position: usize) -> (usize, &[i16]) {
        let weights = &self.weights[self.offsets[position]..self.offsets[position + 1]];
        (self.starts[position], weights)
    }
}

/// Fractional bits for weights of which the largest is `largest`.
fn precision(largest: f64) -> u32 {
    (0..MAX_PRECISION)
        .find(|bits| (0.5 + largest * f64::from(1u32 << (bits + 1))) as i64 >= 1 << 15)
        .unwrap_or(MAX_PRECISION)
}

/// Keys' cubic kernel with parameter [`CUBIC_A`].
fn cubic(x: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        ((CUBIC_A + 2.0) * x - (CUBIC_A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * CUBIC_A
    } else {
        0.0
    }
}

/// Filters along the rows: `[height, from_width, 3]` → `[height, to_width, 3]`.
fn resize_rows(pixels: &[u8], from_width: usize, taps: &Taps) -> Vec<u8> {
    let to_width = taps.starts.len();
    let height = pixels.len() / (from_width * CHANNELS);
    let mut out = vec![0; height * to_width * CHANNELS];
    out.par_chunks_exact_mut(to_width * CHANNELS)
        .zip(pixels.par_chunks_exact(from_width * CHANNELS))
        .for_each(|(out, row)| {
            for (position, pixel) in out.chunks_exact_mut(CHANNELS).enumerate() {
                let (start, weights) = taps.at(position);
                let window = row[start * CHANNELS..].chunks_exact(CHANNELS);
                let mut sums = [1i32 << (taps.precision - 1); CHANNELS];
                for (tap, &weight) in window.zip(weights) {
                    for (sum, &value) in sums.iter_mut().zip(tap) {
                        *sum += i32::from(value) * i32::from(weight);
                    }
                }
                for (value, sum) in pixel.iter_mut().zip(sums) {
                    *value = (sum >> taps.precision).clamp(0, 255) as u8;
                }
            }
        });
    out
}

/// Filters along the columns: `[from_height, width, 3]` → `[to_height, width, 3]`.
fn resize_columns(pixels: &[u8], width: usize, taps: &Taps) -> Vec<u8> {
    let stride = width * CHANNELS;
    let mut out = vec![0; taps.starts.len() * stride];
    out.par_chunks_exact_mut(stride).enumerate().for_each_init(
        || vec![0i32; stride],
        |sums, (position, out)| {
            let (start, weights) = taps.at(position);
            sums.fill(1 << (taps.precision - 1));
            for (row, &weight) in pixels[start * stride..].chunks_exact(stride).zip(weights) {
                for (sum, &value) in sums.iter_mut().zip(row) {
                    *sum += i32::from(value) * i32::from(weight);
                }
            }
            for (value, &sum) in out.iter_mut().zip(sums.iter()) {
                *value = (sum >> taps.precision).clamp(0, 255) as u8;
            }
        },
    );
    out
}
