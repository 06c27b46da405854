//! Norms of the last axis.

use burn::tensor::Tensor;
use burn_omni_ops as ops;
use burn_omni_quant::{Linear, Weights};

use super::RopeTable;

/// Root-mean-square norm, with statistics in f32.
#[derive(Clone, Debug)]
pub struct RmsNorm {
    weight: Tensor<1>,
    eps: f64,
}

impl RmsNorm {
    /// Loads `weight` `[width]`.
    #[must_use]
    pub fn load(weights: &Weights<'_>, width: usize, eps: f64) -> Self {
        Self {
            weight: weights.tensor("weight", [width]),
            eps,
        }
    }

    /// `[width]`
    #[must_use]
    pub fn weight(&self) -> &Tensor<1> {
        &self.weight
    }

    /// What is added to the mean square.
    #[must_use]
    pub fn eps(&self) -> f64 {
        self.eps
    }

    /// # Shapes
    /// - x, output: `[rows, width]`
    #[must_use]
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.heads(x.unsqueeze_dim(1)).squeeze_dim(1)
    }

    /// The normed rows times a matrix.
    ///
    /// # Shapes
    /// - x: `[rows, width]`
    /// - output: `[rows, out]`
    #[must_use]
    pub fn then(&self, product: &Linear, x: Tensor<2>) -> Tensor<2> {
        product.forward_normed(x, (self.weight.clone(), self.eps))
    }

    /// # Shapes
    /// - x, output: `[rows, heads, width]`
    #[must_use]
    pub fn heads(&self, x: Tensor<3>) -> Tensor<3> {
        ops::rms_norm(x, self.weight.clone(), self.eps)
    }

    /// The normed heads, rotated.
    ///
    /// # Shapes
    /// - x, output: `[rows, heads, width]`
    #[must_use]
    pub fn rotated(&self, x: Tensor<3>, rope: &RopeTable) -> Tensor<3> {
        let angles = [rope.cos.clone(), rope.sin.clone()];
        ops::normed_rope(x, self.weight.clone(), self.eps, angles)
    }
}

/// Layer norm with weight and bias.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    weight: Tensor<1>,
    bias: Tensor<1>,
    eps: f64,
}

impl LayerNorm {
    /// Loads `weight` and `bias` `[width]`.
    #[must_use]
    pub fn load(weights: &Weights<'_>, width: usize, eps: f64) -> Self {
        Self {
            weight: weights.tensor("weight", [width]),
            bias: weights.tensor("bias", [width]),
            eps,
        }
    }

    /// # Shapes
    /// - x, output: `[rows, width]`
    #[must_use]
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        ops::layer_norm(
            x.unsqueeze_dim(1),
            self.weight.clone(),
            self.bias.clone(),
            self.eps,
        )
        .squeeze_dim(1)
    }
}
