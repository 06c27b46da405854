//! The CPU operations at the sizes of the release and of the demo model, against their references.
#![allow(missing_docs, reason = "divan generates the entry points")]

use burn::tensor::DType;
use burn_omni_benches::random;
use burn_omni_ops::{self as ops, AttentionSpec, reference};
use divan::Bencher;

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
const EXPERTS: [(usize, usize, usize, usize, usize); 3] = [
    (1, 32, 8, 2048, 768),
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
