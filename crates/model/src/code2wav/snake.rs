//! The activation of the wave decoder.

use burn::tensor::Tensor;
use burn_omni_ops as ops;
use burn_omni_quant::Weights;

/// What keeps the inverse of a magnitude finite.
const NO_DIVISION_BY_ZERO: f32 = 1e-9;

/// `x + sin(e^alpha x)^2 / e^beta`, a channel a column.
#[derive(Clone, Debug)]
pub(super) struct Snake {
    alpha: Tensor<1>,
    inverse_beta: Tensor<1>,
}

impl Snake {
    /// Loads `alpha` and `beta` `[width]`, stored as logarithms.
    pub(super) fn load(weights: &Weights<'_>, width: usize) -> Self {
        let vector = |name, change: fn(f32) -> f32| {
            let each = |values: Vec<f32>| values.into_iter().map(change).collect();
            weights.mapped(name, [width], [width], each)
        };
        Self {
            alpha: vector("alpha", f32::exp),
            inverse_beta: vector("beta", |beta| 1.0 / (beta.exp() + NO_DIVISION_BY_ZERO)),
        }
    }

    /// # Shapes
    /// - x, output: `[rows, width]`
    pub(super) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let [alpha, inverse_beta] = self.parts();
        ops::snake(x, alpha, inverse_beta)
    }

    /// What an operation takes that activates its input itself.
    pub(super) fn parts(&self) -> [Tensor<1>; 2] {
        [self.alpha.clone(), self.inverse_beta.clone()]
    }
}
