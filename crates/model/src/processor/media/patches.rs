//! Pixels to the rows the vision tower takes: size, resize, normalise, cut, order (spec D.1).

use std::sync::Arc;

use image::RgbImage;
use rayon::prelude::*;

use super::config::ImageConfig;
use super::error::MediaError;
use super::resize::resize_bicubic;

/// Most that the longer side may exceed the shorter one: a constant of the reference.
pub const MAX_ASPECT: usize = 200;

/// Colour channels of a patch.
const CHANNELS: usize = 3;

/// What a resize keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PixelLimits {
    /// Both sides become multiples of this.
    pub factor: usize,
    /// Fewest pixels.
    pub min_pixels: usize,
    /// Most pixels.
    pub max_pixels: usize,
}

impl From<&ImageConfig> for PixelLimits {
    fn from(config: &ImageConfig) -> Self {
        let (min_pixels, max_pixels) = (config.min_pixels, config.max_pixels);
        Self {
            factor: config.factor(),
            min_pixels,
            max_pixels,
        }
    }
}

/// Patches of one image or video, in the order of the vision tower.
#[derive(Debug, Clone, PartialEq)]
pub struct Patches {
    /// Patches along time, height and width: `[t, h, w]`.
    pub grid: [usize; 3],
    /// Normalised pixels `[t·h·w, 3·temporal_patch_size·patch_size²]`, row-major. Rows are ordered
    /// by (t, block row, block column, row in block, column in block), columns by (colour, frame,
    /// y, x). Clones share them.
    pub data: Arc<[f32]>,
}

impl Patches {
    /// Number of patches, `t·h·w`.
    pub fn rows(&self) -> usize {
        self.grid.iter().product()
    }

    /// Placeholder tokens: one for each block of `merge_size²` patches.
    pub fn token_count(&self, merge_size: usize) -> usize {
        self.rows() / (merge_size * merge_size)
    }
}

/// The size `(height, width)` to which the reference resizes an image, in pixels.
///
/// Both sides are rounded (half to even) to multiples of the factor; when that leaves the pixel
/// limits, the sides are scaled so that the area fits, rounding down above the maximum and up below
/// the minimum.
///
/// # Errors
/// When one side is more than [`MAX_ASPECT`] times the other, or zero.
pub fn smart_resize(
    height: usize,
    width: usize,
    limits: PixelLimits,
) -> Result<(usize, usize), MediaError> {
    check_aspect("image", width, height)?;
    let factor = limits.factor as f64;
    let (h, w) = (height as f64, width as f64);
    let rounded = |side: f64| (side / factor).round_ties_even() as usize * limits.factor;
    let area = rounded(h) * rounded(w);
    if area > limits.max_pixels {
        let shrink = (h * w / limits.max_pixels as f64).sqrt();
        let floor = |side: f64| (side / shrink / factor).floor() as usize * limits.factor;
        Ok((floor(h).max(limits.factor), floor(w).max(limits.factor)))
    } else if area < limits.min_pixels {
        let grow = (limits.min_pixels as f64 / (h * w)).sqrt();
        let ceil = |side: f64| (side * grow / factor).ceil() as usize * limits.factor;
        Ok((ceil(h), ceil(w)))
    } else {
        Ok((rounded(h), rounded(w)))
    }
}

/// Resizes an image and cuts it into patches; the one frame stands for all frames of a patch.
///
/// Followed is the processor alone, with one resize; the helper library of the reference resizes
/// twice by default.
///
/// # Errors
/// As [`smart_resize`].
pub fn image_patches(image: &RgbImage, config: &ImageConfig) -> Result<Patches, MediaError> {
    let resized = fit(image, config.into())?;
    Ok(cut(&[&resized], config))
}

/// `image` resized as [`smart_resize`] says.
pub(super) fn fit(image: &RgbImage, limits: PixelLimits) -> Result<RgbImage, MediaError> {
    let (height, width) = smart_resize(image.height() as usize, image.width() as usize, limits)?;
    Ok(resize_bicubic(image, width as u32, height as u32))
}

/// Refuses sides that differ too much, as the reference does.
pub(super) fn check_aspect(name: &str, width: usize, height: usize) -> Result<(), MediaError> {
    let (short, long) = (width.min(height), width.max(height));
    if short > 0 && long <= short * MAX_ASPECT {
        return Ok(());
    }
    let expected = format!("an image whose sides differ by at most {MAX_ASPECT} times");
    Err(MediaError::unexpected(
        name,
        expected,
        format!("{width}×{height} pixels"),
    ))
}

/// Cuts frames of one size, whose sides are multiples of the factor, into patches.
///
/// Too few frames for the last patch in time are filled up by repeating the last one. `frames` must
/// not be empty.
pub(super) fn cut(frames: &[&RgbImage], config: &ImageConfig) -> Patches {
    let &ImageConfig {
        patch_size,
        temporal_patch_size,
        merge_size,
        ..
    } = config;
    let (width, height) = frames[0].dimensions();
    let grid = [
        frames.len().div_ceil(temporal_patch_size),
        height as usize / patch_size,
        width as usize / patch_size,
    ];
    let values = normalised_values(config);
    let row_length = CHANNELS * temporal_patch_size * patch_size * patch_size;
    let block_length = row_length * merge_size * merge_size;
    let mut data = vec![0.0; grid.iter().product::<usize>() * row_length];
    let blocks_across = grid[2] / merge_size;
    let blocks_a_step = grid[1] / merge_size * blocks_across;
    data.par_chunks_exact_mut(block_length)
        .enumerate()
        .for_each(|(block, out)| {
            let (step, place) = (block / blocks_a_step, block % blocks_a_step);
            let corner =
                [place / blocks_across, place % blocks_across].map(|index| index * merge_size);
            for (patch, out) in out.chunks_exact_mut(row_length).enumerate() {
                let top = (corner[0] + patch / merge_size) * patch_size;
                let left = (corner[1] + patch % merge_size) * patch_size;
                // [colour, frame, y, x]
                for (run, out) in out.chunks_exact_mut(patch_size).enumerate() {
                    let y = top + run % patch_size;
                    let frame = run / patch_size % temporal_patch_size;
                    let colour = run / patch_size / temporal_patch_size;
                    let frame = (step * temporal_patch_size + frame).min(frames.len() - 1);
                    let start = (y * width as usize + left) * CHANNELS + colour;
                    let samples = frames[frame].as_raw()[start..].iter().step_by(CHANNELS);
                    for (value, &sample) in out.iter_mut().zip(samples) {
                        *value = values[colour][usize::from(sample)];
                    }
                }
            }
        });
    let data = data.into();
    Patches { grid, data }
}

/// Normalised value of every sample of every colour, fused as in the reference: `(x − 255·mean) /
/// (255·std)`.
fn normalised_values(config: &ImageConfig) -> [[f32; 256]; CHANNELS] {
    std::array::from_fn(|colour| {
        let mean = config.image_mean[colour] * 255.0;
        let std = config.image_std[colour] * 255.0;
        std::array::from_fn(|sample| (sample as f32 - mean) / std)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PixelLimits = PixelLimits {
        factor: 32,
        min_pixels: 3136,
        max_pixels: 12_845_056,
    };

    #[test]
    fn sizes_are_those_of_the_reference() {
        for ((height, width), expected) in [
            ((480, 640), (480, 640)),
            ((1080, 1920), (1088, 1920)),
            // 22.5 rounds to the even 22.
            ((720, 1280), (704, 1280)),
            ((224, 224), (224, 224)),
            ((100, 50), (96, 64)),
            ((16, 16), (64, 64)),
            ((1, 1), (64, 64)),
            ((4000, 6000), (2912, 4384)),
        ] {
            assert_eq!(
                smart_resize(height, width, LIMITS).unwrap(),
                expected,
                "{height}×{width}"
            );
        }
    }

    #[test]
    fn sides_that_differ_too_much_are_refused() {
        assert!(smart_resize(1, 200, LIMITS).is_ok());
        assert!(smart_resize(201, 1, LIMITS).is_err());
        assert!(smart_resize(0, 1, LIMITS).is_err());
    }

    #[test]
    fn rows_and_columns_follow_the_specified_order() {
        let config = ImageConfig {
            min_pixels: 1,
            max_pixels: 1 << 20,
            patch_size: 2,
            temporal_patch_size: 2,
            merge_size: 2,
            image_mean: [0.5, 0.25, 0.0],
            image_std: [0.5, 0.25, 1.0],
        };
        let frame = |shift: u32| {
            RgbImage::from_fn(12, 8, |x, y| {
                image::Rgb([1, 2, 3].map(|c| (shift + 40 * c + 12 * y + x) as u8))
            })
        };
        let frames = [frame(0), frame(7), frame(21)];
        let patches = cut(&frames.iter().collect::<Vec<_>>(), &config);
        assert_eq!(patches.grid, [2, 4, 6]);
        // (t, block row, block column, row in block, column in block) and (colour, frame, y, x),
        // slowest first.
        let mut expected = Vec::new();
        for (t, block_row, block_column) in product([2, 2, 3]) {
            for (row, column, colour) in product([2, 2, 3]) {
                for (frame, y, x) in product([2, 2, 2]) {
                    let image = &frames[(2 * t + frame).min(2)];
                    let (top, left) = (2 * (2 * block_row + row), 2 * (2 * block_column + column));
                    let sample = image.get_pixel((left + x) as u32, (top + y) as u32)[colour];
                    let (mean, std) = (config.image_mean[colour], config.image_std[colour]);
                    expected.push((f32::from(sample) - mean * 255.0) / (std * 255.0));
                }
            }
        }
        assert_eq!(*patches.data, expected);
    }

    fn product([a, b, c]: [usize; 3]) -> impl Iterator<Item = (usize, usize, usize)> {
        (0..a * b * c).map(move |index| (index / (b * c), index / c % b, index % c))
    }
}
