//! The one matrix product of every model.

use burn::tensor::Tensor;

use burn_omni_ops as ops;

/// Whether a matrix has a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    /// It has one, under `bias`.
    Yes,
    /// It has none.
    No,
}

/// A matrix as it is stored.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Weight {
    /// `[out, in]` in f32, bf16 or f16.
    Dense(Tensor<2>),
}

/// `x * weight^T + bias`.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Weight,
    bias: Option<Tensor<1>>,
}

impl Linear {
    /// A matrix `[out, in]` and its bias `[out]`.
    #[must_use]
    pub fn new(weight: Weight, bias: Option<Tensor<1>>) -> Self {
        Self { weight, bias }
    }

    /// # Shapes
    /// - x: `[rows, in]`
    /// - output: `[rows, out]`
    #[must_use]
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.weight {
            Weight::Dense(weight) => ops::linear(x, weight.clone(), self.bias.clone()),
        }
    }

    /// Applies a convolution kernel whose matrix this is: see [`ops::causal_conv1d`].
    ///
    /// # Panics
    /// When the kernel has no bias; those of this model family have one.
    #[must_use]
    pub fn causal_conv1d(&self, x: Tensor<2>, dilation: usize) -> Tensor<2> {
        let bias = self.bias.clone().expect("convolution kernels have a bias");
        match &self.weight {
            Weight::Dense(weight) => ops::causal_conv1d(x, weight.clone(), bias, dilation),
        }
    }
}
