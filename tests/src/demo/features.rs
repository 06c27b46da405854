//! The log-mel of speech that `golden.py` stores: 80 Slaney filters up to 12 kHz, frames of 1024 samples, hop 256.

use std::path::Path;

use half::f16;
use realfft::RealFftPlanner;

/// Samples of a frame, and from one to the next.
const FRAME: usize = 1024;
const HOP: usize = 256;
/// Filters.
const MELS: usize = 80;
const RATE: f64 = 24_000.0;
/// Smallest magnitude before the logarithm.
const FLOOR: f64 = 1e-5;

/// Logarithms (base 10) of mel magnitudes, `[frame, 80]`.
///
/// # Panics
/// When there are fewer samples than half a frame.
#[must_use]
pub fn log_mel(samples: &[f32]) -> Vec<f32> {
    let margin = FRAME / 2;
    assert!(samples.len() > margin, "too short to be reflected");
    let before = samples[1..=margin].iter().rev();
    let after = samples[samples.len() - 1 - margin..samples.len() - 1]
        .iter()
        .rev();
    let padded: Vec<f64> = before
        .chain(samples)
        .chain(after)
        .map(|x| f64::from(*x))
        .collect();
    let turn = std::f64::consts::TAU / FRAME as f64;
    let window: Vec<f64> = (0..FRAME)
        .map(|i| 0.5 - 0.5 * (turn * i as f64).cos())
        .collect();
    let fft = RealFftPlanner::new().plan_fft_forward(FRAME);
    let filters = filters();
    let mut spectrum = fft.make_output_vec();
    let frame = |start: usize| {
        let mut input: Vec<f64> = padded[start..start + FRAME]
            .iter()
            .zip(&window)
            .map(|(x, w)| x * w)
            .collect();
        fft.process(&mut input, &mut spectrum)
            .expect("both have the length of the plan");
        let magnitudes: Vec<f64> = spectrum.iter().map(|x| x.norm()).collect();
        let mel =
            |filter: &Vec<f64>| -> f64 { filter.iter().zip(&magnitudes).map(|(f, m)| f * m).sum() };
        filters
            .iter()
            .map(|filter| mel(filter).max(FLOOR).log10() as f32)
            .collect::<Vec<_>>()
    };
    (0..=samples.len() / HOP)
        .map(|i| i * HOP)
        .flat_map(frame)
        .collect()
}

/// Triangles between neighbouring mel frequencies, each of the same area.
fn filters() -> Vec<Vec<f64>> {
    let top = to_mel(RATE / 2.0);
    let edge = |i: usize| from_mel(top * i as f64 / (MELS + 1) as f64);
    let filter = |i: usize| {
        let [low, middle, high] = [edge(i), edge(i + 1), edge(i + 2)];
        let value = |bin: usize| {
            let frequency = bin as f64 * RATE / FRAME as f64;
            let rise = (frequency - low) / (middle - low);
            let fall = (high - frequency) / (high - middle);
            rise.min(fall).max(0.0) * 2.0 / (high - low)
        };
        (0..=FRAME / 2).map(value).collect()
    };
    (0..MELS).map(filter).collect()
}

/// Slaney's scale: linear below 1000 Hz, logarithmic above.
fn to_mel(frequency: f64) -> f64 {
    if frequency < 1000.0 {
        3.0 * frequency / 200.0
    } else {
        15.0 + (frequency / 1000.0).ln() * 27.0 / 6.4_f64.ln()
    }
}

fn from_mel(mel: f64) -> f64 {
    if mel < 15.0 {
        200.0 * mel / 3.0
    } else {
        1000.0 * ((mel - 15.0) * 6.4_f64.ln() / 27.0).exp()
    }
}

/// The numbers of a NumPy file of little-endian f16.
///
/// # Panics
/// When the file is not one.
#[must_use]
pub fn read_npy(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let text = String::from_utf8_lossy(&bytes[10..header]);
    assert!(
        bytes.starts_with(b"\x93NUMPY\x01") && text.contains("'<f2'") && text.contains("False"),
        "{}: {text}",
        path.display()
    );
    let (numbers, _) = bytes[header..].as_chunks();
    numbers
        .iter()
        .map(|x| f16::from_le_bytes(*x).to_f32())
        .collect()
}
