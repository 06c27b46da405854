//! Convolutions in time whose state is the end of their input.

use burn::tensor::{DType, Device, Tensor, s};
use burn_omni_ops as ops;
use burn_omni_quant::{Linear, Weight, Weights};
use rayon::prelude::*;

use super::snake::Snake;

/// A causal convolution of stride 1; before a stream begins there is silence.
#[derive(Clone, Debug)]
pub(super) struct CausalConv {
    kernel: Linear,
    size: ConvSize,
}

/// The sizes of a convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConvSize {
    pub(super) width: usize,
    pub(super) out: usize,
    pub(super) taps: usize,
    pub(super) dilation: usize,
}

impl ConvSize {
    /// Rows before its own that an output row depends on.
    pub(super) fn reach(self) -> usize {
        (self.taps - 1) * self.dilation
    }
}

/// The last rows of a stream that a convolution will need again, `[reach, width]`.
#[derive(Clone, Debug)]
pub(super) struct History(Tensor<2>);

impl History {
    /// The silence before a stream.
    pub(super) fn silence(shape: [usize; 2], options: (&Device, DType)) -> Self {
        Self(Tensor::zeros(shape, options))
    }

    /// The new rows behind the kept ones, of which the last are kept.
    ///
    /// # Shapes
    /// - x: `[rows, width]`
    /// - output: `[reach + rows, width]`
    pub(super) fn extend(&mut self, x: Tensor<2>) -> Tensor<2> {
        let (all, last) = ops::extend(self.0.clone(), x);
        self.0 = last;
        all
    }
}

impl CausalConv {
    /// Loads `conv.weight` `[out, width, taps]` and `conv.bias`.
    pub(super) fn load(weights: &Weights<'_>, size: ConvSize) -> Self {
        let ConvSize {
            width, out, taps, ..
        } = size;
        // [out, width, taps] -> [out, taps * width]
        let taps_first = |values: Vec<f32>| {
            let mut matrix = vec![0.0; values.len()];
            let rows = matrix.par_chunks_exact_mut(width * taps);
            let rows = rows.zip(values.par_chunks_exact(width * taps));
            rows.for_each(|(row, stored)| {
                for (tap, row) in row.chunks_exact_mut(width).enumerate() {
                    gather(row, &stored[tap..], taps);
                }
            });
            matrix
        };
        let kernel = weights
            .at("conv")
            .kernel([out, width, taps], [out, taps * width], taps_first);
        Self { kernel, size }
    }

    /// Numbers of what makes `rows` rows, rounded up to whole tiles of a matrix unit.
    pub(super) fn reads(&self, rows: usize) -> usize {
        const TILE: usize = 128;
        (self.size.reach() + rows) * self.size.width.next_multiple_of(TILE)
    }

    pub(super) fn history(&self, options: (&Device, DType)) -> History {
        History::silence([self.size.reach(), self.size.width], options)
    }

    /// # Shapes
    /// - x: `[rows, width]`
    /// - output: `[rows, out]`
    pub(super) fn forward(&self, x: Tensor<2>, history: &mut History) -> Tensor<2> {
        self.kernel
            .causal_conv1d(history.extend(x), self.size.dilation)
    }

    /// The same of rows behind an activation. It leaves zeros as they are, so rows are kept as they came.
    pub(super) fn forward_activated(
        &self,
        x: Tensor<2>,
        act: &Snake,
        history: &mut History,
    ) -> Tensor<2> {
        let rows = [history.0.clone(), x];
        let (y, last) = self
            .kernel
            .snake_conv1d(rows, act.parts(), self.size.dilation);
        history.0 = last;
        y
    }
}

/// A transposed convolution of stride `rate` whose taps overlap with those of the row before, twice `rate` of them.
///
/// As a causal convolution of two taps that makes `rate` rows at once: row `i` and the one before it make the samples
/// from `i * rate` on. The reference cuts off what the first row of a stream makes alone, so that row only waits here.
#[derive(Clone, Debug)]
pub(super) struct TransposedConv {
    kernel: Linear,
    rate: usize,
    out: usize,
}

/// The last row of a stream, `[1, width]`, or nothing before it began.
#[derive(Clone, Debug, Default)]
pub(super) struct LastRow(Option<Tensor<2>>);

impl TransposedConv {
    /// Loads `conv.weight` `[width, out, 2 * rate]` and `conv.bias`.
    pub(super) fn load(weights: &Weights<'_>, [width, out]: [usize; 2], rate: usize) -> Self {
        let kernel = upsampling(&weights.at("conv"), [width, out], rate, 2);
        Self { kernel, rate, out }
    }

    /// Rows that one row makes.
    pub(super) fn rate(&self) -> usize {
        self.rate
    }

    /// Of rows behind an activation; `None` when the stream is too short for any output.
    ///
    /// # Shapes
    /// - x: `[rows, width]`
    /// - output: `[rows * rate, out]`, one row's less at the begin of a stream
    pub(super) fn forward_activated(
        &self,
        x: Tensor<2>,
        act: &Snake,
        last: &mut LastRow,
    ) -> Option<Tensor<2>> {
        let [rows, _] = x.dims();
        let (before, x) = match last.0.take() {
            Some(row) => (row, x),
            None if rows > 1 => (x.clone().slice(s![..1, ..]), x.slice(s![1.., ..])),
            None => {
                last.0 = Some(x);
                return None;
            }
        };
        // [rows, rate * out]
        let (y, end) = self.kernel.snake_conv1d([before, x], act.parts(), 1);
        last.0 = Some(end);
        let [rows, _] = y.dims();
        Some(y.reshape([rows * self.rate, self.out]))
    }
}

/// Every `stride`-th value.
fn gather(out: &mut [f32], values: &[f32], stride: usize) {
    for (out, value) in out.iter_mut().zip(values.iter().step_by(stride)) {
        *out = *value;
    }
}

/// The kernel of a transposed convolution of stride `rate`, `[width, out, overlap * rate]`, as a matrix
/// `[rate * out, overlap * width]` that makes the `rate` rows of one place from the `overlap` last input rows.
pub(super) fn upsampling(
    weights: &Weights<'_>,
    [width, out]: [usize; 2],
    rate: usize,
    overlap: usize,
) -> Linear {
    let taps = overlap * rate;
    let transpose = |values: Vec<f32>| {
        let mut matrix = vec![0.0; values.len()];
        let rows = matrix.par_chunks_exact_mut(overlap * width).enumerate();
        rows.for_each(|(row, columns)| {
            let (step, channel) = (row / out, row % out);
            // The oldest input row meets the last taps.
            let parts = columns.chunks_exact_mut(width).zip((0..overlap).rev());
            for (columns, part) in parts {
                let first = channel * taps + part * rate + step;
                gather(columns, &values[first..], out * taps);
            }
        });
        matrix
    };
    let shape = [rate * out, overlap * width];
    let weight = weights.mapped_matrix("weight", [width, out, taps], shape, transpose);
    let bias = weights.mapped("bias", [out], [rate * out], |bias| bias.repeat(rate));
    Linear::new(Weight::Dense(weight), Some(bias))
}
