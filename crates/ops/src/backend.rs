//! The extension trait, and its implementation on GPUs.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, backend_extension};

use crate::AttentionSpec;

/// The custom operations of a backend. Shapes and meaning are those of the free functions of the same names.
#[backend_extension(Flex: cfg(feature = "flex"), Cube: cfg(feature = "cube"))]
pub trait OmniOps: Backend {
    /// See [`crate::linear`], without bias.
    fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;

    /// See [`crate::linear`], with bias.
    fn linear_bias(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// See [`crate::rms_norm`].
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self>;

    /// See [`crate::layer_norm`].
    fn layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self>;

    /// See [`crate::rope`].
    fn rope(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// See [`crate::attention`].
    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        spec: AttentionSpec,
    ) -> FloatTensor<Self>;

    /// See [`crate::swiglu`].
    fn swiglu(gate_up: FloatTensor<Self>) -> FloatTensor<Self>;

    /// See [`crate::gelu`].
    fn gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// See [`crate::gelu_tanh`].
    fn gelu_tanh(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// See [`crate::snake`].
    fn snake(
        x: FloatTensor<Self>,
        alpha: FloatTensor<Self>,
        inverse_beta: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// See [`crate::route`].
    fn route(
        logits: FloatTensor<Self>,
        top_k: usize,
        normalize: bool,
    ) -> (IntTensor<Self>, FloatTensor<Self>);

    /// See [`crate::experts`].
    fn experts(
        x: FloatTensor<Self>,
        ids: IntTensor<Self>,
        weights: FloatTensor<Self>,
        gate_up: FloatTensor<Self>,
        down: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// See [`crate::causal_conv1d`].
    fn causal_conv1d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        dilation: usize,
    ) -> FloatTensor<Self>;
}

#[cfg(feature = "cube")]
mod cube {
    use burn::tensor::{Float, Int, Tensor};
    use burn_cubecl::CubeBackend;

    use super::{AttentionSpec, FloatTensor, IntTensor, OmniOps};
    use crate::{Routes, reference};

    type F = FloatTensor<CubeBackend>;

    fn lift<const D: usize>(x: F) -> Tensor<D> {
        Tensor::<D, Float>::from_primitive::<CubeBackend>(x)
    }

    fn lower<const D: usize>(x: Tensor<D>) -> F {
        x.try_into_primitive::<CubeBackend>()
            .expect("the inputs are on this backend")
    }

    impl OmniOps for CubeBackend {
        fn linear(x: F, weight: F) -> F {
            lower(reference::linear(lift::<2>(x), lift(weight), None))
        }

        fn linear_bias(x: F, weight: F, bias: F) -> F {
            lower(reference::linear(
                lift::<2>(x),
                lift(weight),
                Some(lift(bias)),
            ))
        }

        fn rms_norm(x: F, weight: F, eps: f64) -> F {
            lower(reference::rms_norm(lift::<3>(x), lift(weight), eps))
        }

        fn layer_norm(x: F, weight: F, bias: F, eps: f64) -> F {
            lower(reference::layer_norm(
                lift::<3>(x),
                lift(weight),
                lift(bias),
                eps,
            ))
        }

        fn rope(x: F, cos: F, sin: F) -> F {
            lower(reference::rope(lift(x), lift(cos), lift(sin)))
        }

        fn attention(q: F, k: F, v: F, spec: AttentionSpec) -> F {
            lower(reference::attention(lift(q), lift(k), lift(v), &spec))
        }

        fn swiglu(gate_up: F) -> F {
            lower(reference::swiglu(lift(gate_up)))
        }

        fn gelu(x: F) -> F {
            lower(reference::gelu(lift(x)))
        }

        fn gelu_tanh(x: F) -> F {
            lower(reference::gelu_tanh(lift(x)))
        }

        fn snake(x: F, alpha: F, inverse_beta: F) -> F {
            lower(reference::snake(lift(x), lift(alpha), lift(inverse_beta)))
        }

        fn route(logits: F, top_k: usize, normalize: bool) -> (IntTensor<CubeBackend>, F) {
            let Routes { ids, weights } = reference::route(lift(logits), top_k, normalize);
            let ids = ids
                .try_into_primitive::<CubeBackend>()
                .expect("the inputs are on this backend");
            (ids, lower(weights))
        }

        fn experts(x: F, ids: IntTensor<CubeBackend>, weights: F, gate_up: F, down: F) -> F {
            let routes = Routes {
                ids: Tensor::<2, Int>::from_primitive::<CubeBackend>(ids),
                weights: lift(weights),
            };
            lower(reference::experts(
                lift(x),
                routes,
                lift(gate_up),
                lift(down),
            ))
        }

        fn causal_conv1d(x: F, weight: F, bias: F, dilation: usize) -> F {
            lower(reference::causal_conv1d(
                lift(x),
                lift(weight),
                lift(bias),
                dilation,
            ))
        }
    }
}
