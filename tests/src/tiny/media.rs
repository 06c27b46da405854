//! Clips, pictures and films made of integers: the rule of `inputs.py`, bit by bit.

use burn_omni_model::processor::media::Pcm;
use image::RgbImage;

/// A hash of two numbers.
#[must_use]
pub fn mix(seed: u32, n: u32) -> u32 {
    let x = n
        .wrapping_mul(0x9E37_79B1)
        .wrapping_add(seed.wrapping_mul(0x85EB_CA77));
    let x = (x ^ (x >> 15)).wrapping_mul(0x2C1B_3C6D);
    let x = (x ^ (x >> 12)).wrapping_mul(0x297A_2D39);
    x ^ (x >> 15)
}

/// A triangle wave whose pitch and loudness change every 1600 samples, plus noise.
///
/// # Panics
/// Never: every sample is in the range of 16 bits.
#[must_use]
pub fn audio(samples: u32, seed: u32) -> Vec<i16> {
    (0..samples)
        .map(|n| {
            let block = n / 1600;
            let step = i64::from(200 + mix(seed + 1000, block) % 6000);
            let loud = i64::from(mix(seed + 2000, block) % 192);
            let wave = (((i64::from(n) * step) & 0xFFFF) - 32_768).abs() * 2 - 32_768;
            let noise = i64::from(mix(seed, n) & 0xFFFF) - 32_768;
            let sample = ((wave * loud + noise * 16) >> 8).min(32_767);
            i16::try_from(sample).expect("loud is below 192 of 256")
        })
        .collect()
}

/// The clip as the model hears it, at 16 kHz.
#[must_use]
pub fn clip(samples: u32, seed: u32) -> Pcm {
    let samples = audio(samples, seed).into_iter();
    Pcm {
        sample_rate: 16_000,
        samples: samples.map(|x| f32::from(x) / 32_768.0).collect(),
    }
}

/// A saw-tooth ramp that wraps, inverted on a chequer board that moves 7 columns a frame, plus noise.
#[must_use]
pub fn video(frames: u32, height: u32, width: u32, seed: u32) -> Vec<RgbImage> {
    let frame = |f: u32| {
        RgbImage::from_fn(width, height, |x, y| {
            let moved = x + 7 * f;
            let inverted = (moved / 13 + y / 9) & 1 == 1;
            image::Rgb([0, 1, 2].map(|c| {
                let base = (3 * moved + 5 * y + 70 * c + 11 * seed) & 255;
                let base = if inverted { 255 - base } else { base };
                let noise = mix(seed, ((f * height + y) * width + x) * 3 + c) & 15;
                u8::try_from((base + noise).min(255)).expect("at most 255")
            }))
        })
    };
    (0..frames).map(frame).collect()
}

/// A picture: the first frame of such a film.
#[must_use]
pub fn image(height: u32, width: u32, seed: u32) -> RgbImage {
    video(1, height, width, seed).remove(0)
}
