//! Kernels whose units work together against those whose units work alone, on a software adapter through WGSL: CubeCL's
//! SPIR-V for shared memory crashes such adapters, so this is the place where they meet these kernels.
//! `cargo test -p burn-omni-kernels --features wgpu`

mod adapter;

use burn_omni_kernels::packed::tiles::scaled::{dequantize, quantize};
use burn_omni_kernels::packed::tiles::{Scaled, Tiling};
use burn_omni_kernels::{
    self as kernels, Angles, Attention, Buffer, ExpertMatrices, NormParameters, On, Product, Seen,
    Taps, Units,
};
use cubecl::prelude::*;

use adapter::{Random, client, read};

/// Largest difference as a share of the largest magnitude.
const TOLERANCE: f32 = 4e-6;

/// Both ways of `work`, which must agree.
#[track_caller]
fn agree(client: &Client, what: &str, work: impl Fn(On<'_>) -> Buffer) {
    let [together, alone] = [Units::Together, Units::Alone].map(|units| {
        let on = On { client, units };
        read(client, &work(on))
    });
    assert_eq!(together.len(), alone.len(), "{what}");
    let scale = alone.iter().fold(1e-3_f32, |m, x| m.max(x.abs()));
    for (at, (a, b)) in together.iter().zip(&alone).enumerate() {
        assert!(
            (a - b).abs() <= TOLERANCE * scale,
            "{what}: {a} and {b} at {at}"
        );
    }
}

#[test]
fn products_agree() {
    let Some(client) = client() else { return };
    let mut random = Random(1);
    for (rows, out, width, taps, dilation) in [
        (1, 1, 1, 1, 1),
        (1, 130, 200, 1, 1),
        (5, 33, 37, 1, 1),
        (20, 70, 48, 1, 1),
        (130, 100, 129, 1, 1),
        (90, 1, 5, 7, 9),
        (40, 24, 16, 7, 3),
        (3, 24, 16, 2, 1),
    ] {
        let x = random.matrix(&client, rows + (taps - 1) * dilation, width);
        let weight = random.matrix(&client, out, taps * width);
        let bias = random.buffer(&client, out);
        let product = Product {
            x: &x,
            weight: &weight,
            bias: Some(&bias),
            taps: Taps {
                count: taps,
                dilation,
            },
        };
        agree(
            &client,
            &format!("{rows} x {width} by {out}, {taps} taps"),
            |on| kernels::linear(on, product),
        );
    }
}

#[test]
fn norms_agree() {
    let Some(client) = client() else { return };
    let mut random = Random(2);
    for (rows, heads, width) in [(1, 1, 4), (5, 3, 128), (30, 4, 72), (2, 1, 700)] {
        let x = random.heads(&client, rows, heads, width);
        let weight = random.buffer(&client, width);
        let bias = random.buffer(&client, width);
        for bias in [None, Some(&bias)] {
            let parameters = NormParameters {
                weight: &weight,
                bias,
                eps: 1e-6,
            };
            agree(&client, &format!("{rows} x {heads} x {width}"), |on| {
                kernels::norm(on, &x, parameters)
            });
        }
    }
}

#[test]
fn normed_and_rotated_heads_agree() {
    let Some(client) = client() else { return };
    let mut random = Random(5);
    for (rows, heads, width) in [(1, 1, 4), (5, 3, 128), (30, 4, 72), (7, 5, 64)] {
        let mut x = random.heads(&client, rows, heads + 2, width);
        // A part of the heads of a fused product.
        x.heads = heads;
        let weight = random.buffer(&client, width);
        let (cos, sin) = (
            random.buffer(&client, rows * width / 2),
            random.buffer(&client, rows * width / 2),
        );
        let (cos, sin) = (&cos, &sin);
        let parameters = NormParameters {
            weight: &weight,
            bias: None,
            eps: 1e-6,
        };
        agree(&client, &format!("{rows} x {heads} x {width}"), |on| {
            kernels::normed_rope(on, &x, parameters, Angles { cos, sin })
        });
    }
}

#[test]
fn attentions_agree() {
    let Some(client) = client() else { return };
    let mut random = Random(3);
    let segments: Vec<[u32; 2]> = (0..90)
        .map(|row| if row < 20 { [0, 20] } else { [20, 90] })
        .collect();
    let causal = |first, window| Seen::Causal { first, window };
    for (rows, keys, heads, kv_heads, width, seen) in [
        (1, 4, 4, 4, 64, causal(0, 9)),
        (1, 700, 8, 1, 128, causal(690, 700)),
        (1, 300, 8, 2, 72, causal(299, 250)),
        (50, 70, 4, 2, 32, causal(9, 100)),
        (50, 70, 2, 2, 16, causal(0, 16)),
        (90, 90, 3, 3, 72, Seen::Ranges(&segments)),
    ] {
        let q = random.heads(&client, rows, heads, width);
        let k = random.heads(&client, keys, kv_heads, width);
        let v = random.heads(&client, keys, kv_heads, width);
        let attention = Attention {
            q: &q,
            k: &k,
            v: &v,
            scale: 0.9,
            seen,
        };
        agree(
            &client,
            &format!("{rows} rows, {keys} keys, {seen:?}"),
            |on| kernels::attention(on, attention),
        );
    }
}

#[test]
fn rows_rounded_to_four_bits_agree() {
    let Some(client) = client() else { return };
    let mut random = Random(6);
    for (block, e8m0) in [(16, false), (32, true)] {
        for (rows, width) in [(1, 16), (19, 400), (5, 2048)] {
            let tiling = Tiling {
                scaled: Scaled { block, e8m0 },
                tiles: 1,
                pairs: width.div_ceil(8 * block),
            };
            let x = random.buffer(&client, rows * width);
            agree(&client, "rows of 4 bits", |on| {
                let quantized = quantize(on, (&x, width), tiling);
                dequantize(&client, &quantized, tiling)
            });
        }
    }
}

#[test]
fn routes_and_experts_agree() {
    let Some(client) = client() else { return };
    let mut random = Random(4);
    for (rows, experts, top_k, hidden, width) in [(1, 8, 2, 64, 32), (37, 130, 8, 48, 40)] {
        let x = random.matrix(&client, rows, hidden);
        let mut logits = random.matrix(&client, rows, experts);
        // Two equal ones, of which the lower number comes first.
        let mut numbers = read(&client, &logits.buffer);
        numbers[3] = 2.0;
        numbers[6] = 2.0;
        logits.buffer.handle = client.create_from_slice(f32::as_bytes(&numbers));
        for normalize in [true, false] {
            let [together, alone] = [Units::Together, Units::Alone].map(|units| {
                let client = &client;
                kernels::route(On { client, units }, &logits, top_k, normalize)
            });
            let ids = |buffer: &Buffer| {
                let bytes = client.read_one(buffer.handle.clone()).expect("it worked");
                i32::from_bytes(&bytes).to_vec()
            };
            assert_eq!(ids(&together.ids), ids(&alone.ids));
            assert_eq!(ids(&alone.ids)[..2], [3, 6]);
            agree(&client, "shares", |on| match on.units {
                Units::Together => together.weights.clone(),
                Units::Alone => alone.weights.clone(),
            });
            let gate_up = random.matrix(&client, experts * 2 * width, hidden);
            let down = random.matrix(&client, experts * hidden, width);
            let matrices = ExpertMatrices {
                gate_up: &gate_up,
                down: &down,
            };
            agree(&client, "experts", |on| {
                kernels::experts(on, &x, &alone, matrices)
            });
        }
    }
}
