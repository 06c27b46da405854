//! Every operation on plain tensors: the oracle of the tests, and the path of backends without their own.

use burn::tensor::{DType, Int, Tensor, TensorData, activation, s};

use crate::draw::{Words, drawn_float, drawn_gain};
use crate::packed::{E2M1, PackedBytes, e4m3 as value_of_e4m3, e8m0};
use crate::{AttentionSpec, Mask, PackedFormat, PackedSpec, Routes};

/// See [`crate::linear`].
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let dtype = x.dtype();
    let y = x.matmul(weight.cast(dtype).transpose());
    match bias {
        Some(bias) => y + bias.cast(dtype).unsqueeze(),
        None => y,
    }
}

/// See [`crate::rms_norm`].
pub fn rms_norm(x: Tensor<3>, weight: Tensor<1>, eps: f64) -> Tensor<3> {
    let dtype = x.dtype();
    let x = x.cast(DType::F32);
    let mean = x.clone().square().mean_dim(2);
    (x / (mean + eps).sqrt()).cast(dtype) * weight.cast(dtype).unsqueeze()
}

/// See [`crate::layer_norm`].
pub fn layer_norm(x: Tensor<3>, weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<3> {
    let dtype = x.dtype();
    let x = x.cast(DType::F32);
    let x = x.clone() - x.mean_dim(2);
    let variance = x.clone().square().mean_dim(2);
    (x / (variance + eps).sqrt()).cast(dtype) * weight.cast(dtype).unsqueeze()
        + bias.cast(dtype).unsqueeze()
}

/// See [`crate::rope`].
pub fn rope(x: Tensor<3>, cos: Tensor<2>, sin: Tensor<2>) -> Tensor<3> {
    let [_, _, head_dim] = x.dims();
    let half = head_dim / 2;
    let (cos, sin) = (cos.unsqueeze_dim::<3>(1), sin.unsqueeze_dim::<3>(1)); // [rows, 1, half]
    let a = x.clone().slice(s![.., .., 0..half]);
    let b = x.slice(s![.., .., half..]);
    let first = a.clone() * cos.clone() - b.clone() * sin.clone();
    Tensor::cat(vec![first, b * cos + a * sin], 2)
}

/// See [`crate::attention`].
pub fn attention(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, spec: &AttentionSpec) -> Tensor<3> {
    let [rows, heads, head_dim] = q.dims();
    let [_, kv_heads, _] = k.dims();
    let visible = visible(&spec.mask, rows);
    let keys = visible.iter().map(|(_, end)| *end).max().unwrap_or(0);
    // [keys, kv_heads, head_dim] -> [heads, keys, head_dim]
    let spread = |x: Tensor<3>| {
        let x = x
            .slice(s![0..keys, .., ..])
            .swap_dims(0, 1)
            .unsqueeze_dim::<4>(1);
        x.repeat_dim(1, heads / kv_heads)
            .reshape([heads, keys, head_dim])
    };
    let mask: Vec<f32> = visible
        .iter()
        .flat_map(|&(start, end)| {
            (0..keys).map(move |j| {
                if j < start || j >= end {
                    f32::NEG_INFINITY
                } else {
                    0.0
                }
            })
        })
        .collect();
    let mask = Tensor::<2>::from_data(TensorData::new(mask, [rows, keys]), &q.device());
    let scores = q.swap_dims(0, 1).matmul(spread(k).swap_dims(1, 2)) * spec.scale; // [heads, rows, keys]
    let dtype = scores.dtype();
    let weights = activation::softmax(scores.cast(DType::F32) + mask.unsqueeze(), 2).cast(dtype);
    weights.matmul(spread(v)).swap_dims(0, 1)
}

/// The keys `start..end` that each query row sees.
pub(crate) fn visible(mask: &Mask, rows: usize) -> Vec<(usize, usize)> {
    match mask {
        Mask::Causal { first, window } => (0..rows)
            .map(|i| {
                let end = first + i + 1;
                (window.map_or(0, |w| end.saturating_sub(w)), end)
            })
            .collect(),
        Mask::Segments(lengths) => {
            let mut start = 0;
            let mut out = Vec::with_capacity(rows);
            for length in lengths {
                out.extend(std::iter::repeat_n((start, start + length), *length));
                start += length;
            }
            out
        }
    }
}

/// See [`crate::swiglu`].
pub fn swiglu(gate_up: Tensor<2>) -> Tensor<2> {
    let [_, width] = gate_up.dims();
    let gate = gate_up.clone().slice(s![.., 0..width / 2]);
    activation::silu(gate) * gate_up.slice(s![.., width / 2..])
}

/// See [`crate::gelu`].
pub fn gelu(x: Tensor<1>) -> Tensor<1> {
    activation::gelu(x)
}

/// See [`crate::gelu_tanh`].
pub fn gelu_tanh(x: Tensor<1>) -> Tensor<1> {
    activation::gelu_approximate(x)
}

/// See [`crate::snake`].
pub fn snake(x: Tensor<2>, alpha: Tensor<1>, inverse_beta: Tensor<1>) -> Tensor<2> {
    let sine = (x.clone() * alpha.unsqueeze()).sin();
    x + sine.square() * inverse_beta.unsqueeze()
}

/// See [`crate::add_scaled`].
pub fn add_scaled(y: Tensor<2>, x: Tensor<2>, scale: Tensor<1>) -> Tensor<2> {
    y + x * scale.unsqueeze()
}

/// See [`crate::depthwise_conv1d`].
pub fn depthwise_conv1d(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    let taps = weight.dims()[0];
    let rows = x.dims()[0] + 1 - taps;
    (0..taps).fold(bias.unsqueeze(), |sum, tap| {
        let weight = weight.clone().slice(s![tap..=tap, ..]);
        x.clone().slice(s![tap..tap + rows, ..]) * weight + sum
    })
}

/// See [`crate::extend`].
pub fn extend(kept: Tensor<2>, x: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
    let rows = x.dims()[0];
    let all = Tensor::cat(vec![kept, x], 0);
    let last = all.clone().slice(s![rows.., ..]);
    (all, last)
}

/// See [`crate::route`].
pub fn route(logits: Tensor<2>, top_k: usize, normalize: bool) -> Routes {
    let dtype = logits.dtype();
    let scores = activation::softmax(logits.cast(DType::F32), 1);
    let (weights, ids) = scores.topk_with_indices(top_k, 1);
    let weights = if normalize {
        weights.clone() / weights.sum_dim(1)
    } else {
        weights
    };
    Routes {
        ids,
        weights: weights.cast(dtype),
    }
}

/// See [`crate::experts`]. Every expert sees every row; rows that did not choose it get the factor 0.
pub fn experts(x: Tensor<2>, routes: Routes, gate_up: Tensor<3>, down: Tensor<3>) -> Tensor<2> {
    let [experts, _, _] = gate_up.dims();
    let mut out = x.zeros_like();
    for expert in 0..experts {
        let chosen: Tensor<2, Int> = routes.ids.clone().equal_elem(expert as i64).int();
        let factor = (routes.weights.clone() * chosen.float()).sum_dim(1); // [rows, 1]
        let hidden = linear(
            x.clone(),
            gate_up.clone().slice(s![expert, .., ..]).squeeze_dim(0),
            None,
        );
        out = out
            + linear(
                swiglu(hidden),
                down.clone().slice(s![expert, .., ..]).squeeze_dim(0),
                None,
            ) * factor;
    }
    out
}

/// See [`crate::causal_conv1d`].
pub fn causal_conv1d(
    x: Tensor<2>,
    weight: Tensor<2>,
    bias: Tensor<1>,
    dilation: usize,
) -> Tensor<2> {
    let [length, width] = x.dims();
    let [_, columns] = weight.dims();
    let taps = columns / width;
    let rows = length - (taps - 1) * dilation;
    let seen = (0..taps)
        .map(|tap| {
            x.clone()
                .slice(s![tap * dilation..tap * dilation + rows, ..])
        })
        .collect();
    linear(Tensor::cat(seen, 1), weight, Some(bias))
}

/// See [`crate::rms_norm_linear`].
pub fn rms_norm_linear(
    x: Tensor<2>,
    (norm, eps): (Tensor<1>, f64),
    weight: Tensor<2>,
) -> Tensor<2> {
    let normed = rms_norm(x.unsqueeze_dim(1), norm, eps).squeeze_dim(1);
    linear(normed, weight, None)
}

/// See [`crate::swiglu_linear`].
pub fn swiglu_linear(gate_up: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    linear(swiglu(gate_up), weight, None)
}

/// See [`crate::snake_conv1d`].
pub fn snake_conv1d(
    [kept, x]: [Tensor<2>; 2],
    [alpha, inverse_beta]: [Tensor<1>; 2],
    weight: Tensor<2>,
    bias: Tensor<1>,
    dilation: usize,
) -> (Tensor<2>, Tensor<2>) {
    let (all, last) = extend(kept, x);
    let y = causal_conv1d(snake(all, alpha, inverse_beta), weight, bias, dilation);
    (y, last)
}

/// See [`crate::add_snake_linear`].
pub fn add_snake_linear(
    y: Tensor<2>,
    x: Tensor<2>,
    [alpha, inverse_beta]: [Tensor<1>; 2],
    weight: Tensor<2>,
    bias: Tensor<1>,
) -> Tensor<2> {
    y + linear(snake(x, alpha, inverse_beta), weight, Some(bias))
}

/// See [`crate::unpack`]; codes and scales are in checkpoint order. The values are formed on the host.
pub fn unpack(
    codes: Tensor<1, Int>,
    scales: Tensor<1, Int>,
    gains: Tensor<1>,
    spec: PackedSpec,
) -> Tensor<2> {
    let device = gains.device();
    let shape = [spec.matrices * spec.rows, spec.width];
    let gains = gains.into_data().try_to_vec().expect("gains are f32");
    let bytes = PackedBytes {
        spec,
        codes: bytes(codes),
        scales: bytes(scales),
        gains,
    };
    Tensor::from_data(
        TensorData::new(bytes.values(), shape),
        (&device, DType::F32),
    )
}

/// See [`crate::drawn`]: the numbers of a tensor of `len`.
#[must_use]
pub fn drawn(len: usize, seed: u32) -> Vec<f32> {
    (0..len as u32)
        .map(|index| drawn_float(index, seed))
        .collect()
}

/// See [`crate::Packed::drawn`].
#[must_use]
pub fn drawn_packed(spec: PackedSpec, seed: u32) -> PackedBytes {
    let rows = spec.matrices * spec.rows;
    let bytes = |words: Words, bytes: usize| -> Vec<u8> {
        let count = (rows * bytes).div_ceil(size_of::<u32>()) as u32;
        let all = (0..count).flat_map(|index| words.word(index).to_le_bytes());
        all.take(rows * bytes).collect()
    };
    PackedBytes {
        spec,
        codes: bytes(Words::codes(&spec, seed), spec.row_bytes()),
        scales: bytes(Words::scales(spec.format, seed), spec.scale_bytes()),
        gains: vec![drawn_gain(spec.format); rows],
    }
}

/// Rows rounded to 4 bits as products of 4-bit operands round them, each by itself: see
/// [`PackedSpec::w4a4`]. Formed on the host, value by value from the definitions.
///
/// # Shapes
/// - x, output: `[rows, width]`
///
/// # Panics
/// When the format is neither [`PackedFormat::NVFP4`] nor [`PackedFormat::MXFP4`].
pub fn four_bit_rows(x: Tensor<2>, format: PackedFormat) -> Tensor<2> {
    let (device, [rows, width]) = (x.device(), x.dims());
    let data = x.cast(DType::F32).into_data();
    let mut values: Vec<f32> = data.try_to_vec().expect("the rows were cast to f32");
    let amax = |values: &[f32]| {
        values
            .iter()
            .fold(0.0_f32, |most, value| most.max(value.abs()))
    };
    for row in values.chunks_exact_mut(width.max(1)) {
        let factor = amax(row) / 2688.0;
        let factor = if factor > 0.0 { factor } else { 1.0 };
        for block in row.chunks_mut(format.block) {
            let most = amax(block);
            let divisor = match format {
                PackedFormat::NVFP4 => {
                    let scale = (most / (6.0 * factor)).max(1.0 / 512.0);
                    let byte = nearest(scale, (0..0x7F).map(value_of_e4m3));
                    value_of_e4m3(byte as u8) * factor
                }
                PackedFormat::MXFP4 => (0..0xFF)
                    .map(e8m0)
                    .find(|scale| most / 6.0 <= *scale)
                    .expect("powers of two reach all numbers"),
                _ => panic!("rows are rounded to NVFP4 or MXFP4"),
            };
            for value in block {
                let magnitude = E2M1[nearest(value.abs() / divisor, E2M1.into_iter())] * divisor;
                *value = magnitude.copysign(*value);
            }
        }
    }
    Tensor::from_data(
        TensorData::new(values, [rows, width]),
        (&device, DType::F32),
    )
}

/// Numbers as [`crate::KvFormat::E4m3`] stores them, found on the host among all values.
///
/// # Panics
/// When a number is NaN.
#[must_use]
pub fn e4m3<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let (device, shape) = (x.device(), x.dims());
    let numbers: Vec<f32> = x.into_data().try_to_vec().expect("the numbers are f32");
    let round = |number: f32| {
        assert!(!number.is_nan(), "there is no nearest number to NaN");
        let byte = nearest(number.abs().min(448.0), (0..0x7F).map(value_of_e4m3));
        value_of_e4m3(byte as u8).copysign(number)
    };
    let numbers: Vec<f32> = numbers.into_iter().map(round).collect();
    Tensor::from_data(TensorData::new(numbers, shape), (&device, DType::F32))
}

/// The number of the value that is nearest; of two, the even number.
fn nearest(number: f32, values: impl Iterator<Item = f32>) -> usize {
    let distances = values.map(|value| (value - number).abs());
    let (at, _) = distances
        .enumerate()
        .fold((0, f32::INFINITY), |best, (at, distance)| {
            let is_better = distance < best.1 || distance == best.1 && at % 2 == 0;
            if is_better { (at, distance) } else { best }
        });
    at
}

fn bytes(words: Tensor<1, Int>) -> Vec<u8> {
    let words: Vec<u32> = words
        .into_data()
        .try_to_vec()
        .expect("packed words are u32");
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}
