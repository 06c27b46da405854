//! From the thinker's width to the talker's.

use burn::tensor::{Tensor, activation};
use burn_omni_quant::{Bias, Linear, Weights};

use crate::config::TalkerConfig;

/// `linear_fc2(silu(linear_fc1 x))`, with biases.
#[derive(Clone, Debug)]
pub(super) struct Projection {
    linear_fc1: Linear,
    linear_fc2: Linear,
}

impl Projection {
    pub(super) fn load(weights: &Weights<'_>, config: &TalkerConfig) -> Self {
        let inner = config.text_config.intermediate_size;
        let (from, to) = (config.thinker_hidden_size, config.text_config.hidden_size);
        Self {
            linear_fc1: weights.linear("linear_fc1", [inner, from], Bias::Yes),
            linear_fc2: weights.linear("linear_fc2", [to, inner], Bias::Yes),
        }
    }

    /// # Shapes
    /// - x: `[rows, thinker_hidden]`
    /// - output: `[rows, hidden]`
    pub(super) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.linear_fc2
            .forward(activation::silu(self.linear_fc1.forward(x)))
    }
}
