//! The one matrix product of every model.

use burn::tensor::Tensor;

use burn_omni_ops::decode::Matrices;
use burn_omni_ops::{self as ops, Packed};

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
#[expect(
    clippy::large_enum_variant,
    reason = "both are handles, and a model has a few hundred of them"
)]
pub enum Weight {
    /// `[out, in]` in f32, bf16 or f16.
    Dense(Tensor<2>),
    /// One matrix of 4- or 8-bit codes.
    Packed(Packed),
}

/// `x * weight^T + bias`.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Weight,
    bias: Option<Tensor<1>>,
    factor: Option<Tensor<1>>,
}

impl Linear {
    /// A matrix `[out, in]` and its bias `[out]`.
    #[must_use]
    pub fn new(weight: Weight, bias: Option<Tensor<1>>) -> Self {
        Self {
            weight,
            bias,
            factor: None,
        }
    }

    /// The same for an input that is first multiplied with `factor`, `[in]`.
    #[must_use]
    pub fn with_factor(self, factor: Option<Tensor<1>>) -> Self {
        Self { factor, ..self }
    }

    /// The matrix.
    #[must_use]
    pub fn weight(&self) -> &Weight {
        &self.weight
    }

    /// Bytes of the matrix.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.weight {
            Weight::Dense(weight) => bytes(weight),
            Weight::Packed(weight) => weight.bytes(),
        }
    }

    /// The matrix alone, where there is nothing else.
    #[must_use]
    pub fn matrices(&self) -> Option<Matrices> {
        (self.bias.is_none() && self.factor.is_none()).then(|| match &self.weight {
            Weight::Dense(weight) => Matrices::Dense(weight.clone().unsqueeze()),
            Weight::Packed(weight) => Matrices::Packed(weight.clone()),
        })
    }

    /// # Shapes
    /// - x: `[rows, in]`
    /// - output: `[rows, out]`
    #[must_use]
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = times(x, self.factor.as_ref());
        match &self.weight {
            Weight::Dense(weight) => ops::linear(x, weight.clone(), self.bias.clone()),
            Weight::Packed(weight) => {
                let y = ops::packed_linear(x, weight);
                match &self.bias {
                    Some(bias) => y + bias.clone().unsqueeze(),
                    None => y,
                }
            }
        }
    }

    /// [`Linear::forward`] of rows behind a root-mean-square norm.
    ///
    /// # Shapes
    /// - x: `[rows, in]`
    /// - norm: `[in]`, with its epsilon
    /// - output: `[rows, out]`
    #[must_use]
    pub fn forward_normed(&self, x: Tensor<2>, (norm, eps): (Tensor<1>, f64)) -> Tensor<2> {
        match self.dense() {
            Some(weight) => ops::rms_norm_linear(x, (norm, eps), weight),
            None => {
                let normed = ops::rms_norm(x.unsqueeze_dim(1), norm, eps);
                self.forward(normed.squeeze_dim(1))
            }
        }
    }

    /// [`Linear::forward`] of `silu(gate) * up`.
    ///
    /// # Shapes
    /// - gate_up: `[rows, 2 * in]`
    /// - output: `[rows, out]`
    #[must_use]
    pub fn forward_gated(&self, gate_up: Tensor<2>) -> Tensor<2> {
        match self.dense() {
            Some(weight) => ops::swiglu_linear(gate_up, weight),
            None => self.forward(ops::swiglu(gate_up)),
        }
    }

    /// The matrix, where it is not packed and there is nothing else.
    fn dense(&self) -> Option<Tensor<2>> {
        match &self.weight {
            Weight::Dense(weight) if self.bias.is_none() && self.factor.is_none() => {
                Some(weight.clone())
            }
            _ => None,
        }
    }

    /// Applies a convolution kernel whose matrix this is: see [`ops::causal_conv1d`].
    ///
    /// # Panics
    /// When the kernel has no bias, or is packed; those of this model family have one and are unpacked on loading.
    #[must_use]
    pub fn causal_conv1d(&self, x: Tensor<2>, dilation: usize) -> Tensor<2> {
        let (weight, bias) = self.kernel();
        ops::causal_conv1d(x, weight, bias, dilation)
    }

    /// The same of a stream's rows behind an activation: see [`ops::snake_conv1d`], which has the shapes.
    ///
    /// # Panics
    /// As [`Linear::causal_conv1d`].
    #[must_use]
    pub fn snake_conv1d(
        &self,
        rows: [Tensor<2>; 2],
        snake: [Tensor<1>; 2],
        dilation: usize,
    ) -> (Tensor<2>, Tensor<2>) {
        let (weight, bias) = self.kernel();
        ops::snake_conv1d(rows, snake, weight, bias, dilation)
    }

    /// A kernel of one tap, of rows behind an activation, added to `y`: see [`ops::add_snake_linear`], which has the shapes.
    ///
    /// # Panics
    /// As [`Linear::causal_conv1d`].
    #[must_use]
    pub fn add_snake_linear(&self, y: Tensor<2>, x: Tensor<2>, snake: [Tensor<1>; 2]) -> Tensor<2> {
        let (weight, bias) = self.kernel();
        ops::add_snake_linear(y, x, snake, weight, bias)
    }

    /// The parts of a convolution kernel.
    fn kernel(&self) -> (Tensor<2>, Tensor<1>) {
        let bias = self.bias.clone().expect("convolution kernels have a bias");
        match &self.weight {
            Weight::Dense(weight) => (weight.clone(), bias),
            Weight::Packed(_) => panic!("convolution kernels are not kept packed"),
        }
    }
}

/// The rows of `x` times a factor a column, where there is one.
pub(crate) fn times(x: Tensor<2>, factor: Option<&Tensor<1>>) -> Tensor<2> {
    match factor {
        Some(factor) => x * factor.clone().unsqueeze(),
        None => x,
    }
}

/// Bytes of the elements.
pub(crate) fn bytes<const D: usize>(x: &Tensor<D>) -> usize {
    x.dims().iter().product::<usize>() * x.dtype().size()
}
