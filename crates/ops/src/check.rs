//! Every operation of a device against its plain-tensor reference, on random data: for the tests, and for users who want
//! to know whether their driver computes what it should.

mod choice;
mod decoder;

use burn::tensor::{DType, Device, Int, Tensor, TensorData, s};

use crate::decode::multiplies_bf16;
use crate::filling::{Filling, PackedFilling};
use crate::packed::{Code, PackedBytes, Scale};
use crate::{
    AttentionSpec, KvFormat, KvStore, Mask, Packed, PackedFormat, PackedSpec, Routes, reference,
};

/// Largest error of a sound implementation in f32 on the CPU, as a share of the largest expected magnitude.
pub const CPU_TOLERANCE: f32 = 4e-6;
/// The same on a GPU, whose units may round and sum in other ways.
pub const GPU_TOLERANCE: f32 = 1e-4;

/// How far a sum changes at most, as a share of the magnitudes in it, when a kernel rounds its numbers to bf16 and its parts
/// again: twice 2^-8.
const ROUNDED_TWICE: f32 = 1.0 / 128.0;

/// One operation with its cases.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Name of the operation.
    pub name: &'static str,
    cases: fn(&mut Bench<'_>),
}

/// Every operation there is.
pub const CHECKS: &[Check] = &[
    check("linear", linear),
    check("rms_norm", rms_norm),
    check("layer_norm", layer_norm),
    check("rope", rope),
    check("normed_rope", normed_rope),
    check("attention", attention),
    check("fp8 attention", fp8),
    check("swiglu", swiglu),
    check("gelu", gelu),
    check("gelu_tanh", gelu_tanh),
    check("snake", snake),
    check("add_scaled", add_scaled),
    check("depthwise_conv1d", depthwise_conv1d),
    check("route and experts", experts),
    check("extend", extend),
    check("causal_conv1d", causal_conv1d),
    check("rms_norm_linear", rms_norm_linear),
    check("swiglu_linear", swiglu_linear),
    check("snake_conv1d", snake_conv1d),
    check("add_snake_linear", add_snake_linear),
    check("unpack", unpack),
    check("packed_linear", packed_linear),
    check("packed_experts", packed_experts),
    check("drawn weights", drawn),
    check("copy", copy),
];

/// Memory that is filled piece by piece, on the devices that have such: see [`crate::filling::runs_on`].
pub const FILLING: Check = check("filling", filling);

/// A step through layers as one captured graph, on the devices that can: see [`crate::decode::Decoder::runs_on`].
pub const STEP: Check = check("captured step", decoder::decoder);

/// The halves of a layer over many rows, on the same devices: see [`crate::prompt`].
pub const PROMPT: Check = check("halves of a layer", decoder::halves);

/// Tokens that the device chooses, on the same devices.
pub const CHOICE: Check = check("choice of a token", choice::choice);

/// Packed products that round their rows to 4 bits, on the devices that have them: see [`crate::has_w4a4`].
pub const W4A4: Check = check("w4a4", w4a4);

const fn check(name: &'static str, cases: fn(&mut Bench<'_>)) -> Check {
    Check { name, cases }
}

impl Check {
    /// Runs the operation on `device` and the reference on `oracle`; the largest error as a share of the largest expected
    /// magnitude, infinite where a shape, a choice or a finite value differs.
    #[must_use]
    pub fn run(&self, device: &Device, oracle: &Device) -> f32 {
        let mut bench = Bench {
            device,
            oracle,
            random: Random(1),
            largest: 0.0,
        };
        (self.cases)(&mut bench);
        bench.largest
    }
}

/// Numbers in [-1, 1) from a fixed stream.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn number(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// A tensor of the next numbers, rounded to eight bits.
    pub fn short_tensor<const D: usize>(
        &mut self,
        shape: [usize; D],
        device: &Device,
    ) -> Tensor<D> {
        let number = |random: &mut Self| (random.number() * 128.0).round() / 128.0;
        let numbers: Vec<f32> = (0..shape.iter().product()).map(|_| number(self)).collect();
        Tensor::from_data(TensorData::new(numbers, shape), device)
    }

    /// A tensor of the next numbers.
    pub fn tensor<const D: usize>(&mut self, shape: [usize; D], device: &Device) -> Tensor<D> {
        let numbers: Vec<f32> = (0..shape.iter().product()).map(|_| self.number()).collect();
        Tensor::from_data(TensorData::new(numbers, shape), device)
    }
}

/// The numbers of a tensor of any float dtype.
#[must_use]
pub fn numbers<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    let data = x.cast(DType::F32).into_data();
    data.try_to_vec().expect("the tensor was cast to f32")
}

/// The largest difference as a share of the largest expected magnitude; infinite where the shapes differ or a number is
/// not finite.
#[must_use]
pub fn error<const D: usize>(found: Tensor<D>, expected: Tensor<D>) -> f32 {
    if found.dims() != expected.dims() {
        return f32::INFINITY;
    }
    let (found, expected) = (numbers(found), numbers(expected));
    let scale = expected.iter().fold(1e-3_f32, |m, x| m.max(x.abs()));
    let differences = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |worst, difference| {
        if difference.is_finite() {
            f32::max(worst, difference / scale)
        } else {
            f32::INFINITY
        }
    })
}

/// The two devices of a run, and the worst error so far.
struct Bench<'a> {
    device: &'a Device,
    oracle: &'a Device,
    random: Random,
    largest: f32,
}

/// One input on both devices.
struct Pair<const D: usize>(Tensor<D>, Tensor<D>);

impl Bench<'_> {
    fn input<const D: usize>(&mut self, shape: [usize; D]) -> Pair<D> {
        self.changed(shape, |x| x)
    }

    /// Random numbers that `change` made into what the operation takes.
    fn changed<const D: usize>(
        &mut self,
        shape: [usize; D],
        change: impl Fn(Tensor<D>) -> Tensor<D>,
    ) -> Pair<D> {
        let mut same = self.random.clone();
        let on_device = self.random.tensor(shape, self.device);
        Pair(change(on_device), change(same.tensor(shape, self.oracle)))
    }

    /// Numbers that bf16 holds exactly, as some kernels take many rows.
    fn short<const D: usize>(&mut self, shape: [usize; D]) -> Pair<D> {
        let mut same = self.random.clone();
        let on_device = self.random.short_tensor(shape, self.device);
        Pair(on_device, same.short_tensor(shape, self.oracle))
    }

    /// Weights in a stored dtype, on devices that have it.
    fn stored<const D: usize>(&mut self, shape: [usize; D], dtype: DType) -> Pair<D> {
        let Pair(a, b) = self.input(shape);
        // Rounded to the stored dtype on the oracle, so that both sides see the same numbers.
        let b = b.cast(dtype);
        if self.device.supports_dtype(dtype) {
            return Pair(a.cast(dtype), b);
        }
        let data = TensorData::new(numbers(b.clone()), shape);
        Pair(Tensor::from_data(data, self.device), b)
    }

    fn compare<const D: usize>(&mut self, found: Tensor<D>, expected: Tensor<D>) {
        self.largest = self.largest.max(error(found, expected));
    }
}

fn linear(bench: &mut Bench<'_>) {
    let sizes = [
        (1, 1, 1),
        (1, 130, 200),
        (4, 7, 64),
        (3, 20, 37),
        (5, 33, 48),
        (30, 16, 16),
        (60, 800, 400),
        (70, 300, 129),
        (300, 512, 256),
    ];
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        for (rows, out, width) in sizes {
            let (x, bias) = (bench.input([rows, width]), bench.input([out]));
            let weight = bench.stored([out, width], dtype);
            let found = crate::linear(x.0.clone(), weight.0.clone(), Some(bias.0));
            let expected = reference::linear(x.1.clone(), weight.1.clone(), Some(bias.1));
            bench.compare(found, expected);
            let found = crate::linear(x.0, weight.0, None);
            bench.compare(found, reference::linear(x.1, weight.1, None));
        }
    }
}

/// Rows, heads and widths of the row operations.
const ROWS: [(usize, usize, usize); 3] = [(1, 1, 4), (5, 3, 128), (300, 4, 72)];

/// Heads in the middle of wider rows, as they lie in a fused projection.
fn heads(bench: &mut Bench<'_>, rows: usize, heads: usize, width: usize) -> Pair<3> {
    bench.changed([rows, heads + 2, width], |x| {
        x.slice([0..rows, 1..heads + 1])
    })
}

fn rms_norm(bench: &mut Bench<'_>) {
    for (rows, count, width) in ROWS {
        let (x, weight) = (heads(bench, rows, count, width), bench.input([width]));
        let expected = reference::rms_norm(x.1, weight.1, 1e-6);
        bench.compare(crate::rms_norm(x.0, weight.0, 1e-6), expected);
    }
}

fn layer_norm(bench: &mut Bench<'_>) {
    for (rows, count, width) in ROWS {
        let x = heads(bench, rows, count, width);
        let (weight, bias) = (bench.input([width]), bench.input([width]));
        let expected = reference::layer_norm(x.1, weight.1, bias.1, 1e-5);
        bench.compare(crate::layer_norm(x.0, weight.0, bias.0, 1e-5), expected);
    }
}

fn rope(bench: &mut Bench<'_>) {
    for (rows, count, width) in ROWS {
        let x = heads(bench, rows, count, width);
        let (cos, sin) = (
            bench.input([rows, width / 2]),
            bench.input([rows, width / 2]),
        );
        let expected = reference::rope(x.1, cos.1, sin.1);
        bench.compare(crate::rope(x.0, cos.0, sin.0), expected);
    }
}

fn normed_rope(bench: &mut Bench<'_>) {
    for (rows, count, width) in ROWS {
        let x = heads(bench, rows, count, width);
        let weight = bench.input([width]);
        let cos = bench.input([rows, width / 2]);
        let sin = bench.input([rows, width / 2]);
        let normed = reference::rms_norm(x.1, weight.1, 1e-6);
        let expected = reference::rope(normed, cos.1, sin.1);
        let found = crate::normed_rope(x.0, weight.0, 1e-6, [cos.0, sin.0]);
        bench.compare(found, expected);
    }
}

fn attention(bench: &mut Bench<'_>) {
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
        let q = bench.changed([rows, heads, head_dim], |q| q * 3.0);
        let k = bench.input([keys, kv_heads, head_dim]);
        let v = bench.input([keys, kv_heads, head_dim]);
        let spec = AttentionSpec { scale: 0.3, mask };
        let expected = reference::attention(q.1, k.1, v.1, &spec);
        bench.compare(crate::attention(q.0, k.0, v.0, spec), expected);
    }
    prompts(bench);
}

/// Rows enough for matrix units, which round weights to bf16; queries, keys and values are rounded here.
fn prompts(bench: &mut Bench<'_>) {
    /// Weights are 2^-9 apart from what they were; outputs, which are means by them, are no further from theirs.
    const APART: f32 = 40.0;
    let causal = |first, window| Mask::Causal { first, window };
    let cases = [
        (130, 150, 8, 1, 128, causal(17, None)),
        (200, 200, 4, 4, 64, causal(0, Some(70))),
        (140, 140, 2, 2, 72, Mask::Segments(vec![1, 70, 69])),
        (150, 150, 4, 2, 80, Mask::Segments(vec![64, 64, 22])),
    ];
    let round = |x: Tensor<3>| x.cast(DType::BF16).cast(DType::F32);
    for (rows, keys, heads, kv_heads, head_dim, mask) in cases {
        let shapes = [
            [rows, heads, head_dim],
            [keys, kv_heads, head_dim],
            [keys, kv_heads, head_dim],
        ];
        let [q1, k1, v1] = shapes.map(|shape| round(bench.random.tensor(shape, bench.oracle)));
        let spec = AttentionSpec { scale: 0.4, mask };
        let expected = reference::attention(q1.clone(), k1.clone(), v1.clone(), &spec);
        // The same numbers on a device that may not have the type.
        let [q, k, v] = [q1, k1, v1].map(|x| Tensor::from_data(x.into_data(), bench.device));
        let found = crate::attention(q, k, v, spec);
        bench.largest = bench.largest.max(error(found, expected) / APART);
    }
}

/// Stores of E4M3 written in two parts and moved to larger ones, few and many rows over them; what is not written is NaN.
fn fp8(bench: &mut Bench<'_>) {
    /// As for [`prompts`].
    const APART: f32 = 40.0;
    let causal = |first, window| Mask::Causal { first, window };
    for (rows, keys, heads, kv_heads, head_dim, mask, apart) in [
        (1, 40, 8, 1, 128, causal(39, None), 1.0),
        (1, 700, 4, 2, 64, causal(699, Some(300)), 1.0),
        (50, 90, 2, 2, 32, causal(40, None), 1.0),
        (130, 150, 8, 1, 128, causal(20, None), APART),
        (200, 200, 4, 4, 64, causal(0, Some(70)), APART),
    ] {
        let q = bench
            .random
            .short_tensor([rows, heads, head_dim], bench.oracle);
        let mut stored = || {
            // Some are too large, and some too small.
            let numbers = bench
                .random
                .tensor([keys, kv_heads, head_dim], bench.oracle);
            let numbers = numbers.clone() * 4.0 + numbers.powi_scalar(21) * 600.0;
            let there = Tensor::from_data(numbers.clone().into_data(), bench.device);
            let begun = keys / 3;
            let store = KvStore::zeros(KvFormat::E4m3, [keys, kv_heads, head_dim], bench.device);
            let store = store.write(there.clone().slice(s![..begun, .., ..]), 0);
            let behind = [keys + 7 - begun, kv_heads, head_dim];
            let store = store.grown(keys + 7, begun);
            let store = store.write(Tensor::full(behind, f32::NAN, bench.device), begun);
            let store = store.write(there.slice(s![begun.., .., ..]), begun);
            (store, reference::e4m3(numbers))
        };
        let [(k0, k1), (v0, v1)] = [stored(), stored()];
        // Scores of some size, whatever the keys.
        let spec = AttentionSpec { scale: 0.02, mask };
        let expected = reference::attention(q.clone(), k1, v1, &spec);
        let q = Tensor::from_data(q.into_data(), bench.device);
        let found = crate::attention_over(q, [k0, v0], spec);
        bench.largest = bench.largest.max(error(found, expected) / apart);
    }
}

/// Rows and widths of the element-wise operations.
const FLAT: [(usize, usize); 3] = [(1, 2), (3, 130), (700, 96)];

fn swiglu(bench: &mut Bench<'_>) {
    for (rows, width) in FLAT {
        let x = bench.changed([rows, width], |x| x * 8.0);
        bench.compare(crate::swiglu(x.0), reference::swiglu(x.1));
    }
}

fn gelu(bench: &mut Bench<'_>) {
    for (rows, width) in FLAT {
        let x = bench.changed([rows * width], |x| x * 8.0);
        bench.compare(crate::gelu(x.0), reference::gelu(x.1));
    }
}

fn gelu_tanh(bench: &mut Bench<'_>) {
    for (rows, width) in FLAT {
        let x = bench.changed([rows * width], |x| x * 8.0);
        bench.compare(crate::gelu_tanh(x.0), reference::gelu_tanh(x.1));
    }
}

fn snake(bench: &mut Bench<'_>) {
    for (rows, width) in FLAT {
        let x = bench.changed([rows, width], |x| x * 8.0);
        let alpha = bench.changed([width], |x| x + 2.0);
        let beta = bench.changed([width], |x| x + 1.5);
        let expected = reference::snake(x.1, alpha.1, beta.1);
        bench.compare(crate::snake(x.0, alpha.0, beta.0), expected);
    }
}

fn add_scaled(bench: &mut Bench<'_>) {
    for (rows, width) in FLAT {
        let (y, x) = (bench.input([rows, width]), bench.input([rows, width]));
        let scale = bench.input([width]);
        let expected = reference::add_scaled(y.1, x.1, scale.1);
        bench.compare(crate::add_scaled(y.0, x.0, scale.0), expected);
    }
}

fn depthwise_conv1d(bench: &mut Bench<'_>) {
    for (rows, width) in FLAT {
        for taps in [1, 4, 7] {
            let x = bench.input([rows + taps - 1, width]);
            let weight = bench.input([taps, width]);
            let bias = bench.input([width]);
            let expected = reference::depthwise_conv1d(x.1, weight.1, bias.1);
            bench.compare(crate::depthwise_conv1d(x.0, weight.0, bias.0), expected);
        }
    }
}

impl Bench<'_> {
    /// Rows of an input that lie apart.
    fn apart(&mut self, [rows, width]: [usize; 2]) -> Pair<2> {
        let wide = self.input([rows, 2 * width]);
        let right = |x: Tensor<2>| x.slice(s![.., width..]);
        Pair(right(wide.0), right(wide.1))
    }
}

fn extend(bench: &mut Bench<'_>) {
    for (rows, width) in FLAT {
        // Fewer rows than are kept, as many, and more; rows that lie apart, too.
        for reach in [1, rows, rows + 5] {
            let kept = bench.input([reach, width]);
            for x in [bench.input([rows, width]), bench.apart([rows, width])] {
                let found = crate::extend(kept.0.clone(), x.0);
                let expected = reference::extend(kept.1.clone(), x.1);
                bench.compare(found.0, expected.0);
                bench.compare(found.1, expected.1);
            }
        }
    }
}

fn experts(bench: &mut Bench<'_>) {
    for (rows, experts, top_k, hidden, width) in
        [(1, 8, 2, 64, 32), (37, 12, 3, 48, 40), (200, 4, 4, 96, 64)]
    {
        let x = bench.input([rows, hidden]);
        let logits = bench.changed([rows, experts], |x| x * 4.0);
        for normalize in [true, false] {
            let found = crate::route(logits.0.clone(), top_k, normalize);
            let expected = reference::route(logits.1.clone(), top_k, normalize);
            if chosen(&found) != chosen(&expected) {
                bench.largest = f32::INFINITY;
                return;
            }
            bench.compare(found.weights.clone(), expected.weights.clone());
            for dtype in [DType::F32, DType::BF16] {
                let gate_up = bench.stored([experts, 2 * width, hidden], dtype);
                let down = bench.stored([experts, hidden, width], dtype);
                let sum = crate::experts(x.0.clone(), found.clone(), gate_up.0, down.0);
                let wanted = reference::experts(x.1.clone(), expected.clone(), gate_up.1, down.1);
                bench.compare(sum, wanted);
            }
        }
    }
}

fn chosen(routes: &Routes) -> Vec<i64> {
    let ids: Tensor<2, Int> = routes.ids.clone();
    let ids = ids.into_data().convert::<i64>();
    ids.try_to_vec().expect("the ids were converted to i64")
}

fn causal_conv1d(bench: &mut Bench<'_>) {
    for (rows, taps, dilation, width, out) in [
        (1, 7, 1, 16, 24),
        (3, 1, 1, 8, 8),
        (600, 7, 3, 16, 16),
        (90, 7, 9, 5, 1),
        (100, 7, 9, 48, 70),
        (101, 7, 1, 33, 32),
        (40, 7, 3, 200, 200),
        (30, 2, 1, 256, 1100),
    ] {
        let x = bench.input([(taps - 1) * dilation + rows, width]);
        for dtype in [DType::F32, DType::BF16] {
            let weight = bench.stored([out, taps * width], dtype);
            let bias = bench.input([out]);
            let expected = reference::causal_conv1d(x.1.clone(), weight.1, bias.1, dilation);
            let found = crate::causal_conv1d(x.0.clone(), weight.0, bias.0, dilation);
            bench.compare(found, expected);
        }
    }
}

/// Rows, their width and outputs: few and many, of whole and of partial tiles.
const PRODUCTS: [[usize; 3]; 5] = [
    [1, 8, 8],
    [25, 256, 70],
    [30, 200, 40],
    [100, 96, 96],
    [60, 136, 5],
];

fn rms_norm_linear(bench: &mut Bench<'_>) {
    for [rows, width, out] in PRODUCTS {
        let (x, norm) = (bench.apart([rows, width]), bench.input([width]));
        for dtype in [DType::F32, DType::BF16] {
            let weight = bench.stored([out, width], dtype);
            let found = crate::rms_norm_linear(x.0.clone(), (norm.0.clone(), 1e-6), weight.0);
            let expected =
                reference::rms_norm_linear(x.1.clone(), (norm.1.clone(), 1e-6), weight.1);
            bench.compare(found, expected);
        }
    }
}

fn swiglu_linear(bench: &mut Bench<'_>) {
    for [rows, width, out] in PRODUCTS {
        let gate_up = bench.changed([rows, 2 * width], |x| x * 4.0);
        for dtype in [DType::F32, DType::BF16] {
            let weight = bench.stored([out, width], dtype);
            let found = crate::swiglu_linear(gate_up.0.clone(), weight.0);
            let expected = reference::swiglu_linear(gate_up.1.clone(), weight.1);
            bench.compare(found, expected);
        }
    }
}

fn snake_conv1d(bench: &mut Bench<'_>) {
    for (rows, taps, dilation, width, out) in [
        (3, 7, 1, 8, 8),
        (90, 7, 9, 5, 1),
        (100, 7, 9, 48, 70),
        (20, 7, 9, 48, 70),
        (40, 7, 3, 200, 200),
        (30, 2, 1, 256, 1100),
    ] {
        let kept = bench.input([(taps - 1) * dilation, width]);
        let x = bench.apart([rows, width]);
        let snake = [2.0, 1.5].map(|least| bench.changed([width], |x| x + least));
        let [alpha, beta] = snake;
        for dtype in [DType::F32, DType::BF16] {
            let weight = bench.stored([out, taps * width], dtype);
            let bias = bench.input([out]);
            let found = crate::snake_conv1d(
                [kept.0.clone(), x.0.clone()],
                [alpha.0.clone(), beta.0.clone()],
                weight.0,
                bias.0,
                dilation,
            );
            let expected = reference::snake_conv1d(
                [kept.1.clone(), x.1.clone()],
                [alpha.1.clone(), beta.1.clone()],
                weight.1,
                bias.1,
                dilation,
            );
            bench.compare(found.0, expected.0);
            bench.compare(found.1, expected.1);
        }
    }
}

fn add_snake_linear(bench: &mut Bench<'_>) {
    for (rows, width, out) in [(3, 8, 8), (90, 5, 7), (100, 96, 96), (40, 200, 1100)] {
        let (y, x) = (bench.input([rows, out]), bench.apart([rows, width]));
        let [alpha, beta] = [2.0, 1.5].map(|least| bench.changed([width], |x| x + least));
        for dtype in [DType::F32, DType::BF16] {
            let weight = bench.stored([out, width], dtype);
            let bias = bench.input([out]);
            let found = crate::add_snake_linear(
                y.0.clone(),
                x.0.clone(),
                [alpha.0.clone(), beta.0.clone()],
                weight.0,
                bias.0,
            );
            let expected = reference::add_snake_linear(
                y.1.clone(),
                x.1.clone(),
                [alpha.1.clone(), beta.1.clone()],
                weight.1,
                bias.1,
            );
            bench.compare(found, expected);
        }
    }
}

/// Every packed format that a checkpoint can have.
pub const FORMATS: [PackedFormat; 10] = [
    PackedFormat::NVFP4,
    PackedFormat::MXFP4,
    PackedFormat::MXFP8,
    PackedFormat::FP8,
    PackedFormat::FP8_BLOCK,
    PackedFormat::new(Code::Int4, Scale::F32, 64),
    PackedFormat::new(Code::Int4, Scale::Affine, 32),
    PackedFormat::new(Code::Int4, Scale::Affine, 128),
    PackedFormat::new(Code::Nf4, Scale::F32, 64),
    PackedFormat::new(Code::Fp4, Scale::F32, 64),
];

impl Random {
    /// The next 24 bits.
    fn bits(&mut self) -> u32 {
        ((self.number() + 1.0) * (1 << 23) as f32) as u32
    }

    /// A packed matrix of random codes, scales and gains, every scale byte of the format among them.
    pub fn packed(&mut self, spec: PackedSpec) -> PackedBytes {
        let rows = spec.matrices * spec.rows;
        let codes = (0..rows * spec.row_bytes()).map(|_| match spec.format.code {
            // Not a number in both signs, which no loader lets through.
            Code::E4m3 => Some(self.bits() as u8)
                .filter(|code| code & 0x7F != 0x7F)
                .unwrap_or(1),
            _ => self.bits() as u8,
        });
        let codes = codes.collect();
        let blocks = rows * spec.blocks();
        let scales = match spec.format.scale {
            Scale::None => Vec::new(),
            Scale::E4m3 => (0..blocks).map(|_| (self.bits() % 0x7F) as u8).collect(),
            Scale::E8m0 => (0..blocks)
                .map(|_| (self.bits() % 16 + 120) as u8)
                .collect(),
            Scale::F32 | Scale::Affine => (0..blocks * spec.format.scale.bytes() / 4)
                .flat_map(|_| self.number().to_le_bytes())
                .collect(),
        };
        let gains = (0..rows).map(|_| self.number() * 0.01).collect();
        PackedBytes {
            spec,
            codes,
            scales,
            gains,
        }
    }
}

impl Bench<'_> {
    /// A packed matrix on the device, and its values on the oracle.
    fn packed(&mut self, spec: PackedSpec) -> (Packed, Tensor<2>) {
        let bytes = self.random.packed(spec);
        let shape = [spec.matrices * spec.rows, spec.width];
        let values = TensorData::new(bytes.values(), shape);
        (
            Packed::upload(bytes, self.device),
            Tensor::from_data(values, self.oracle),
        )
    }
}

const fn matrix(format: PackedFormat, rows: usize, width: usize) -> PackedSpec {
    PackedSpec {
        format,
        matrices: 1,
        rows,
        width,
        gated: false,
        w4a4: false,
    }
}

fn unpack(bench: &mut Bench<'_>) {
    for format in FORMATS {
        for (rows, width) in [(1, 16), (33, 48), (16, 64), (50, 400)] {
            let (packed, values) = bench.packed(matrix(format, rows, width));
            bench.compare(crate::unpack(&packed), values);
        }
    }
}

/// Pieces of odd sizes.
fn filling(bench: &mut Bench<'_>) {
    for (count, piece) in [(1, 4), (1000, 36), (70_001, 65_536)] {
        let expected = bench.random.tensor::<1>([count], bench.oracle);
        let Some(mut filling) = Filling::new(count, (bench.device, DType::F32)) else {
            bench.largest = f32::INFINITY;
            return;
        };
        let bytes: Vec<u8> = numbers(expected.clone())
            .into_iter()
            .flat_map(f32::to_le_bytes)
            .collect();
        for piece in bytes.chunks(piece) {
            filling.next(piece.len(), |room| room.copy_from_slice(piece));
        }
        bench.compare(filling.finish(), expected);
    }
    for (rows, width, piece) in [(16, 64, 16), (38, 48, 4), (1030, 400, 512)] {
        let spec = matrix(PackedFormat::NVFP4, rows, width);
        let bytes = bench.random.packed(spec);
        let values = TensorData::new(bytes.values(), [rows, width]);
        let Some(mut filling) = PackedFilling::new(spec, bench.device) else {
            bench.largest = f32::INFINITY;
            return;
        };
        let codes = bytes.codes.chunks(piece * spec.row_bytes());
        for (codes, scales) in codes.zip(bytes.scales.chunks(piece * spec.scale_bytes())) {
            filling.next(codes.len() / spec.row_bytes(), |code_room, scale_room| {
                code_room.copy_from_slice(codes);
                scale_room.copy_from_slice(scales);
            });
        }
        let found = crate::unpack(&filling.finish(bytes.gains));
        bench.compare(found, Tensor::from_data(values, bench.oracle));
    }
}

fn drawn(bench: &mut Bench<'_>) {
    for (seed, len) in [(0, 1), (7, 130), (u32::MAX, 70_001)] {
        let expected = Tensor::from_data(
            TensorData::new(reference::drawn(len, seed), [len]),
            bench.oracle,
        );
        let found = crate::drawn::<1>([len], (bench.device, DType::F32), seed);
        bench.compare(found, expected);
    }
    for format in [PackedFormat::NVFP4, PackedFormat::MXFP4] {
        for (matrices, rows, width) in [(1, 3, 64), (3, 34, 200), (2, 130, 333)] {
            let spec = PackedSpec {
                format,
                matrices,
                rows,
                width,
                gated: matrices > 1,
                w4a4: false,
            };
            let expected = TensorData::new(
                reference::drawn_packed(spec, 5).values(),
                [matrices * rows, width],
            );
            let found = crate::unpack(&Packed::drawn(spec, bench.device, 5));
            bench.compare(found, Tensor::from_data(expected, bench.oracle));
        }
    }
}

fn copy(bench: &mut Bench<'_>) {
    for count in [1, 3, 40].map(|count| count * crate::COPY_WORDS) {
        let words = |first: i64| {
            let numbers: Vec<i64> = (first..).take(count).collect();
            let data = TensorData::new(numbers, [count]).convert_dtype(DType::U32);
            Tensor::<1, Int>::from_data(data, (bench.device, DType::U32))
        };
        let (from, to) = (words(9), words(0));
        let found = crate::copy(from.clone(), to).float();
        bench.compare(found, from.float());
    }
}

fn packed_linear(bench: &mut Bench<'_>) {
    for format in FORMATS {
        for (rows, out, width) in [
            (1, 1, 16),
            (1, 160, 768),
            (2, 33, 48),
            (7, 40, 112),
            (16, 64, 256),
            (40, 100, 144),
            (130, 96, 320),
        ] {
            let (packed, values) = bench.packed(matrix(format, out, width));
            let x = bench.short([rows, width]);
            let expected = reference::linear(x.1, values, None);
            bench.compare(crate::packed_linear(x.0, &packed), expected);
        }
    }
}

fn packed_experts(bench: &mut Bench<'_>) {
    for format in FORMATS {
        for sizes in [
            (1, 8, 2, 64, 32),
            (1, 8, 8, 64, 768),
            (1, 9, 8, 64, 1152),
            (5, 9, 3, 144, 48),
            (40, 4, 2, 96, 64),
            (70, 4, 2, 96, 64),
            (136, 4, 2, 144, 48),
        ] {
            packed_experts_of(bench, [format, format], sizes);
        }
    }
    let [fp4, fp8] = [PackedFormat::NVFP4, PackedFormat::FP8];
    // Enough cubes for planes to ask in turns on an NVIDIA GPU of up to 192 multiprocessors.
    packed_experts_of(bench, [fp4, fp4], (1, 8, 8, 2304, 288));
    // Matrices of two formats, as mixed precision has them; on some devices one of the two lies in another order.
    let int4 = PackedFormat::new(Code::Int4, Scale::Affine, 32);
    for formats in [
        [fp4, fp8],
        [fp8, fp4],
        [fp4, PackedFormat::MXFP4],
        [fp8, int4],
        [int4, fp4],
    ] {
        for sizes in [(1, 8, 2, 64, 32), (70, 4, 2, 96, 64)] {
            packed_experts_of(bench, formats, sizes);
        }
    }
}

/// Experts whose gate and up are stored in one format and down in another.
fn packed_experts_of(
    bench: &mut Bench<'_>,
    [up, down]: [PackedFormat; 2],
    (rows, experts, top_k, hidden, width): (usize, usize, usize, usize, usize),
) {
    let spec = |format, rows, width, gated| PackedSpec {
        matrices: experts,
        gated,
        ..matrix(format, rows, width)
    };
    let gate_up = bench.packed(spec(up, 2 * width, hidden, true));
    let down = bench.packed(spec(down, hidden, width, false));
    let x = bench.short([rows, hidden]);
    let logits = bench.changed([rows, experts], |x| x * 4.0);
    let found = crate::route(logits.0, top_k, true);
    let routes = reference::route(logits.1, top_k, true);
    let rows_of = x.1;
    let [gate_up_of, down_of] = [
        gate_up.1.reshape([experts, 2 * width, hidden]),
        down.1.reshape([experts, hidden, width]),
    ];
    let expected = reference::experts(
        rows_of.clone(),
        routes.clone(),
        gate_up_of.clone(),
        down_of.clone(),
    );
    // With many rows, what lies between the matrices is rounded to bf16, and so is what each expert adds.
    let rounds = rows >= 64 && multiplies_bf16(bench.device);
    let found = crate::packed_experts(x.0, found, &gate_up.0, &down.0);
    if rounds {
        let sizes = experts_by(rows_of, &routes, [gate_up_of, down_of.abs()], Tensor::abs);
        let bounds = sizes.mul_scalar(ROUNDED_TWICE / GPU_TOLERANCE);
        bench.largest = bench.largest.max(error_within(found, expected, bounds));
    } else {
        bench.compare(found, expected);
    }
}

/// The largest error as a share of what is allowed for its number.
fn error_within(found: Tensor<2>, expected: Tensor<2>, allowed: Tensor<2>) -> f32 {
    if found.dims() != expected.dims() {
        return f32::INFINITY;
    }
    let numbers = numbers(found)
        .into_iter()
        .zip(numbers(expected))
        .zip(numbers(allowed));
    let shares = numbers.map(|((found, expected), allowed)| {
        (found - expected).abs() / allowed.max(f32::MIN_POSITIVE)
    });
    shares.fold(0.0, |most, share| {
        if share.is_nan() {
            f32::INFINITY
        } else {
            most.max(share)
        }
    })
}

fn w4a4(bench: &mut Bench<'_>) {
    for format in [PackedFormat::NVFP4, PackedFormat::MXFP4] {
        for (rows, out, width) in [(17, 1, 16), (40, 100, 144), (130, 96, 320), (300, 520, 768)] {
            let (packed, values) = bench.packed(matrix(format, out, width));
            let x = bench.input([rows, width]);
            let rounded = reference::four_bit_rows(x.1, format);
            let expected = reference::linear(rounded, values, None);
            bench.compare(crate::packed_linear(x.0, &packed.with_w4a4(true)), expected);
        }
        for (rows, count, top_k, hidden, width) in [(70, 4, 2, 96, 64), (300, 8, 3, 144, 48)] {
            let spec = |rows, width, gated| PackedSpec {
                matrices: count,
                gated,
                ..matrix(format, rows, width)
            };
            let gate_up = bench.packed(spec(2 * width, hidden, true));
            let down = bench.packed(spec(hidden, width, false));
            let x = bench.input([rows, hidden]);
            let logits = bench.changed([rows, count], |x| x * 4.0);
            let found = crate::route(logits.0, top_k, true);
            let routes = reference::route(logits.1, top_k, true);
            let matrices = [
                gate_up.1.reshape([count, 2 * width, hidden]),
                down.1.reshape([count, hidden, width]),
            ];
            let x_of = reference::four_bit_rows(x.1, format);
            let expected = experts_by(x_of, &routes, matrices, |h| {
                reference::four_bit_rows(h, format)
            });
            let [gate_up, down] = [gate_up.0, down.0].map(|packed| packed.with_w4a4(true));
            let found = crate::packed_experts(x.0, found, &gate_up, &down);
            // Between the products numbers that differ by less than an f32 tells may round to different codes.
            const APART: f32 = 300.0;
            bench.largest = bench.largest.max(error(found, expected) / APART);
        }
    }
}

/// [`reference::experts`] that changes what lies between the products.
fn experts_by(
    x: Tensor<2>,
    routes: &Routes,
    [gate_up, down]: [Tensor<3>; 2],
    between: impl Fn(Tensor<2>) -> Tensor<2>,
) -> Tensor<2> {
    let ([rows, hidden], [_, top_k]) = (x.dims(), routes.ids.dims());
    let weights = numbers(routes.weights.clone());
    let mut sum = vec![0.0_f32; rows * hidden];
    let matrix = |all: &Tensor<3>, expert: usize| -> Tensor<2> {
        all.clone()
            .slice(s![expert..expert + 1, .., ..])
            .squeeze_dim(0)
    };
    for (choice, expert) in chosen(routes).into_iter().enumerate() {
        let (row, expert) = (choice / top_k, expert as usize);
        let x = x.clone().slice(s![row..row + 1, ..]);
        let h = reference::swiglu(reference::linear(x, matrix(&gate_up, expert), None));
        let y = numbers(reference::linear(between(h), matrix(&down, expert), None));
        let row = &mut sum[row * hidden..][..hidden];
        let weighted = row.iter_mut().zip(y);
        weighted.for_each(|(sum, y)| *sum += y * weights[choice]);
    }
    Tensor::from_data(TensorData::new(sum, [rows, hidden]), &x.device())
}
