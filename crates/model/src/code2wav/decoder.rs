//! The wave decoder: every block raises the rate and halves the channels.

use burn::tensor::{DType, Device, Tensor};
use burn_omni_quant::{Linear, Weights};

use super::conv::{CausalConv, ConvSize, History, LastRow, TransposedConv};
use super::snake::Snake;
use crate::config::Code2WavConfig;

/// Taps of all convolutions over more than one row.
const TAPS: usize = 7;
/// Dilations of the residual units of a block, in order.
const DILATIONS: [usize; 3] = [1, 3, 9];

/// Convolutions from the transformer's rows to samples.
#[derive(Clone, Debug)]
pub(super) struct Decoder {
    input: CausalConv,
    blocks: Vec<Block>,
    act: Snake,
    output: CausalConv,
}

/// What the decoder keeps of a stream.
#[derive(Clone, Debug)]
pub(super) struct DecoderState {
    input: History,
    blocks: Vec<BlockState>,
    output: History,
}

impl Decoder {
    /// Loads the list: input, blocks, activation, output.
    pub(super) fn load(weights: &Weights<'_>, config: &Code2WavConfig) -> Self {
        let blocks = config.upsample_rates.len();
        let channels = |block: usize| config.decoder_dim >> block;
        let conv = |place: usize, width, out| {
            let size = ConvSize {
                width,
                out,
                taps: TAPS,
                dilation: 1,
            };
            CausalConv::load(&weights.at(place), size)
        };
        let rates = config.upsample_rates.iter().enumerate();
        Self {
            input: conv(0, config.hidden_size, config.decoder_dim),
            blocks: rates
                .map(|(i, rate)| {
                    let place = weights.at(1 + i).at("block");
                    Block::load(&place, [channels(i), channels(i + 1)], *rate)
                })
                .collect(),
            act: Snake::load(&weights.at(1 + blocks), channels(blocks)),
            output: conv(2 + blocks, channels(blocks), 1),
        }
    }

    /// Numbers of the longest tensor between `rows` rows and their samples: what enters the convolutions of a block, with
    /// the rows before.
    pub(super) fn longest(&self, rows: usize) -> usize {
        let blocks = self.blocks.iter().scan(rows, |rows, block| {
            *rows *= block.conv.rate();
            Some(block.units.iter().map(|unit| unit.conv1.reads(*rows)).max())
        });
        blocks.flatten().max().unwrap_or_default()
    }

    pub(super) fn state(&self, options: (&Device, DType)) -> DecoderState {
        let block = |block: &Block| BlockState {
            last: LastRow::default(),
            units: block
                .units
                .each_ref()
                .map(|unit| unit.conv1.history(options)),
        };
        DecoderState {
            input: self.input.history(options),
            blocks: self.blocks.iter().map(block).collect(),
            output: self.output.history(options),
        }
    }

    /// The samples that `x` completes, `None` when there are none.
    ///
    /// # Shapes
    /// - x: `[rows, hidden]`
    /// - output: `[samples, 1]`
    pub(super) fn forward_with(
        &self,
        x: Tensor<2>,
        state: &mut DecoderState,
        tap: &mut dyn FnMut(&str, &Tensor<2>),
    ) -> Option<Tensor<2>> {
        let mut x = self.input.forward(x, &mut state.input);
        tap("decoder.0", &x);
        for (i, (block, state)) in self.blocks.iter().zip(&mut state.blocks).enumerate() {
            x = block.forward(x, state)?;
            tap(&format!("decoder.{}", 1 + i), &x);
        }
        let x = self.act.forward(x);
        tap(&format!("decoder.{}", 1 + self.blocks.len()), &x);
        Some(self.output.forward(x, &mut state.output))
    }
}

/// A transposed convolution and three residual units.
#[derive(Clone, Debug)]
struct Block {
    act: Snake,
    conv: TransposedConv,
    units: [ResidualUnit; 3],
}

#[derive(Clone, Debug)]
struct BlockState {
    last: LastRow,
    units: [History; 3],
}

impl Block {
    fn load(weights: &Weights<'_>, [width, out]: [usize; 2], rate: usize) -> Self {
        let unit = |i: usize| ResidualUnit::load(&weights.at(2 + i), out, DILATIONS[i]);
        Self {
            act: Snake::load(&weights.at(0), width),
            conv: TransposedConv::load(&weights.at(1), [width, out], rate),
            units: std::array::from_fn(unit),
        }
    }

    /// # Shapes
    /// - x: `[rows, width]`
    /// - output: `[rows * rate, out]`, less at the begin of a stream
    fn forward(&self, x: Tensor<2>, state: &mut BlockState) -> Option<Tensor<2>> {
        let x = self.conv.forward_activated(x, &self.act, &mut state.last)?;
        let units = self.units.iter().zip(&mut state.units);
        Some(units.fold(x, |x, (unit, history)| unit.forward(x, history)))
    }
}

/// `x + conv2(act2(conv1(act1 x)))`.
#[derive(Clone, Debug)]
struct ResidualUnit {
    act1: Snake,
    conv1: CausalConv,
    act2: Snake,
    /// A kernel of one tap.
    conv2: Linear,
}

impl ResidualUnit {
    fn load(weights: &Weights<'_>, width: usize, dilation: usize) -> Self {
        let size = ConvSize {
            width,
            out: width,
            taps: TAPS,
            dilation,
        };
        let square = [width, width];
        Self {
            act1: Snake::load(&weights.at("act1"), width),
            conv1: CausalConv::load(&weights.at("conv1"), size),
            act2: Snake::load(&weights.at("act2"), width),
            conv2: weights
                .at("conv2.conv")
                .kernel([width, width, 1], square, |values| values),
        }
    }

    /// # Shapes
    /// - x, output: `[rows, width]`
    fn forward(&self, x: Tensor<2>, history: &mut History) -> Tensor<2> {
        let y = self.conv1.forward_activated(x.clone(), &self.act1, history);
        self.conv2.add_snake_linear(x, y, self.act2.parts())
    }
}
