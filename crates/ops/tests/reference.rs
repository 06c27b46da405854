//! Every operation of the CPU backend against its plain-tensor reference, on random data.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burn_omni_ops::{self as ops, AttentionSpec, Mask, Routes, reference};

/// Numbers in [-1, 1) from a fixed stream.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn tensor<const D: usize>(&mut self, shape: [usize; D]) -> Tensor<D> {
        let data = (0..shape.iter().product())
            .map(|_| self.next())
            .collect::<Vec<_>>();
        Tensor::from_data(TensorData::new(data, shape), &Device::flex())
    }
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.cast(DType::F32)
        .into_data()
        .try_to_vec()
        .expect("an f32 tensor")
}

#[track_caller]
fn assert_close<const D: usize>(what: &str, found: Tensor<D>, expected: Tensor<D>) {
    assert_eq!(found.dims(), expected.dims(), "{what}: shape");
    let (found, expected) = (values(found), values(expected));
    let largest = expected
        .iter()
        .fold(0.0_f32, |m, x| m.max(x.abs()))
        .max(1e-3);
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert!(
            (found - expected).abs() <= 4e-6 * largest,
            "{what}: element {i} is {found}, expected {expected}"
        );
    }
}

#[test]
fn linear_matches_for_every_stored_dtype_and_row_count() {
    let mut random = Random(1);
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        for (rows, out, k) in [
            (1, 1, 1),
            (1, 130, 200),
            (4, 7, 64),
            (5, 33, 48),
            (70, 300, 129),
            (300, 512, 256),
        ] {
            let (x, bias) = (random.tensor([rows, k]), random.tensor([out]));
            let weight = random.tensor([out, k]).cast(dtype);
            let what = format!("linear {dtype:?} {rows}x{k} by {out}");
            let expected = reference::linear(x.clone(), weight.clone(), Some(bias.clone()));
            assert_close(
                &what,
                ops::linear(x.clone(), weight.clone(), Some(bias)),
                expected,
            );
            let expected = reference::linear(x.clone(), weight.clone(), None);
            assert_close(&what, ops::linear(x, weight, None), expected);
        }
    }
}

#[test]
fn norms_and_rope_match_on_slices_of_columns() {
    let mut random = Random(2);
    for (rows, heads, width) in [(1, 1, 3), (5, 3, 128), (300, 4, 72)] {
        let wide = random.tensor([rows, heads + 2, width]);
        let x = wide.clone().slice([0..rows, 1..heads + 1]);
        let (weight, bias) = (random.tensor([width]), random.tensor([width]));
        let expected = reference::rms_norm(x.clone(), weight.clone(), 1e-6);
        assert_close(
            "rms_norm",
            ops::rms_norm(x.clone(), weight.clone(), 1e-6),
            expected,
        );
        let expected = reference::layer_norm(x.clone(), weight.clone(), bias.clone(), 1e-5);
        assert_close(
            "layer_norm",
            ops::layer_norm(x.clone(), weight, bias, 1e-5),
            expected,
        );
        if width % 2 == 0 {
            let (cos, sin) = (
                random.tensor([rows, width / 2]),
                random.tensor([rows, width / 2]),
            );
            let expected = reference::rope(x.clone(), cos.clone(), sin.clone());
            assert_close("rope", ops::rope(x, cos, sin), expected);
        }
    }
}

#[test]
fn attention_matches_for_every_mask() {
    let mut random = Random(3);
    let causal = |first, window| Mask::Causal { first, window };
    let cases = [
        (1, 1, 4, 4, 64, causal(0, None)),
        (1, 40, 8, 1, 128, causal(31, None)),
        (1, 40, 4, 2, 64, causal(31, Some(12))),
        (150, 200, 4, 2, 32, causal(9, None)),
        (150, 200, 2, 2, 32, causal(0, Some(16))),
        (90, 90, 3, 3, 72, Mask::Segments(vec![1, 70, 19])),
        (130, 130, 2, 1, 16, Mask::Segments(vec![65, 65])),
    ];
    for (rows, keys, heads, kv_heads, head_dim, mask) in cases {
        let q = random.tensor([rows, heads, head_dim]) * 3.0;
        let (k, v) = (
            random.tensor([keys, kv_heads, head_dim]),
            random.tensor([keys, kv_heads, head_dim]),
        );
        let spec = AttentionSpec { scale: 0.3, mask };
        let expected = reference::attention(q.clone(), k.clone(), v.clone(), &spec);
        assert_close(
            &format!("attention {spec:?}"),
            ops::attention(q, k, v, spec),
            expected,
        );
    }
}

#[test]
fn keys_behind_the_last_query_are_not_read() {
    let mut random = Random(4);
    let (q, k, v) = (
        random.tensor([3, 2, 32]),
        random.tensor([9, 2, 32]),
        random.tensor([9, 2, 32]),
    );
    let poison = |x: Tensor<3>| {
        Tensor::cat(
            vec![x, Tensor::full([4, 2, 32], f32::NAN, &Device::flex())],
            0,
        )
    };
    let spec = AttentionSpec::causal(32, 6);
    let expected = ops::attention(q.clone(), k.clone(), v.clone(), spec.clone());
    assert_close(
        "attention",
        ops::attention(q, poison(k), poison(v), spec),
        expected,
    );
}

#[test]
fn activations_match() {
    let mut random = Random(5);
    for (rows, width) in [(1, 2), (3, 130), (700, 96)] {
        let x = random.tensor([rows, width]) * 8.0;
        assert_close(
            "swiglu",
            ops::swiglu(x.clone()),
            reference::swiglu(x.clone()),
        );
        let flat = reference::gelu(x.clone().reshape([rows * width])).reshape([rows, width]);
        assert_close("gelu", ops::gelu(x.clone()), flat);
        let flat = reference::gelu_tanh(x.clone().reshape([rows * width])).reshape([rows, width]);
        assert_close("gelu_tanh", ops::gelu_tanh(x.clone()), flat);
        let (alpha, beta) = (random.tensor([width]) + 2.0, random.tensor([width]) + 1.5);
        let expected = reference::snake(x.clone(), alpha.clone(), beta.clone());
        let kept = x.clone();
        assert_close("snake", ops::snake(x, alpha, beta), expected);
        assert!(
            values(kept).iter().all(|x| x.abs() <= 8.0),
            "a held input is not written over"
        );
    }
}

#[test]
fn experts_match_and_an_expert_never_chosen_costs_nothing() {
    let mut random = Random(6);
    for (rows, experts, top_k, hidden, width) in
        [(1, 8, 2, 64, 32), (37, 12, 3, 48, 40), (200, 4, 4, 96, 64)]
    {
        let x = random.tensor([rows, hidden]);
        let logits = random.tensor([rows, experts]) * 4.0;
        for normalize in [true, false] {
            let expected = reference::route(logits.clone(), top_k, normalize);
            let Routes { ids, weights } = ops::route(logits.clone(), top_k, normalize);
            let list = |ids: Tensor<2, Int>| {
                ids.into_data()
                    .convert::<i64>()
                    .try_to_vec::<i64>()
                    .expect("i64")
            };
            assert_eq!(
                list(ids.clone()),
                list(expected.ids.clone()),
                "chosen experts"
            );
            assert_close("route", weights.clone(), expected.weights.clone());
            for dtype in [DType::F32, DType::BF16] {
                let gate_up = random.tensor([experts, 2 * width, hidden]).cast(dtype);
                let down = random.tensor([experts, hidden, width]).cast(dtype);
                let expected =
                    reference::experts(x.clone(), expected.clone(), gate_up.clone(), down.clone());
                let routes = Routes {
                    ids: ids.clone(),
                    weights: weights.clone(),
                };
                assert_close(
                    "experts",
                    ops::experts(x.clone(), routes, gate_up, down),
                    expected,
                );
            }
        }
    }
}

#[test]
fn causal_conv_matches_with_and_without_dilation() {
    let mut random = Random(7);
    for (rows, taps, dilation, width, out) in [
        (1, 7, 1, 16, 24),
        (3, 1, 1, 8, 8),
        (600, 7, 3, 16, 16),
        (90, 7, 9, 5, 1),
    ] {
        let x = random.tensor([(taps - 1) * dilation + rows, width]);
        for dtype in [DType::F32, DType::BF16] {
            let (weight, bias) = (
                random.tensor([out, taps * width]).cast(dtype),
                random.tensor([out]),
            );
            let expected =
                reference::causal_conv1d(x.clone(), weight.clone(), bias.clone(), dilation);
            assert_close(
                "causal_conv1d",
                ops::causal_conv1d(x.clone(), weight, bias, dilation),
                expected,
            );
        }
    }
}
