//! The operations on the CPU: f32 activations, weights in the dtype they are stored in.
//!
//! Every result element is one serial reduction in a fixed order, so the thread count never changes a bit.

mod attention;
mod blocks;
mod conv;
mod dots;
mod draw;
mod elementwise;
mod experts;
mod gemm;
mod kv;
mod linear;
mod math;
mod norm;
mod packed;
mod parallel;
mod small;
mod view;

use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn_flex::Flex;

use crate::draw::Words;
use crate::{AttentionSpec, OmniOps, PackedSpec};

type F = FloatTensor<Flex>;
type I = IntTensor<Flex>;

impl OmniOps for Flex {
    fn linear(x: F, weight: F) -> F {
        linear::linear(&x, &weight, None)
    }

    fn linear_bias(x: F, weight: F, bias: F) -> F {
        linear::linear(&x, &weight, Some(&bias))
    }

    fn rms_norm(x: F, weight: F, eps: f64) -> F {
        norm::rms_norm(&x, &weight, eps)
    }

    fn layer_norm(x: F, weight: F, bias: F, eps: f64) -> F {
        norm::layer_norm(&x, &weight, &bias, eps)
    }

    fn rope(x: F, cos: F, sin: F) -> F {
        norm::rope(&x, &cos, &sin)
    }

    fn normed_rope(x: F, weight: F, cos: F, sin: F, eps: f64) -> F {
        Self::rope(Self::rms_norm(x, weight, eps), cos, sin)
    }

    fn attention(q: F, k: F, v: F, spec: AttentionSpec) -> F {
        attention::attention(&q, &k, &v, &spec)
    }

    fn swiglu(gate_up: F) -> F {
        elementwise::swiglu(&gate_up)
    }

    fn gelu(x: F) -> F {
        elementwise::gelu(x)
    }

    fn gelu_tanh(x: F) -> F {
        elementwise::gelu_tanh(x)
    }

    fn snake(x: F, alpha: F, inverse_beta: F) -> F {
        elementwise::snake(x, &alpha, &inverse_beta)
    }

    fn add_scaled(y: F, x: F, scale: F) -> F {
        elementwise::add_scaled(y, &x, &scale)
    }

    fn depthwise_conv1d(x: F, weight: F, bias: F) -> F {
        conv::depthwise_conv1d(&x, &weight, &bias)
    }

    fn extend(kept: F, x: F) -> (F, F) {
        let [rows, reach] = [&x, &kept].map(|part| part.layout().shape()[0]);
        let all = Self::float_cat(vec![kept, x], 0);
        let last = Self::float_slice(all.clone(), &[(rows..rows + reach).into()]);
        (all, elementwise::owned(last))
    }

    fn route(logits: F, top_k: usize, normalize: bool) -> (IntTensor<Flex>, F) {
        experts::route(&logits, top_k, normalize)
    }

    fn experts(x: F, ids: IntTensor<Flex>, weights: F, gate_up: F, down: F) -> F {
        experts::experts(&x, &ids, &weights, [&gate_up, &down])
    }

    fn causal_conv1d(x: F, weight: F, bias: F, dilation: usize) -> F {
        conv::causal_conv1d(&x, &weight, &bias, dilation)
    }

    fn rms_norm_linear(x: F, norm: F, weight: F, eps: f64) -> F {
        linear::linear(&norm::rms_norm(&x, &norm, eps), &weight, None)
    }

    fn swiglu_linear(gate_up: F, weight: F) -> F {
        linear::linear(&Self::swiglu(gate_up), &weight, None)
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
        let (all, last) = Self::extend(kept, x);
        let all = Self::snake(all, alpha, inverse_beta);
        (Self::causal_conv1d(all, weight, bias, dilation), last)
    }

    fn add_snake_linear(y: F, x: F, alpha: F, inverse_beta: F, weight: F, bias: F) -> F {
        let x = Self::snake(x, alpha, inverse_beta);
        Self::float_add(Self::linear_bias(x, weight, bias), y)
    }

    fn write_rows(store: F, rows: F, at: usize) -> F {
        let [count, heads, width] = [0, 1, 2].map(|axis| rows.layout().shape()[axis]);
        let place = [at..at + count, 0..heads, 0..width].map(Into::into);
        Self::float_slice_assign(store, &place, rows)
    }

    fn write_e4m3(store: I, rows: F, at: usize) -> I {
        kv::write(store, &rows, at)
    }

    fn attention_e4m3(q: F, k: I, v: I, spec: AttentionSpec) -> F {
        let rows = q.layout().shape()[0];
        let [k, v] = [k, v].map(|words| kv::read(&words, spec.end(rows)));
        attention::attention(&q, &k, &v, &spec)
    }

    fn draw_words(words: I, drawn: Words) -> I {
        draw::words(words, drawn)
    }

    fn draw_floats(floats: F, seed: u32) -> F {
        draw::floats(floats, seed)
    }

    fn copy(from: I, to: I) -> I {
        draw::copy(&from, to)
    }

    fn pack(codes: I, scales: I, spec: PackedSpec) -> (I, I) {
        packed::pack(codes, scales, &spec)
    }

    fn unpack(codes: I, scales: I, gains: F, spec: PackedSpec) -> F {
        packed::unpack([&codes, &scales, &gains], &spec)
    }

    fn packed_linear(x: F, codes: I, scales: I, gains: F, spec: PackedSpec) -> F {
        packed::linear(&x, [&codes, &scales, &gains], &spec)
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
        let up = [&up_codes, &up_scales, &up_gains];
        let down = [&down_codes, &down_scales, &down_gains];
        packed::experts(&x, &ids, &weights, [up, down], &specs)
    }
}
