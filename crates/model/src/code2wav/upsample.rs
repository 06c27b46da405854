//! One stage between frames and waves: more rows, then a block that mixes them.

use burn::tensor::{DType, Device, Tensor};
use burn_omni_ops as ops;
use burn_omni_quant::{Bias, Linear, Weights};

use super::conv::{History, upsampling};
use crate::layers::LayerNorm;

/// Taps of the convolution that mixes rows, a channel at a time.
const TAPS: usize = 7;
/// Inner width of the block, in widths of its input.
const EXPANSION: usize = 4;
/// Epsilon of the block's norm; the config has none.
const EPS: f64 = 1e-6;

/// A transposed convolution without overlap and a ConvNeXt block.
#[derive(Clone, Debug)]
pub(super) struct Upsample {
    conv: Linear,
    block: ConvNeXt,
    ratio: usize,
}

impl Upsample {
    /// Loads `0` (the transposed convolution) and `1` (the block).
    pub(super) fn load(weights: &Weights<'_>, width: usize, ratio: usize) -> Self {
        Self {
            conv: upsampling(&weights.at("0.conv"), [width, width], ratio, 1),
            block: ConvNeXt::load(&weights.at(1), width),
            ratio,
        }
    }

    pub(super) fn history(&self, options: (&Device, DType)) -> History {
        let [_, width] = self.block.dwconv.dims();
        History::silence([TAPS - 1, width], options)
    }

    /// # Shapes
    /// - x: `[rows, width]`
    /// - output: `[rows * ratio, width]`
    pub(super) fn forward(&self, x: Tensor<2>, history: &mut History) -> Tensor<2> {
        let [rows, width] = x.dims();
        // [rows, ratio * width] -> [rows * ratio, width]
        let x = self.conv.forward(x).reshape([rows * self.ratio, width]);
        self.block.forward(x, history)
    }
}

/// Rows mixed a channel at a time, then channels mixed a row at a time.
#[derive(Clone, Debug)]
struct ConvNeXt {
    /// One row a tap, oldest first, `[taps, width]`.
    dwconv: Tensor<2>,
    dwconv_bias: Tensor<1>,
    norm: LayerNorm,
    pwconv1: Linear,
    pwconv2: Linear,
    gamma: Tensor<1>,
}

impl ConvNeXt {
    fn load(weights: &Weights<'_>, width: usize) -> Self {
        let dwconv = weights.at("dwconv.conv");
        // [width, 1, taps] -> [taps, width]
        let transpose = |values: Vec<f32>| {
            let tap = |tap| values.iter().skip(tap).step_by(TAPS).copied();
            (0..TAPS).flat_map(tap).collect()
        };
        Self {
            dwconv: dwconv.mapped("weight", [width, 1, TAPS], [TAPS, width], transpose),
            dwconv_bias: dwconv.tensor("bias", [width]),
            norm: LayerNorm::load(&weights.at("norm"), width, EPS),
            pwconv1: weights.linear("pwconv1", [EXPANSION * width, width], Bias::Yes),
            pwconv2: weights.linear("pwconv2", [width, EXPANSION * width], Bias::Yes),
            gamma: weights.tensor("gamma", [width]),
        }
    }

    /// # Shapes
    /// - x, output: `[rows, width]`
    fn forward(&self, x: Tensor<2>, history: &mut History) -> Tensor<2> {
        let rows = history.extend(x.clone());
        let mixed = ops::depthwise_conv1d(rows, self.dwconv.clone(), self.dwconv_bias.clone());
        let inner = ops::gelu(self.pwconv1.forward(self.norm.forward(mixed)));
        ops::add_scaled(x, self.pwconv2.forward(inner), self.gamma.clone())
    }
}
