//! The CPU operations at the sizes of the release and of the demo model, against their references.
#![allow(missing_docs, reason = "divan generates the entry points")]

use std::hint::black_box;

use burn::tensor::{DType, Device};
use burn_omni_benches::random;
use burn_omni_ops::check::Random;
use burn_omni_ops::{self as ops, AttentionSpec, Packed, PackedFormat, PackedSpec, reference};
use divan::Bencher;
use divan::counter::BytesCount;

fn main() {
    divan::main();
}

/// Rows, out, in: a token and a prompt of the release's expert gate and up, and of the demo model's attention.
const LINEAR: [(usize, usize, usize); 4] = [
    (1, 1536, 2048),
    (64, 1536, 2048),
    (1, 1024, 192),
    (32, 1024, 192),
];

#[divan::bench(args = LINEAR)]
fn linear_bf16(bencher: Bencher, (rows, out, width): (usize, usize, usize)) {
    let (x, weight) = (
        random([rows, width]),
        random([out, width]).cast(DType::BF16),
    );
    bencher.bench_local(|| ops::linear(x.clone(), weight.clone(), None));
}

#[divan::bench(args = LINEAR)]
fn linear_f32_reference(bencher: Bencher, (rows, out, width): (usize, usize, usize)) {
    let (x, weight) = (random([rows, width]), random([out, width]));
    bencher.bench_local(|| reference::linear(x.clone(), weight.clone(), None));
}

/// Rows, keys, heads, key heads, head width.
const ATTENTION: [(usize, usize, usize, usize, usize); 3] = [
    (1, 512, 32, 4, 128),
    (512, 512, 32, 4, 128),
    (1, 40, 4, 2, 128),
];

#[divan::bench(args = ATTENTION)]
fn attention(
    bencher: Bencher,
    (rows, keys, heads, kv_heads, width): (usize, usize, usize, usize, usize),
) {
    let (q, k) = (
        random([rows, heads, width]),
        random([keys, kv_heads, width]),
    );
    let spec = AttentionSpec::causal(width, keys - rows);
    bencher.bench_local(|| ops::attention(q.clone(), k.clone(), k.clone(), spec.clone()));
}

/// Rows, experts, chosen, hidden, intermediate.
const EXPERTS: [(usize, usize, usize, usize, usize); 4] = [
    (1, 32, 8, 2048, 768),
    (8, 32, 8, 2048, 768),
    (64, 32, 8, 2048, 768),
    (1, 8, 2, 192, 64),
];

#[divan::bench(args = EXPERTS)]
fn experts_bf16(
    bencher: Bencher,
    (rows, experts, top_k, hidden, width): (usize, usize, usize, usize, usize),
) {
    let x = random([rows, hidden]);
    let gate_up = random([experts, 2 * width, hidden]).cast(DType::BF16);
    let down = random([experts, hidden, width]).cast(DType::BF16);
    let routes = ops::route(random([rows, experts]) * 4.0, top_k, true);
    bencher.bench_local(|| ops::experts(x.clone(), routes.clone(), gate_up.clone(), down.clone()));
}

/// Rows, dilation, channels: the residual units of code2wav in the demo model and in the release.
const CONV: [(usize, usize, usize); 4] =
    [(1920, 1, 16), (1920, 9, 16), (640, 3, 32), (1920, 3, 96)];

#[divan::bench(args = CONV)]
fn causal_conv1d(bencher: Bencher, (rows, dilation, channels): (usize, usize, usize)) {
    let x = random([rows + 6 * dilation, channels]);
    let (weight, bias) = (random([channels, 7 * channels]), random([channels]));
    bencher.bench_local(|| ops::causal_conv1d(x.clone(), weight.clone(), bias.clone(), dilation));
}

#[divan::bench(args = CONV)]
fn snake(bencher: Bencher, (rows, _, channels): (usize, usize, usize)) {
    let (x, alpha) = (random([rows, channels]), random([channels]));
    bencher.bench_local(|| ops::snake(x.clone(), alpha.clone(), alpha.clone()));
}

/// Bytes of weights that a bench walks through, more than any cache holds.
const BEYOND_CACHES: usize = 200 << 20;

/// Rows, out, in: the release's attention.
const PROJECTIONS: [(usize, usize, usize); 10] = [
    (1, 5120, 2048),
    (2, 5120, 2048),
    (4, 5120, 2048),
    (8, 5120, 2048),
    (16, 5120, 2048),
    (64, 5120, 2048),
    (256, 5120, 2048),
    (1024, 5120, 2048),
    (1, 2048, 4096),
    (64, 2048, 4096),
];

fn packed(format: PackedFormat, matrices: usize, rows: usize, width: usize) -> Packed {
    let spec = PackedSpec {
        format,
        matrices,
        rows,
        width,
        gated: false,
        w4a4: false,
    };
    Packed::upload(Random(1).packed(spec), &Device::flex())
}

/// Each call takes the next of the weights, so that none is in a cache.
fn rotate<T>(bencher: Bencher, bytes: usize, make: impl Fn() -> T, call: impl Fn(&T)) {
    let weights: Vec<T> = (0..BEYOND_CACHES.div_ceil(bytes)).map(|_| make()).collect();
    let mut next = weights.iter().cycle();
    bencher
        .counter(BytesCount::new(bytes))
        .bench_local(|| call(next.next().expect("there are weights")));
}

#[divan::bench(args = PROJECTIONS)]
fn packed_linear_nvfp4(bencher: Bencher, (rows, out, width): (usize, usize, usize)) {
    let x = random([rows, width]);
    let make = || packed(PackedFormat::NVFP4, 1, out, width);
    rotate(bencher, make().bytes(), make, |weight| {
        black_box(ops::packed_linear(x.clone(), weight));
    });
}

#[divan::bench(args = PROJECTIONS)]
fn projection_bf16(bencher: Bencher, (rows, out, width): (usize, usize, usize)) {
    let x = random([rows, width]);
    let make = || random([out, width]).cast(DType::BF16);
    rotate(bencher, 2 * out * width, make, |weight| {
        black_box(ops::linear(x.clone(), weight.clone(), None));
    });
}

#[divan::bench(args = ["MXFP4", "MXFP8", "FP8"])]
fn packed_linear_row(bencher: Bencher, format: &str) {
    let (format, x) = (
        match format {
            "MXFP4" => PackedFormat::MXFP4,
            "MXFP8" => PackedFormat::MXFP8,
            _ => PackedFormat::FP8,
        },
        random([1, 2048]),
    );
    let make = || packed(format, 1, 5120, 2048);
    rotate(bencher, make().bytes(), make, |weight| {
        black_box(ops::packed_linear(x.clone(), weight));
    });
}

/// Reading as many bytes as the projection has in NVFP4, with the threads that the operations have.
#[divan::bench]
fn reading_alone(bencher: Bencher) {
    let bytes = 5120 * 2048 / 16 * 9;
    let make = || vec![1_u64; bytes / 8];
    rotate(bencher, bytes, make, |words| {
        let pieces = std::thread::available_parallelism().map_or(1, usize::from);
        let sum = |words: &[u64]| {
            words
                .iter()
                .fold(0, |sum: u64, word| sum.wrapping_add(*word))
        };
        std::thread::scope(|scope| {
            for words in words.chunks(words.len().div_ceil(pieces)) {
                scope.spawn(move || black_box(sum(words)));
            }
        });
    });
}

#[divan::bench(args = [(1, 32, 8, 2048, 768), (8, 32, 8, 2048, 768), (64, 32, 8, 2048, 768)])]
fn packed_experts_nvfp4(
    bencher: Bencher,
    (rows, experts, top_k, hidden, width): (usize, usize, usize, usize, usize),
) {
    let x = random([rows, hidden]);
    let up = packed(PackedFormat::NVFP4, experts, 2 * width, hidden);
    let down = packed(PackedFormat::NVFP4, experts, hidden, width);
    let routes: Vec<_> = (0..16)
        .map(|i| {
            ops::route(
                Random(i).tensor([rows, experts], &Device::flex()) * 4.0,
                top_k,
                true,
            )
        })
        .collect();
    let mut next = routes.iter().cycle();
    bencher.bench_local(|| {
        let routes = next.next().expect("there are routes").clone();
        ops::packed_experts(x.clone(), routes, &up, &down)
    });
}
