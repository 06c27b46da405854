//! Mono sound as samples, at one rate or another.

use rubato::audioadapter_buffers::direct::SequentialSliceOfSlices;
use rubato::{Fft, FixedSync, Resampler, WindowFunction};

use super::error::MediaError;

/// Sample rates, in Hz, that are believed. Outside of them a header is damaged.
pub const SAMPLE_RATES: std::ops::RangeInclusive<u32> = 1_000..=768_000;

/// Samples of the anti-aliasing filter on the side of the lower rate.
///
/// It sets where the filter starts to fall: with 320, at 92 % of the lower Nyquist frequency, half
/// way down at 96 %, as the `soxr_hq` filter does with which librosa resamples. A longer one would
/// keep more, and the uppermost mel filters would then see energy that the reference's do not.
const FILTER_LENGTH: usize = 320;

/// Rate in Hz through which its divisors go: 22,050 and 11,025 share so few factors with 16,000
/// that the smallest even block would make the filter longer than wanted.
const CD_RATE: u32 = 44_100;

/// Mono sound.
#[derive(Debug, Clone, PartialEq)]
pub struct Pcm {
    /// Samples a second, in Hz.
    pub sample_rate: u32,
    /// Samples in time order, full scale at ±1.
    pub samples: Vec<f32>,
}

impl Pcm {
    /// Duration in seconds.
    pub fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(self.sample_rate.max(1))
    }
}

/// Resamples `pcm` to `sample_rate` Hz with a windowed sinc of linear phase.
///
/// The output is aligned with the input (no delay) and has `ceil(samples · sample_rate /
/// pcm.sample_rate)` samples. At the same rate it is an exact copy.
///
/// # Errors
/// When either rate is outside of [`SAMPLE_RATES`].
pub fn resample(pcm: &Pcm, sample_rate: u32) -> Result<Pcm, MediaError> {
    for rate in [pcm.sample_rate, sample_rate] {
        check_rate("audio", rate)?;
    }
    if pcm.sample_rate == sample_rate || pcm.samples.is_empty() {
        return Ok(Pcm {
            sample_rate,
            samples: pcm.samples.clone(),
        });
    }
    let divides = |rate: u32| CD_RATE.is_multiple_of(rate);
    let via = (pcm.sample_rate < CD_RATE && divides(pcm.sample_rate) && !divides(sample_rate))
        .then(|| convert(pcm, CD_RATE))
        .transpose()?;
    convert(via.as_ref().unwrap_or(pcm), sample_rate).map(|mut output| {
        let length = output_length(pcm, sample_rate);
        output.samples.resize(length, 0.0);
        output
    })
}

/// One step of [`resample`] between two different rates.
fn convert(pcm: &Pcm, sample_rate: u32) -> Result<Pcm, MediaError> {
    let invalid = |error: &dyn std::fmt::Display| {
        MediaError::unexpected("audio", "samples that can be resampled", error.to_string())
    };
    let (from, to) = (pcm.sample_rate as usize, sample_rate as usize);
    let block = block_length(pcm.sample_rate, sample_rate);
    let window = WindowFunction::BlackmanHarris2;
    let mut resampler = Fft::<f32>::new_custom(from, to, block, 1, 1, window, FixedSync::Input)
        .map_err(|error| invalid(&error))?;
    let frames = pcm.samples.len();
    let channels = [pcm.samples.as_slice()];
    let input =
        SequentialSliceOfSlices::new(&channels, 1, frames).map_err(|error| invalid(&error))?;
    let output = resampler
        .process_all(&input, frames, None)
        .map_err(|error| invalid(&error))?;
    Ok(Pcm {
        sample_rate,
        samples: output.take_data(),
    })
}

/// Samples of `pcm` at another rate, rounded up; in integers, where rubato multiplies by a rounded
/// ratio.
fn output_length(pcm: &Pcm, sample_rate: u32) -> usize {
    let samples = pcm.samples.len() as u64 * u64::from(sample_rate);
    samples.div_ceil(u64::from(pcm.sample_rate)) as usize
}

/// Samples of input a block of the resampler takes; its filter is as long as that.
///
/// An even number of the smallest blocks that hold whole samples on both sides: then the filter's
/// middle lies on a sample of either side, and cutting off the delay leaves no fraction of a sample
/// behind.
fn block_length(from: u32, to: u32) -> usize {
    let smallest = (from / greatest_common_divisor(from, to)) as usize;
    let wanted = FILTER_LENGTH * from.max(to) as usize / to as usize;
    wanted.div_ceil(2 * smallest) * 2 * smallest
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

/// Refuses a sample rate that no recording has.
pub(super) fn check_rate(name: &str, rate: u32) -> Result<(), MediaError> {
    if SAMPLE_RATES.contains(&rate) {
        return Ok(());
    }
    let (low, high) = (SAMPLE_RATES.start(), SAMPLE_RATES.end());
    let expected = format!("audio with a sample rate of {low} to {high} Hz");
    Err(MediaError::unexpected(name, expected, format!("{rate} Hz")))
}
