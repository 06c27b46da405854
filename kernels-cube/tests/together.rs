//! Kernels whose units work together against those whose units work alone, on a software adapter through WGSL: CubeCL's
//! SPIR-V for shared memory crashes such adapters, so this is the place where they meet these kernels.
//! `cargo test -p burn-omni-kernels --features wgpu`

mod adapter;

use burn_omni_kernels::packed::Scaling;
use burn_omni_kernels::packed::tiles::scaled::{dequantize, quantize};
use burn_omni_kernels::packed::tiles::{Scaled, Tiling};
use burn_omni_kernels::{
    self as kernels, Angles, Attention, Buffer, ExpertMatrices, Heads, NormParameters, On, Product,
    Seen, Taps, Units,
};
use cubecl::prelude::*;

use adapter::{Random, client, e4m3, e4m3_buffer, e4m3_byte, read};

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

/// The same rows in a store of E4M3.
fn in_e4m3(client: &Client, heads: &Heads) -> Heads {
    let numbers = heads.rows * heads.heads * heads.width;
    let store = e4m3_buffer(client, &vec![0xFF; numbers]);
    kernels::write_rows(client, heads, &store, 0);
    Heads {
        buffer: store,
        ..heads.clone()
    }
}

#[test]
fn stores_have_the_nearest_numbers() {
    let Some(client) = client() else { return };
    let every = (0..=0xFF).map(e4m3);
    let between = (0..0x7E).map(|byte| f32::midpoint(e4m3(byte), e4m3(byte + 1)));
    let between = between.flat_map(|middle| {
        let (below, above) = (middle.to_bits() - 1, middle.to_bits() + 1);
        [
            middle,
            -middle,
            f32::from_bits(below),
            -f32::from_bits(above),
        ]
    });
    let far = [
        449.0,
        -463.9,
        464.0,
        1e9,
        -3e38,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        1e-30,
    ];
    let mut random = Random(7);
    let scaled = |_| {
        let exponent = (random.number() * 12.0) as i32;
        random.number() * 2_f32.powi(exponent)
    };
    let mut numbers: Vec<f32> = every.chain(between).chain(far).collect();
    numbers.extend((0..2048 - numbers.len()).map(scaled));
    let (rows, heads, width) = (8, 4, 64);
    let rows = Heads {
        buffer: Buffer::of(&client, &numbers),
        rows,
        heads,
        width,
        strides: [heads * width, width],
    };
    let store = e4m3_buffer(&client, &vec![0xA5; 11 * heads * width]);
    kernels::write_rows(&client, &rows, &store, 2);
    let bytes = client
        .read_one(store.handle.clone())
        .expect("the launch worked");
    let (before, rest) = bytes.split_at(2 * heads * width);
    let (found, behind) = rest.split_at(numbers.len());
    assert!(
        before
            .iter()
            .chain(&behind[..heads * width])
            .all(|byte| *byte == 0xA5)
    );
    for (number, byte) in numbers.iter().zip(found) {
        let expected = e4m3_byte(*number);
        let is_nan = number.is_nan() && byte & 0x7F == 0x7F;
        assert!(
            is_nan || *byte == expected,
            "{number}: {byte:#x}, not {expected:#x}"
        );
    }
    let stored = Heads {
        buffer: store,
        rows: 11,
        ..rows.clone()
    };
    let read = read(&client, &kernels::read_rows(&client, &stored, 10).buffer);
    for (number, byte) in read[2 * heads * width..].iter().zip(found) {
        let expected = e4m3(*byte);
        assert!(
            *number == expected || number.is_nan() && expected.is_nan(),
            "{byte:#x}: {number}, not {expected}"
        );
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
        let what = format!("{rows} rows, {keys} keys, {seen:?}");
        agree(&client, &what, |on| kernels::attention(on, attention));
        let [k, v] = [&k, &v].map(|heads| in_e4m3(&client, heads));
        let attention = Attention {
            k: &k,
            v: &v,
            ..attention
        };
        agree(&client, &format!("{what} in E4M3"), |on| {
            kernels::attention(on, attention)
        });
    }
}

#[test]
fn rows_rounded_to_four_bits_agree() {
    let Some(client) = client() else { return };
    let mut random = Random(6);
    for (block, scaling) in [(16, Scaling::E4m3), (32, Scaling::E8m0)] {
        for (rows, width) in [(1, 16), (19, 400), (5, 2048)] {
            let tiling = Tiling {
                scaled: Scaled {
                    block,
                    scaling,
                    bytes: false,
                },
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
