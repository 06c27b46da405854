//! The operations on GPUs: our own kernels over the buffers of Burn's tensors, which are what they were made for.
//! Burn's matrix product is not among them, since it does not run on every device.

mod attend;
mod buffers;
mod chosen;
pub(crate) mod decode;
pub(crate) mod filling;
pub(crate) mod frames;
pub(crate) mod memory;
mod packed;
mod products;
pub(crate) mod prompt;
mod rounded;
mod rows;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn_cubecl::CubeBackend;
use burn_omni_kernels::Function;

use crate::draw::Words;
use crate::{AttentionSpec, OmniOps, PackedSpec};

type F = FloatTensor<CubeBackend>;
type I = IntTensor<CubeBackend>;

impl OmniOps for CubeBackend {
    fn linear(x: F, weight: F) -> F {
        products::linear(x, weight, None)
    }

    fn linear_bias(x: F, weight: F, bias: F) -> F {
        products::linear(x, weight, Some(bias))
    }

    fn rms_norm(x: F, weight: F, eps: f64) -> F {
        rows::norm(x, weight, None, eps)
    }

    fn layer_norm(x: F, weight: F, bias: F, eps: f64) -> F {
        rows::norm(x, weight, Some(bias), eps)
    }

    fn rope(x: F, cos: F, sin: F) -> F {
        rows::rope(x, cos, sin)
    }

    fn normed_rope(x: F, weight: F, cos: F, sin: F, eps: f64) -> F {
        rows::normed_rope(x, (weight, eps), cos, sin)
    }

    fn attention(q: F, k: F, v: F, spec: AttentionSpec) -> F {
        attend::attention(q, k, v, &spec)
    }

    fn swiglu(gate_up: F) -> F {
        rows::swiglu(gate_up)
    }

    fn gelu(x: F) -> F {
        rows::map(x, Function::Gelu)
    }

    fn gelu_tanh(x: F) -> F {
        rows::map(x, Function::GeluTanh)
    }

    fn snake(x: F, alpha: F, inverse_beta: F) -> F {
        rows::snake(x, alpha, inverse_beta)
    }

    fn add_scaled(y: F, x: F, scale: F) -> F {
        rows::add_scaled(y, x, scale)
    }

    fn depthwise_conv1d(x: F, weight: F, bias: F) -> F {
        rows::depthwise_conv1d(x, weight, bias)
    }

    fn extend(kept: F, x: F) -> (F, F) {
        rows::extend(kept, x)
    }

    fn route(logits: F, top_k: usize, normalize: bool) -> (I, F) {
        products::route(logits, top_k, normalize)
    }

    fn experts(x: F, ids: I, weights: F, gate_up: F, down: F) -> F {
        products::experts(x, (ids, weights), gate_up, down)
    }

    fn causal_conv1d(x: F, weight: F, bias: F, dilation: usize) -> F {
        products::causal_conv1d(x, weight, bias, dilation)
    }

    fn rms_norm_linear(x: F, norm: F, weight: F, eps: f64) -> F {
        rounded::rms_norm_linear(x, (norm, eps), weight)
    }

    fn swiglu_linear(gate_up: F, weight: F) -> F {
        rounded::swiglu_linear(gate_up, weight)
    }

    fn snake_conv1d(
        kept: F,
        x: F,
        alpha: F,
        inverse_beta: F,
        weight: F,
        bias: F,
        dilation: usize,
    ) -> (F, F) {
        rounded::snake_conv1d([kept, x], [alpha, inverse_beta], [weight, bias], dilation)
    }

    fn add_snake_linear(y: F, x: F, alpha: F, inverse_beta: F, weight: F, bias: F) -> F {
        rounded::add_snake_linear(y, x, [alpha, inverse_beta], [weight, bias])
    }

    fn write_rows(store: F, rows: F, at: usize) -> F {
        rows::write(store, rows, at)
    }

    fn write_e4m3(store: I, rows: F, at: usize) -> I {
        rows::write_e4m3(store, rows, at)
    }

    fn attention_e4m3(q: F, k: I, v: I, spec: AttentionSpec) -> F {
        attend::attention_e4m3(q, [k, v], &spec)
    }

    fn draw_words(words: I, drawn: Words) -> I {
        rows::draw_words(words, drawn)
    }

    fn draw_floats(floats: F, seed: u32) -> F {
        rows::draw_floats(floats, seed)
    }

    fn copy(from: I, to: I) -> I {
        rows::copy(from, to)
    }

    fn pack(codes: I, scales: I, spec: PackedSpec) -> (I, I) {
        packed::pack(codes, scales, &spec)
    }

    fn unpack(codes: I, scales: I, gains: F, spec: PackedSpec) -> F {
        packed::unpack((codes, scales, gains), &spec)
    }

    fn packed_linear(x: F, codes: I, scales: I, gains: F, spec: PackedSpec) -> F {
        packed::linear(x, (codes, scales, gains), &spec)
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
        let up = (up_codes, up_scales, up_gains);
        let down = (down_codes, down_scales, down_gains);
        packed::experts(x, (ids, weights), [up, down], &specs)
    }
}
