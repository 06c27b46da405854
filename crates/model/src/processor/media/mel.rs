//! Waveform to log-mel features, as the reference `WhisperFeatureExtractor` computes them (spec
//! C.1).

use std::sync::Arc;

use rayon::prelude::*;
use realfft::RealFftPlanner;
use realfft::num_complex::Complex;

use super::config::AudioConfig;
use super::error::MediaError;
use super::pcm::Pcm;

/// Highest frequency of the mel filters in Hz: a constant of the reference, whatever the sampling
/// rate.
const MAX_FREQUENCY: f64 = 8000.0;
/// Smallest mel energy before the logarithm.
const FLOOR: f64 = 1e-10;
/// How far below the clip's maximum a value may lie, in powers of ten.
const DYNAMIC_RANGE: f64 = 8.0;

/// Log-mel features of one clip.
#[derive(Debug, Clone, PartialEq)]
pub struct LogMel {
    /// Number of mel filters (`feature_size`).
    pub mels: usize,
    /// Number of frames: `floor(samples / hop_length)`.
    pub frames: usize,
    /// Values `[mels, frames]`, row-major; clones share them.
    pub data: Arc<[f32]>,
}

/// Placeholder tokens of a clip with `mel_frames` frames, which is also the audio encoder's row
/// count (spec C.2).
pub fn audio_token_count(mel_frames: usize) -> usize {
    /// Mel frames of one encoder chunk, and the rows it becomes.
    const CHUNK: (usize, usize) = (100, 13);
    let halved = |length: usize| length.div_ceil(2);
    CHUNK.1 * (mel_frames / CHUNK.0) + halved(halved(halved(mel_frames % CHUNK.0)))
}

/// Computes log-mel features; built once for a configuration, shared by all clips.
pub struct LogMelExtractor {
    config: AudioConfig,
    window: Vec<f64>,
    filters: MelFilters,
    fft: std::sync::Arc<dyn realfft::RealToComplex<f64>>,
}

impl LogMelExtractor {
    /// An extractor for a validated `config`.
    pub fn new(config: &AudioConfig) -> Self {
        let window = hann(config.n_fft);
        let filters = MelFilters::new(config);
        let fft = RealFftPlanner::new().plan_fft_forward(config.n_fft);
        Self {
            config: config.clone(),
            window,
            filters,
            fft,
        }
    }

    /// Shortest clip that is taken as it is, in samples; a shorter one is padded with zeros at its
    /// end up to here.
    ///
    /// The reference reflects `n_fft / 2` samples at both ends, which needs one more than that.
    pub fn min_samples(&self) -> usize {
        (self.config.n_fft / 2 + 1).max(self.config.hop_length)
    }

    /// Log-mel features of one clip at the configured sampling rate; clips are never cut.
    ///
    /// # Errors
    /// When the clip has another rate or no samples.
    pub fn extract(&self, pcm: &Pcm) -> Result<LogMel, MediaError> {
        if pcm.sample_rate as usize != self.config.sampling_rate {
            let expected = format!("audio at {} Hz", self.config.sampling_rate);
            return Err(MediaError::unexpected(
                "audio",
                expected,
                format!("{} Hz", pcm.sample_rate),
            ));
        }
        if pcm.samples.is_empty() {
            return Err(MediaError::unexpected(
                "audio",
                "audio with at least one sample",
                "none",
            ));
        }
        let padded = self.pad(&pcm.samples);
        Ok(self.log_mel(&padded))
    }

    /// `samples` with zeros up to [`min_samples`](Self::min_samples), then reflected at both ends
    /// without repeating the edge.
    fn pad(&self, samples: &[f32]) -> Vec<f32> {
        let mut clip = samples.to_vec();
        clip.resize(samples.len().max(self.min_samples()), 0.0);
        let margin = self.config.n_fft / 2;
        let before = clip[1..=margin].iter().rev();
        let after = clip[clip.len() - 1 - margin..clip.len() - 1].iter().rev();
        before.chain(&clip).chain(after).copied().collect()
    }

    /// Features of a clip that has its margins.
    fn log_mel(&self, padded: &[f32]) -> LogMel {
        let AudioConfig {
            feature_size: mels,
            hop_length,
            n_fft,
            ..
        } = self.config;
        // One frame a hop; the reference computes one more and drops it.
        let frames = (padded.len() - 2 * (n_fft / 2)) / hop_length;
        // [frames, mels]
        let mut logs = vec![0.0; frames * mels];
        logs.par_chunks_exact_mut(mels).enumerate().for_each_init(
            || Scratch::new(self.fft.as_ref()),
            |scratch, (frame, out)| {
                let samples = &padded[frame * hop_length..frame * hop_length + n_fft];
                scratch.power_spectrum(self.fft.as_ref(), samples, &self.window);
                self.filters.apply(&scratch.power, out);
                out.iter_mut()
                    .for_each(|value| *value = value.max(FLOOR).log10());
            },
        );
        let floor = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max) - DYNAMIC_RANGE;
        let mut data = vec![0.0; frames * mels];
        data.par_chunks_exact_mut(frames)
            .enumerate()
            .for_each(|(mel, row)| {
                for (frame, value) in row.iter_mut().enumerate() {
                    *value = ((logs[frame * mels + mel].max(floor) + 4.0) / 4.0) as f32;
                }
            });
        let data = data.into();
        LogMel { mels, frames, data }
    }
}

/// Buffers of one worker.
struct Scratch {
    input: Vec<f64>,
    spectrum: Vec<Complex<f64>>,
    work: Vec<Complex<f64>>,
    /// Squared magnitudes, `[n_fft / 2 + 1]`.
    power: Vec<f64>,
}

impl Scratch {
    fn new(fft: &dyn realfft::RealToComplex<f64>) -> Self {
        let spectrum = fft.make_output_vec();
        let power = vec![0.0; spectrum.len()];
        Self {
            input: fft.make_input_vec(),
            spectrum,
            work: fft.make_scratch_vec(),
            power,
        }
    }

    fn power_spectrum(
        &mut self,
        fft: &dyn realfft::RealToComplex<f64>,
        samples: &[f32],
        window: &[f64],
    ) {
        for ((value, &sample), weight) in self.input.iter_mut().zip(samples).zip(window) {
            *value = f64::from(sample) * weight;
        }
        fft.process_with_scratch(&mut self.input, &mut self.spectrum, &mut self.work)
            .expect("buffers were made for this transform");
        for (power, bin) in self.power.iter_mut().zip(&self.spectrum) {
            *power = bin.norm_sqr();
        }
    }
}

/// Triangular filters, Slaney scale and norm, without their zeros.
struct MelFilters {
    /// For each filter the first bin with a weight and the weights from there.
    filters: Vec<(usize, Vec<f64>)>,
}

impl MelFilters {
    fn new(config: &AudioConfig) -> Self {
        let bins = config.n_fft / 2 + 1;
        // As in the reference: half the rate in whole Hz, spread evenly over the bins.
        let bin_width = (config.sampling_rate / 2) as f64 / (bins - 1) as f64;
        let top = hz_to_mel(MAX_FREQUENCY);
        let edge = |index: usize| mel_to_hz(top * index as f64 / (config.feature_size + 1) as f64);
        let filter = |mel: usize| {
            let (low, center, high) = (edge(mel), edge(mel + 1), edge(mel + 2));
            let weight = |bin: usize| {
                let hz = bin as f64 * bin_width;
                let triangle = ((hz - low) / (center - low)).min((high - hz) / (high - center));
                triangle.max(0.0) * 2.0 / (high - low)
            };
            let inside: Vec<usize> = (0..bins).filter(|&bin| weight(bin) > 0.0).collect();
            let start = inside.first().copied().unwrap_or(0);
            (start, inside.into_iter().map(weight).collect())
        };
        Self {
            filters: (0..config.feature_size).map(filter).collect(),
        }
    }

    /// Filters one power spectrum: `[n_fft / 2 + 1]` → `[mels]`.
    fn apply(&self, power: &[f64], out: &mut [f64]) {
        for (value, (start, weights)) in out.iter_mut().zip(&self.filters) {
            *value = weights
                .iter()
                .zip(&power[*start..])
                .map(|(weight, power)| weight * power)
                .sum();
        }
    }
}

/// Periodic Hann window.
fn hann(length: usize) -> Vec<f64> {
    let turn = std::f64::consts::TAU / length as f64;
    (0..length)
        .map(|index| 0.5 - 0.5 * (turn * index as f64).cos())
        .collect()
}

/// Slaney's mel scale: linear below 1 kHz, logarithmic above.
const LINEAR_MELS: f64 = 15.0;
const LINEAR_HZ: f64 = 1000.0;
const MELS_PER_LOG: f64 = 27.0;
const LOG_BASE: f64 = 6.4;

fn hz_to_mel(hz: f64) -> f64 {
    if hz < LINEAR_HZ {
        hz * LINEAR_MELS / LINEAR_HZ
    } else {
        LINEAR_MELS + MELS_PER_LOG * (hz / LINEAR_HZ).ln() / LOG_BASE.ln()
    }
}

fn mel_to_hz(mel: f64) -> f64 {
    if mel < LINEAR_MELS {
        mel * LINEAR_HZ / LINEAR_MELS
    } else {
        LINEAR_HZ * ((mel - LINEAR_MELS) * LOG_BASE.ln() / MELS_PER_LOG).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> AudioConfig {
        AudioConfig {
            feature_size: 128,
            hop_length: 160,
            n_fft: 400,
            sampling_rate: 16_000,
            dither: 0.0,
        }
    }

    fn close(found: f64, expected: f64, tolerance: f64) {
        assert!(
            (found - expected).abs() < tolerance,
            "{found} is not {expected}"
        );
    }

    #[test]
    fn filters_are_those_of_the_specification() {
        let filters = MelFilters::new(&config()).filters;
        let expect = |mel: usize, start: usize, weights: &[f64]| {
            assert_eq!(filters[mel].0, start, "filter {mel}");
            filters[mel]
                .1
                .iter()
                .zip(weights)
                .for_each(|(&found, &weight)| close(found, weight, 1e-9));
        };
        expect(0, 1, &[0.012373986]);
        expect(1, 1, &[0.030392565]);
        expect(2, 2, &[0.024747973]);
        expect(63, 41, &[0.006931381, 0.017935048]);
        expect(127, 191, &[0.000475695, 0.001617172]);
        let lengths = [0, 1, 2, 63, 127].map(|mel: usize| filters[mel].1.len());
        assert_eq!(lengths, [1, 1, 1, 2, 9]);
        close(filters[127].1.iter().sum(), 0.024936044, 1e-9);
        assert!(filters.iter().all(|(_, weights)| !weights.is_empty()));
    }

    #[test]
    fn a_tone_has_the_features_of_the_specification() {
        let sample =
            |n: usize| (0.5 * (std::f64::consts::TAU * 440.0 * n as f64 / 16_000.0).sin()) as f32;
        let pcm = Pcm {
            sample_rate: 16_000,
            samples: (0..1600).map(sample).collect(),
        };
        let mel = LogMelExtractor::new(&config()).extract(&pcm).unwrap();
        assert_eq!((mel.mels, mel.frames), (128, 10));
        for (frame, bin, expected) in [
            (0, 0, 0.907520),
            (0, 12, 1.076695),
            (0, 17, 1.176514),
            (5, 10, -0.514646),
            (5, 17, 1.337491),
            (5, 18, 1.485354),
            (5, 20, 1.287393),
            (9, 17, 1.335882),
            (9, 127, -0.514646),
        ] {
            close(
                f64::from(mel.data[bin * mel.frames + frame]),
                expected,
                1e-5,
            );
        }
        let mean =
            mel.data.iter().map(|&value| f64::from(value)).sum::<f64>() / mel.data.len() as f64;
        close(mean, -0.263762, 1e-5);
    }

    #[test]
    fn token_counts_are_those_of_the_specification() {
        for (frames, tokens) in [
            (0, 0),
            (1, 1),
            (8, 1),
            (9, 2),
            (50, 7),
            (99, 13),
            (100, 13),
            (101, 14),
            (150, 20),
            (200, 26),
            (800, 104),
            (1000, 130),
            (3000, 390),
            (30_000, 3900),
        ] {
            assert_eq!(audio_token_count(frames), tokens, "{frames} frames");
        }
    }

    #[test]
    fn a_short_clip_is_padded_with_zeros() {
        let extractor = LogMelExtractor::new(&config());
        assert_eq!(extractor.min_samples(), 201);
        let clip = |samples: Vec<f32>| {
            extractor.extract(&Pcm {
                sample_rate: 16_000,
                samples,
            })
        };
        let mut padded = vec![0.25; 100];
        let short = clip(padded.clone()).unwrap();
        padded.resize(201, 0.0);
        assert_eq!(clip(padded).unwrap(), short);
        assert_eq!(short.frames, 1);
        assert_eq!(clip(vec![0.5; 479]).unwrap().frames, 2);
        assert!(clip(vec![]).is_err());
    }

    #[test]
    fn silence_is_all_floor() {
        let pcm = Pcm {
            sample_rate: 16_000,
            samples: vec![0.0; 1600],
        };
        let mel = LogMelExtractor::new(&config()).extract(&pcm).unwrap();
        assert!(mel.data.iter().all(|&value| value == -1.5));
    }

    #[test]
    fn another_rate_is_refused() {
        let pcm = Pcm {
            sample_rate: 24_000,
            samples: vec![0.0; 1600],
        };
        let text = LogMelExtractor::new(&config())
            .extract(&pcm)
            .unwrap_err()
            .to_string();
        assert_eq!(text, "`audio`: expected audio at 16000 Hz, found 24000 Hz");
    }
}
