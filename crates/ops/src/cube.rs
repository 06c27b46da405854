//! The operations on GPUs.

use burn::tensor::{Float, Int, Tensor};
use burn_cubecl::CubeBackend;

use burn::backend::tensor::{FloatTensor, IntTensor};

use crate::{AttentionSpec, OmniOps, PackedSpec, Routes, reference};

type F = FloatTensor<CubeBackend>;
type I = IntTensor<CubeBackend>;

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

    fn pack(codes: I, scales: I, _spec: PackedSpec) -> (I, I) {
        (codes, scales)
    }

    fn unpack(codes: I, scales: I, gains: F, spec: PackedSpec) -> F {
        lower(unpacked(codes, scales, gains, spec))
    }

    fn packed_linear(x: F, codes: I, scales: I, gains: F, spec: PackedSpec) -> F {
        let weight = unpacked(codes, scales, gains, spec);
        lower(reference::linear(lift::<2>(x), weight, None))
    }

    fn packed_experts(
        x: F,
        ids: I,
        weights: F,
        up_codes: I,
        up_scales: I,
        up_gains: F,
        down_codes: I,
        down_scales: I,
        down_gains: F,
        specs: [PackedSpec; 2],
    ) -> F {
        let [up, down] = specs;
        let routes = Routes {
            ids: lift_int(ids),
            weights: lift(weights),
        };
        let gate_up = unpacked(up_codes, up_scales, up_gains, up);
        let down_weight = unpacked(down_codes, down_scales, down_gains, down);
        lower(reference::experts(
            lift(x),
            routes,
            gate_up.reshape([up.matrices, up.rows, up.width]),
            down_weight.reshape([down.matrices, down.rows, down.width]),
        ))
    }
}

fn lift_int<const D: usize>(x: I) -> Tensor<D, Int> {
    Tensor::<D, Int>::from_primitive::<CubeBackend>(x)
}

fn unpacked(codes: I, scales: I, gains: F, spec: PackedSpec) -> Tensor<2> {
    reference::unpack(lift_int(codes), lift_int(scales), lift(gains), spec)
}
