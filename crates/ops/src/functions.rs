//! The operations as model code calls them.

use burn::backend::Dispatch;
use burn::tensor::{Device, Int, Tensor};

use crate::{AttentionSpec, OmniOps, Packed};

/// The experts chosen for each row, best first.
#[derive(Debug, Clone)]
pub struct Routes {
    /// Expert numbers, `[rows, top_k]`.
    pub ids: Tensor<2, Int>,
    /// Factors on the experts' outputs, `[rows, top_k]`.
    pub weights: Tensor<2>,
}

/// `x * weight^T + bias`.
///
/// # Shapes
/// - x: `[rows, in]`
/// - weight: `[out, in]`, in the dtype it is stored in
/// - bias: `[out]`
/// - output: `[rows, out]`
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(match bias {
        Some(bias) => Dispatch::linear_bias(x, weight, bias.into_dispatch()),
        None => Dispatch::linear(x, weight),
    })
}

/// Root-mean-square norm of the last axis: `x / sqrt(mean(x^2) + eps) * weight`.
///
/// # Shapes
/// - x, output: `[rows, heads, width]`
/// - weight: `[width]`
pub fn rms_norm(x: Tensor<3>, weight: Tensor<1>, eps: f64) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::rms_norm(
        x.into_dispatch(),
        weight.into_dispatch(),
        eps,
    ))
}

/// Layer norm of the last axis, with the biased variance.
///
/// # Shapes
/// - x, output: `[rows, heads, width]`
/// - weight, bias: `[width]`
pub fn layer_norm(x: Tensor<3>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::layer_norm(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        eps,
    ))
}

/// Writes rows into a store, in the dtype of the store. On a GPU they are written in place, whoever else holds it.
///
/// # Shapes
/// - store, output: `[capacity, heads, width]`
/// - rows: `[rows, heads, width]`
///
/// # Panics
/// When there is no room behind row `at`.
pub fn write_rows(store: Tensor<3>, rows: Tensor<3>, at: usize) -> Tensor<3> {
    let (capacity, count) = (store.dims()[0], rows.dims()[0]);
    assert!(
        at + count <= capacity,
        "a store of {capacity} rows cannot hold {}",
        at + count
    );
    Tensor::from_dispatch(Dispatch::write_rows(
        store.into_dispatch(),
        rows.into_dispatch(),
        at,
    ))
}

/// Rotary embedding of pairs `(j, j + head_dim / 2)`.
///
/// # Shapes
/// - x, output: `[rows, heads, head_dim]`
/// - cos, sin: `[rows, head_dim / 2]`
pub fn rope(x: Tensor<3>, cos: Tensor<2>, sin: Tensor<2>) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::rope(
        x.into_dispatch(),
        cos.into_dispatch(),
        sin.into_dispatch(),
    ))
}

/// [`rope`] of what [`rms_norm`] makes of every head.
///
/// # Shapes
/// - x, output: `[rows, heads, head_dim]`
/// - weight: `[head_dim]`
/// - cos, sin: `[rows, head_dim / 2]`
pub fn normed_rope(
    x: Tensor<3>,
    weight: Tensor<1>,
    eps: f64,
    [cos, sin]: [Tensor<2>; 2],
) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::normed_rope(
        x.into_dispatch(),
        weight.into_dispatch(),
        cos.into_dispatch(),
        sin.into_dispatch(),
        eps,
    ))
}

/// Softmax attention with grouped heads: query head `h` reads key head `h / (heads / kv_heads)`.
///
/// # Shapes
/// - q, output: `[rows, heads, head_dim]`
/// - k, v: `[keys, kv_heads, head_dim]`; keys that no query sees are not read
pub fn attention(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, spec: AttentionSpec) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::attention(
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        spec,
    ))
}

/// `silu(gate) * up` of rows that hold gate and up side by side.
///
/// # Shapes
/// - gate_up: `[rows, 2 * width]`
/// - output: `[rows, width]`
pub fn swiglu(gate_up: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::swiglu(gate_up.into_dispatch()))
}

/// Exact GELU, `x * (1 + erf(x / sqrt(2))) / 2`, of any shape.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::gelu(x.into_dispatch()))
}

/// GELU in its tanh approximation, `x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))) / 2`, of any shape.
pub fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::gelu_tanh(x.into_dispatch()))
}

/// SnakeBeta: `x + sin(alpha * x)^2 * inverse_beta`, a channel a column.
///
/// # Shapes
/// - x, output: `[rows, channels]`
/// - alpha, inverse_beta: `[channels]`, both already out of their log scale
pub fn snake(x: Tensor<2>, alpha: Tensor<1>, inverse_beta: Tensor<1>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::snake(
        x.into_dispatch(),
        alpha.into_dispatch(),
        inverse_beta.into_dispatch(),
    ))
}

/// `y + x * scale`, a channel a column.
///
/// # Shapes
/// - x, y, output: `[rows, channels]`
/// - scale: `[channels]`
pub fn add_scaled(y: Tensor<2>, x: Tensor<2>, scale: Tensor<1>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::add_scaled(
        y.into_dispatch(),
        x.into_dispatch(),
        scale.into_dispatch(),
    ))
}

/// Every output row is the sum of the input rows that end with it, each times the weight of its tap, and the bias: a
/// channel a column.
///
/// # Shapes
/// - x: `[taps - 1 + rows, channels]`
/// - weight: `[taps, channels]`, oldest first
/// - bias: `[channels]`
/// - output: `[rows, channels]`
pub fn depthwise_conv1d(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::depthwise_conv1d(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
    ))
}

/// New rows of a stream behind those that were kept of it, and of all together the last, as many as were kept: what a causal
/// convolution takes, and what it will need again. Each is in memory of its own, which nobody keeps alive for a part of it.
///
/// # Shapes
/// - kept: `[reach, width]`, x: `[rows, width]`, of one dtype, both of at least one row
/// - output: `[reach + rows, width]` and `[reach, width]`
pub fn extend(kept: Tensor<2>, x: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
    let (all, last) = Dispatch::extend(kept.into_dispatch(), x.into_dispatch());
    (Tensor::from_dispatch(all), Tensor::from_dispatch(last))
}

/// Chooses the experts of each row: softmax over all experts in f32, the `top_k` largest, divided by their sum when
/// `normalize` is set (`norm_topk_prob`).
///
/// # Shapes
/// - logits: `[rows, experts]`
pub fn route(logits: Tensor<2>, top_k: usize, normalize: bool) -> Routes {
    let (ids, weights) = Dispatch::route(logits.into_dispatch(), top_k, normalize);
    Routes {
        ids: Tensor::from_dispatch(ids),
        weights: Tensor::from_dispatch(weights),
    }
}

/// The weighted sum over each row's experts of `down(silu(gate x) * up x)`.
///
/// # Shapes
/// - x, output: `[rows, hidden]`
/// - gate_up: `[experts, 2 * intermediate, hidden]`, gate rows first
/// - down: `[experts, hidden, intermediate]`
pub fn experts(x: Tensor<2>, routes: Routes, gate_up: Tensor<3>, down: Tensor<3>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::experts(
        x.into_dispatch(),
        routes.ids.into_dispatch(),
        routes.weights.into_dispatch(),
        gate_up.into_dispatch(),
        down.into_dispatch(),
    ))
}

/// Convolution in time over rows that begin with their history: output row `t` sees the input rows
/// `t, t + dilation, …, t + (taps - 1) * dilation`, the last of which is its own time.
///
/// # Shapes
/// - x: `[(taps - 1) * dilation + rows, in]`
/// - weight: `[out, taps * in]`, taps outermost, oldest first
/// - bias: `[out]`
/// - output: `[rows, out]`
pub fn causal_conv1d(
    x: Tensor<2>,
    weight: Tensor<2>,
    bias: Tensor<1>,
    dilation: usize,
) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::causal_conv1d(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        dilation,
    ))
}

/// [`linear`] of [`rms_norm`] of rows of one head, without a bias.
///
/// # Shapes
/// - x: `[rows, in]`
/// - norm: `[in]`
/// - weight: `[out, in]`
/// - output: `[rows, out]`
pub fn rms_norm_linear(
    x: Tensor<2>,
    (norm, eps): (Tensor<1>, f64),
    weight: Tensor<2>,
) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::rms_norm_linear(
        x.into_dispatch(),
        norm.into_dispatch(),
        weight.into_dispatch(),
        eps,
    ))
}

/// [`linear`] of [`swiglu`], without a bias.
///
/// # Shapes
/// - gate_up: `[rows, 2 * in]`
/// - weight: `[out, in]`
/// - output: `[rows, out]`
pub fn swiglu_linear(gate_up: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::swiglu_linear(
        gate_up.into_dispatch(),
        weight.into_dispatch(),
    ))
}

/// [`causal_conv1d`] of [`snake`] of a stream's rows, the new ones behind those that were kept of it; and of all rows as they
/// came the last, as many as were kept. `snake(0)` is 0, so zeros are the silence before a stream.
///
/// # Shapes
/// - kept: `[(taps - 1) * dilation, in]`, x: `[rows, in]`, of one dtype, both of at least one row
/// - alpha, inverse_beta: `[in]`
/// - weight: `[out, taps * in]`, taps outermost, oldest first
/// - bias: `[out]`
/// - output: `[rows, out]`, and as `kept`
///
/// # Panics
/// When other rows were kept than the first output needs.
pub fn snake_conv1d(
    [kept, x]: [Tensor<2>; 2],
    [alpha, inverse_beta]: [Tensor<1>; 2],
    weight: Tensor<2>,
    bias: Tensor<1>,
    dilation: usize,
) -> (Tensor<2>, Tensor<2>) {
    let ([reach, width], [_, columns]) = (kept.dims(), weight.dims());
    assert_eq!(
        reach,
        (columns / width - 1) * dilation,
        "rows that are kept"
    );
    let (y, last) = Dispatch::snake_conv1d(
        kept.into_dispatch(),
        x.into_dispatch(),
        alpha.into_dispatch(),
        inverse_beta.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        dilation,
    );
    (Tensor::from_dispatch(y), Tensor::from_dispatch(last))
}

/// `y + snake(x) * weight^T + bias`: see [`snake`].
///
/// # Shapes
/// - y, output: `[rows, out]`, of the dtype of x
/// - x: `[rows, in]`
/// - alpha, inverse_beta: `[in]`
/// - weight: `[out, in]`
/// - bias: `[out]`
///
/// # Panics
/// When `y` has another shape.
pub fn add_snake_linear(
    y: Tensor<2>,
    x: Tensor<2>,
    [alpha, inverse_beta]: [Tensor<1>; 2],
    weight: Tensor<2>,
    bias: Tensor<1>,
) -> Tensor<2> {
    assert_eq!(
        y.dims(),
        [x.dims()[0], weight.dims()[0]],
        "what is added to"
    );
    Tensor::from_dispatch(Dispatch::add_snake_linear(
        y.into_dispatch(),
        x.into_dispatch(),
        alpha.into_dispatch(),
        inverse_beta.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
    ))
}

/// The values of a packed matrix in f32.
///
/// # Shapes
/// - output: `[matrices * rows, width]`
pub fn unpack(weight: &Packed) -> Tensor<2> {
    let (codes, scales, gains) = weight.parts();
    Tensor::from_dispatch(Dispatch::unpack(
        codes.into_dispatch(),
        scales.into_dispatch(),
        gains.into_dispatch(),
        weight.spec(),
    ))
}

/// `x * weight^T` with one packed matrix.
///
/// # Shapes
/// - x: `[rows, width]`
/// - output: `[rows, rows of the matrix]`
pub fn packed_linear(x: Tensor<2>, weight: &Packed) -> Tensor<2> {
    let (codes, scales, gains) = weight.parts();
    Tensor::from_dispatch(Dispatch::packed_linear(
        x.into_dispatch(),
        codes.into_dispatch(),
        scales.into_dispatch(),
        gains.into_dispatch(),
        weight.spec(),
    ))
}

/// Whether a device has products of 4-bit operands, which [`PackedSpec::w4a4`](crate::PackedSpec) asks for: NVIDIA GPUs of
/// compute capability 12.0 and 12.1.
#[must_use]
#[cfg_attr(
    not(feature = "cube"),
    expect(unused_variables, reason = "only GPUs have any")
)]
pub fn has_w4a4(device: &Device) -> bool {
    #[cfg(feature = "cube")]
    {
        use burn_omni_kernels::packed::tiles::scaled::{capability, has_products};
        let identity = device.identity();
        let number = identity.and_then(|identity| capability(&identity.fingerprint));
        number.is_some_and(has_products)
    }
    #[cfg(not(feature = "cube"))]
    false
}

/// [`experts`] with packed matrices; those of `gate_up` are gated.
///
/// # Shapes
/// - x, output: `[rows, hidden]`
pub fn packed_experts(x: Tensor<2>, routes: Routes, gate_up: &Packed, down: &Packed) -> Tensor<2> {
    let (up_codes, up_scales, up_gains) = gate_up.parts();
    let (down_codes, down_scales, down_gains) = down.parts();
    Tensor::from_dispatch(Dispatch::packed_experts(
        x.into_dispatch(),
        routes.ids.into_dispatch(),
        routes.weights.into_dispatch(),
        up_codes.into_dispatch(),
        up_scales.into_dispatch(),
        up_gains.into_dispatch(),
        down_codes.into_dispatch(),
        down_scales.into_dispatch(),
        down_gains.into_dispatch(),
        [gate_up.spec(), down.spec()],
    ))
}
