//! The extension trait, and its implementation on GPUs.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, backend_extension};

use crate::draw::Words;
use crate::{AttentionSpec, PackedSpec};

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

    /// See [`crate::normed_rope`].
    fn normed_rope(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        eps: f64,
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

    /// See [`crate::add_scaled`].
    fn add_scaled(
        y: FloatTensor<Self>,
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// See [`crate::depthwise_conv1d`].
    fn depthwise_conv1d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// See [`crate::extend`].
    fn extend(
        kept: FloatTensor<Self>,
        x: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

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

    /// See [`crate::rms_norm_linear`].
    fn rms_norm_linear(
        x: FloatTensor<Self>,
        norm: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self>;

    /// See [`crate::swiglu_linear`].
    fn swiglu_linear(gate_up: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;

    /// See [`crate::snake_conv1d`].
    fn snake_conv1d(
        kept: FloatTensor<Self>,
        x: FloatTensor<Self>,
        alpha: FloatTensor<Self>,
        inverse_beta: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        dilation: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// See [`crate::add_snake_linear`].
    fn add_snake_linear(
        y: FloatTensor<Self>,
        x: FloatTensor<Self>,
        alpha: FloatTensor<Self>,
        inverse_beta: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// See [`crate::write_rows`].
    fn write_rows(
        store: FloatTensor<Self>,
        rows: FloatTensor<Self>,
        at: usize,
    ) -> FloatTensor<Self>;

    /// See [`crate::KvStore::write`], of E4M3.
    fn write_e4m3(store: IntTensor<Self>, rows: FloatTensor<Self>, at: usize) -> IntTensor<Self>;

    /// See [`crate::attention_over`], of E4M3.
    fn attention_e4m3(
        q: FloatTensor<Self>,
        k: IntTensor<Self>,
        v: IntTensor<Self>,
        spec: AttentionSpec,
    ) -> FloatTensor<Self>;

    /// Fills 32-bit words; see [`crate::Packed::drawn`].
    fn draw_words(words: IntTensor<Self>, drawn: Words) -> IntTensor<Self>;

    /// Fills floats; see [`crate::drawn`].
    fn draw_floats(floats: FloatTensor<Self>, seed: u32) -> FloatTensor<Self>;

    /// See [`crate::copy`].
    fn copy(from: IntTensor<Self>, to: IntTensor<Self>) -> IntTensor<Self>;

    /// Codes and scales in checkpoint order, in the order that this backend's kernels read: see [`crate::Packed`].
    fn pack(
        codes: IntTensor<Self>,
        scales: IntTensor<Self>,
        spec: PackedSpec,
    ) -> (IntTensor<Self>, IntTensor<Self>);

    /// See [`crate::unpack`].
    fn unpack(
        codes: IntTensor<Self>,
        scales: IntTensor<Self>,
        gains: FloatTensor<Self>,
        spec: PackedSpec,
    ) -> FloatTensor<Self>;

    /// See [`crate::packed_linear`].
    fn packed_linear(
        x: FloatTensor<Self>,
        codes: IntTensor<Self>,
        scales: IntTensor<Self>,
        gains: FloatTensor<Self>,
        spec: PackedSpec,
    ) -> FloatTensor<Self>;

    /// See [`crate::packed_experts`].
    fn packed_experts(
        x: FloatTensor<Self>,
        ids: IntTensor<Self>,
        weights: FloatTensor<Self>,
        up_codes: IntTensor<Self>,
        up_scales: IntTensor<Self>,
        up_gains: FloatTensor<Self>,
        down_codes: IntTensor<Self>,
        down_scales: IntTensor<Self>,
        down_gains: FloatTensor<Self>,
        specs: [PackedSpec; 2],
    ) -> FloatTensor<Self>;
}
