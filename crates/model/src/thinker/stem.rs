//! The convolutions in front of the audio encoder: each halves time and frequency (docs/spec/thinker.md C.3).

use burn::tensor::{Tensor, s};
use burn_omni_ops as ops;
use burn_omni_quant::{Linear, Weights};

/// Taps along each axis.
const TAPS: usize = 3;

/// A convolution of 3 x 3 taps and stride 2, with one row and one column of zeros around its input, and its activation.
///
/// It is a product: what a place sees, side by side, times a matrix.
#[derive(Clone, Debug)]
pub(super) struct Halving {
    /// `[out, 3 * 3 * width]`
    kernel: Linear,
    out: usize,
}

impl Halving {
    /// Loads `weight` `[out, width, 3, 3]` and `bias` `[out]`.
    pub(super) fn load(weights: &Weights<'_>, [out, width]: [usize; 2]) -> Self {
        const PLACES: usize = TAPS * TAPS;
        // [out, width, places] -> [out, places, width]
        let places_first = |values: Vec<f32>| {
            let mut matrix = Vec::with_capacity(values.len());
            for row in values.chunks_exact(width * PLACES) {
                for place in 0..PLACES {
                    matrix.extend(row.iter().skip(place).step_by(PLACES));
                }
            }
            matrix
        };
        let (stored, shape) = ([out, width, TAPS, TAPS], [out, PLACES * width]);
        Self {
            kernel: weights.kernel(stored, shape, places_first),
            out,
        }
    }

    /// # Shapes
    /// - x: `[chunks, bands, steps, width]`
    /// - output: `[chunks, ceil(bands / 2), ceil(steps / 2), out]`
    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [chunks, bands, steps, width] = x.dims();
        let [high, wide] = [bands, steps].map(|size| size.div_ceil(2));
        let around = Tensor::zeros(
            [chunks, bands + 2, steps + 2, width],
            (&x.device(), x.dtype()),
        );
        let around = around.slice_assign(s![.., 1..=bands, 1..=steps, ..], x);
        let seen = |place: usize| {
            let (band, step) = (place / TAPS, place % TAPS);
            let (last_band, last_step) = (band + 2 * high - 1, step + 2 * wide - 1);
            let strided = s![.., band..last_band; 2, step..last_step; 2, ..];
            around.clone().slice(strided)
        };
        let seen = Tensor::cat((0..TAPS * TAPS).map(seen).collect(), 3);
        let rows = seen.reshape([chunks * high * wide, TAPS * TAPS * width]);
        let y = ops::gelu(self.kernel.forward(rows));
        y.reshape([chunks, high, wide, self.out])
    }
}
