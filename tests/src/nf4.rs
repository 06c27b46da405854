//! A matrix in bitsandbytes' NF4 with nested scales, byte for byte as version 0.50.2 makes it on a CPU.

use crate::repository;
use crate::tensors::Tensors;

/// Values of a block of the matrix, which share a scale.
const BLOCK: usize = 64;
/// Scales of a block, which share a scale of their own.
const NESTED_BLOCK: usize = 256;

/// The package's tables, which stand beside every matrix.
#[derive(Clone, Debug)]
pub struct Tables {
    /// The values of the sixteen codes.
    pub codes: Vec<f32>,
    /// The values of the 256 bytes that scales become.
    pub scales: Vec<f32>,
}

/// What stands in a checkpoint in the place of a weight.
#[derive(Clone, Debug)]
pub struct Nested {
    /// `weight`: two codes a byte, the even one in the high half.
    pub codes: Vec<u8>,
    /// `weight.absmax`: a byte a block.
    pub absmax: Vec<u8>,
    /// `weight.nested_absmax`: a scale for every 256 of those bytes.
    pub nested_absmax: Vec<f32>,
    /// The mean of the scales, which is taken off before they become bytes.
    pub offset: f32,
    /// `weight.quant_state.bitsandbytes__nf4`: JSON.
    pub state: String,
}

impl Tables {
    /// The tables as they stand in the golden file.
    #[must_use]
    pub fn golden() -> Self {
        let golden = Tensors::load(&repository("tests/golden/quant/bitsandbytes.safetensors"));
        let table = |name| golden.require(name).data.clone();
        Self {
            codes: table("nf4.quant_map"),
            scales: table("nested_quant_map"),
        }
    }

    /// Codes, two a byte, and the scale of every block.
    #[must_use]
    pub fn codes(&self, values: &[f32]) -> (Vec<u8>, Vec<f32>) {
        let middles: Vec<f32> = self.codes.windows(2).map(|x| (x[0] + x[1]) / 2.0).collect();
        let (mut codes, mut scales) = (Vec::new(), Vec::new());
        for block in values.chunks(BLOCK) {
            let scale = amax(block);
            scales.push(scale);
            let inverse = 1.0 / scale;
            codes.extend(block.iter().map(|x| {
                // The package divides where a block is short.
                let x = match block.len() {
                    BLOCK => x * inverse,
                    _ => x / scale,
                };
                middles.partition_point(|middle| *middle < x) as u8
            }));
        }
        if codes.len() % 2 == 1 {
            codes.push(middles.partition_point(|middle| *middle < 0.0) as u8);
        }
        let pairs = codes.chunks(2).map(|pair| pair[0] << 4 | pair[1]);
        (pairs.collect(), scales)
    }

    /// A matrix `[rows, width]`, the values of which were stored in `dtype`.
    #[must_use]
    pub fn nested(&self, values: &[f32], [rows, width]: [usize; 2], dtype: &str) -> Nested {
        let (codes, scales) = self.codes(values);
        let offset = mean(&scales);
        let (mut absmax, mut nested_absmax) = (Vec::new(), Vec::new());
        for block in scales.chunks(NESTED_BLOCK) {
            let block: Vec<f32> = block.iter().map(|scale| scale - offset).collect();
            let scale = amax(&block);
            nested_absmax.push(scale);
            let inverse = 1.0 / scale;
            absmax.extend(block.iter().map(|x| nearest(&self.scales, x * inverse)));
        }
        // The order and the spaces are Python's.
        let state = format!(
            "{{\"quant_type\": \"nf4\", \"blocksize\": {BLOCK}, \"dtype\": \"{dtype}\", \
             \"shape\": [{rows}, {width}], \"nested_blocksize\": {NESTED_BLOCK}, \
             \"nested_dtype\": \"float32\", \"nested_offset\": {}}}",
            f64::from(offset)
        );
        Nested {
            codes,
            absmax,
            nested_absmax,
            offset,
            state,
        }
    }
}

fn amax(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest, x| largest.max(x.abs()))
}

/// Number of the entry that is nearest, as far as the package looks: it has an answer for each of 65536 numbers in [-1, 1],
/// and `x` counts as the nearest of those.
fn nearest(table: &[f32], x: f32) -> u8 {
    const HALF: f32 = 32_767.5;
    let x = ((x + 1.0) * HALF + 0.5).floor() / HALF - 1.0;
    let right = table.partition_point(|entry| *entry < x);
    let place = match (right.checked_sub(1), table.get(right)) {
        (Some(left), Some(above)) if above - x < x - table[left] => right,
        (Some(left), _) => left,
        (None, _) => right,
    };
    place as u8
}

/// The mean; torch sums in f32, and has the same for every matrix of the goldens.
fn mean(values: &[f32]) -> f32 {
    let sum: f64 = values.iter().map(|x| f64::from(*x)).sum();
    (sum / values.len() as f64) as f32
}
