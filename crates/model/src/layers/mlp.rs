//! The dense feed-forward block.

use burn::tensor::Tensor;
use burn_omni_ops::decode::Matrices;
use burn_omni_quant::{Bias, Linear, Weights};

use super::RmsNorm;

/// `down_proj(silu(gate_proj x) * up_proj x)`.
#[derive(Clone, Debug)]
pub struct Mlp {
    /// `gate_proj` and `up_proj` as one matrix.
    gate_up: Linear,
    down_proj: Linear,
}

impl Mlp {
    /// Loads `gate_proj`, `up_proj` and `down_proj`.
    #[must_use]
    pub fn load(weights: &Weights<'_>, hidden: usize, intermediate: usize) -> Self {
        let parts = [("gate_proj", intermediate), ("up_proj", intermediate)];
        Self {
            gate_up: weights.fused_linear(&parts, hidden, Bias::No),
            down_proj: weights.linear("down_proj", [hidden, intermediate], Bias::No),
        }
    }

    /// Gate and up, and down, where there is nothing else.
    #[must_use]
    pub fn matrices(&self) -> Option<[Matrices; 2]> {
        Some([self.gate_up.matrices()?, self.down_proj.matrices()?])
    }

    /// Bytes of the matrices.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.gate_up.bytes() + self.down_proj.bytes()
    }

    /// # Shapes
    /// - x, output: `[rows, hidden]`
    #[must_use]
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.down_proj.forward_gated(self.gate_up.forward(x))
    }

    /// The same of rows behind a norm.
    ///
    /// # Shapes
    /// - x, output: `[rows, hidden]`
    #[must_use]
    pub fn forward_normed(&self, x: Tensor<2>, norm: &RmsNorm) -> Tensor<2> {
        self.down_proj.forward_gated(norm.then(&self.gate_up, x))
    }
}
