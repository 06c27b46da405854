//! A captured step, and the halves of a layer over many rows, against the operations that they are made of.

use burn::tensor::{DType, Device, Tensor, TensorData, activation, s};

use super::{Bench, matrix};
use crate::decode::{
    AttentionParts, Decoder, DecoderParts, FeedForwardParts, LayerParts, Matrices, SharedParts,
    StackParts,
};
use crate::prompt::{self, Standing};
use crate::{
    AttentionSpec, KvFormat, KvStore, Packed, PackedFormat, PackedSpec, attention, experts, linear,
    reference, rms_norm, rope, route, swiglu, write_rows,
};

/// Of a step, whose products pad their rows, and of prompts, whose do not.
const HIDDEN: [usize; 2] = [192, 256];
const INNER: usize = 96;
const EXPERTS: usize = 12;
const TOP_K: usize = 3;
const HEADS: [usize; 2] = [4, 2];
const HEAD: usize = 128;
const VOCABULARY: usize = 70;
/// The token whose row passes.
const TOKEN: u32 = 41;
/// What its position is more than the rows before it.
const AHEAD: f32 = 2.0;
const CAPACITY: usize = 320;
const EPS: f64 = 1e-6;
/// How caches are stored, and how much further apart results may be: a key next to a rounding boundary may fall to the other
/// side.
const FORMATS: [(KvFormat, f32); 2] = [
    (KvFormat::Float(DType::BF16), 100.0),
    (KvFormat::E4m3, 500.0),
];
/// How weights are packed that a step takes as they are.
const PACKED: [PackedFormat; 5] = [
    PackedFormat::NVFP4,
    PackedFormat::MXFP4,
    PackedFormat::MXFP8,
    PackedFormat::FP8,
    PackedFormat::FP8_BLOCK,
];

/// Matrices of a layer on one device.
struct Weights {
    stored: Matrices,
    /// `[matrices, rows, width]`
    values: Tensor<3>,
}

/// A layer on one device.
struct Layer {
    norms: [Tensor<1>; 2],
    qk_norms: [Tensor<1>; 2],
    qkv: Weights,
    o_proj: Weights,
    router: Tensor<2>,
    experts: [Weights; 2],
    gate: Tensor<2>,
    /// Where all rows have an expert.
    shared: Option<[Weights; 2]>,
    /// Keys and values as the cache stores them, in f32.
    kept: [Tensor<3>; 2],
    format: KvFormat,
}

/// Rows behind caches of several lengths and of all formats, and weights of all forms.
pub(super) fn decoder(bench: &mut Bench<'_>) {
    for (format, apart) in FORMATS {
        for len in [0, 9, 300] {
            step(bench, len, (format, None), apart);
        }
        tells_nan(bench, format);
    }
    let (cache, apart) = FORMATS[0];
    for format in PACKED {
        step(bench, 9, (cache, Some(format)), apart);
    }
}

fn step(bench: &mut Bench<'_>, len: usize, formats: (KvFormat, Option<PackedFormat>), apart: f32) {
    let hidden = HIDDEN[0];
    let [found, expected] = Layer::twice(bench, formats, hidden);
    let (norm, head) = (
        vector(bench, hidden, bench.oracle),
        weights(bench, [VOCABULARY, hidden]),
    );
    let table: Tensor<2> = bench.random.tensor([VOCABULARY, hidden], bench.oracle);
    let table = table.cast(DType::BF16);
    let token = TOKEN as usize;
    let x = table.clone().slice(s![token..=token, ..]).cast(DType::F32);
    let frequency: Vec<f32> = (0..HEAD / 2).map(|i| 0.9_f32.powi(i as i32)).collect();
    let angles = angles(&frequency, &[len as f32 + AHEAD], bench.oracle);
    let y = expected.feed_forward(expected.attend(x, len, &angles));
    let y = linear(normed(y, &norm), head.clone().cast(DType::F32), None);

    let model = Model {
        norm,
        table,
        head,
        frequency,
    };
    let error = model
        .scores(&found, len, bench.device)
        .map_or(f32::INFINITY, |scores| {
            let found = TensorData::new(scores, [1, VOCABULARY]);
            super::error(Tensor::from_data(found, bench.oracle), y)
        });
    bench.largest = bench.largest.max(error / apart);
}

/// Prompts behind rows of a cache, of both kinds: those whose products take what rounding takes away as well, and those whose
/// attention is of many rows.
pub(super) fn halves(bench: &mut Bench<'_>) {
    let packed = PACKED.map(|format| (FORMATS[0], Some(format)));
    for ((cache, apart), format) in FORMATS.map(|cache| (cache, None)).into_iter().chain(packed) {
        for rows in [33, 56, 100] {
            halves_of(bench, rows, (cache, format), apart);
        }
    }
}

fn halves_of(
    bench: &mut Bench<'_>,
    rows: usize,
    formats: (KvFormat, Option<PackedFormat>),
    apart: f32,
) {
    const LEN: usize = 70;
    let mut layers = Layer::twice(bench, formats, HIDDEN[1]);
    if formats.1.is_some() {
        // The expert of all rows is stored in bf16, or there is none.
        layers.iter_mut().for_each(|layer| layer.shared = None);
    }
    let [found, expected] = layers;
    let x: Tensor<2> = bench.random.tensor([rows, HIDDEN[1]], bench.oracle);
    let frequency: Vec<f32> = (0..HEAD / 2).map(|i| 0.9_f32.powi(i as i32)).collect();
    let positions: Vec<f32> = (LEN..LEN + rows).map(|row| row as f32 + AHEAD).collect();
    let angles = angles(&frequency, &positions, bench.oracle);
    let there = |x: &Tensor<2>| Tensor::<2>::from_data(x.clone().into_data(), bench.device);
    let mut compare = |found: Option<Tensor<2>>, expected: Tensor<2>, apart: f32| {
        let error = found.map_or(f32::INFINITY, |found| {
            let found = Tensor::from_data(found.into_data(), bench.oracle);
            super::error(found, expected)
        });
        bench.largest = bench.largest.max(error / apart);
    };

    let parts = found.parts();
    let standing = Standing {
        heads: HEADS,
        angles: angles.each_ref().map(there),
        at: LEN,
    };
    let y = prompt::attend(there(&x), parts.attention.clone(), EPS, standing);
    compare(y, expected.attend(x.clone(), LEN, &angles), apart);
    let y = prompt::feed_forward(there(&x), (parts.norm, EPS), parts.feed_forward);
    // What rounding takes away is multiplied too, except by packed weights where rows are many.
    let apart = if rows >= 64 && formats.1.is_some() {
        apart
    } else {
        1.0
    };
    compare(y, expected.feed_forward(x), apart);
}

/// A value that is NaN must be told, whatever caches make of it.
fn tells_nan(bench: &mut Bench<'_>, format: KvFormat) {
    let hidden = HIDDEN[0];
    let mut layer = Layer::new(bench, bench.device, (format, None), hidden);
    let row = (HEADS[0] + HEADS[1]) * HEAD + 5;
    let nan = Tensor::<3>::full([1, 1, hidden], f32::NAN, bench.device).cast(DType::BF16);
    let values = layer.qkv.values.slice_assign(s![.., row..=row, ..], nan);
    layer.qkv = Weights {
        stored: Matrices::Dense(values.clone()),
        values,
    };
    let model = Model {
        norm: vector(bench, hidden, bench.oracle),
        table: weights(bench, [VOCABULARY, hidden]),
        head: weights(bench, [VOCABULARY, hidden]),
        frequency: vec![0.5; HEAD / 2],
    };
    let scores = model.scores(&layer, 9, bench.device);
    if scores.is_none_or(|scores| scores.iter().all(|score| score.is_finite())) {
        bench.largest = f32::INFINITY;
    }
}

/// What stands around a layer.
struct Model {
    norm: Tensor<1>,
    table: Tensor<2>,
    head: Tensor<2>,
    frequency: Vec<f32>,
}

impl Model {
    /// The scores behind a captured step through the layer on a device.
    fn scores(&self, layer: &Layer, len: usize, device: &Device) -> Option<Vec<f32>> {
        let there = |x: &Tensor<2>| Tensor::<2>::from_data(x.clone().into_data(), device);
        let parts = DecoderParts {
            stack: StackParts {
                layers: vec![layer.parts()],
                norm: Tensor::from_data(self.norm.clone().into_data(), device),
                eps: EPS,
                heads: HEADS,
                inverse_frequency: self.frequency.clone(),
            },
            embedding: there(&self.table).cast(DType::BF16),
            head: Matrices::Dense(there(&self.head).cast(DType::BF16).unsqueeze()),
        };
        let mut decoder = Decoder::new(parts)?;
        decoder.scores(TOKEN, len, len as f32 + AHEAD).ok()
    }
}

/// A matrix in bf16 whose products have the size of their input, on the oracle.
fn weights<const D: usize>(bench: &mut Bench<'_>, shape: [usize; D]) -> Tensor<D> {
    on(bench, shape, bench.oracle)
}

fn on<const D: usize>(bench: &mut Bench<'_>, shape: [usize; D], device: &Device) -> Tensor<D> {
    let size = 2.0 / (shape[D - 1] as f32).sqrt();
    (bench.random.tensor(shape, device) * size).cast(DType::BF16)
}

impl Weights {
    fn new(
        bench: &mut Bench<'_>,
        [matrices, rows, width]: [usize; 3],
        gated: bool,
        (device, format): (&Device, Option<PackedFormat>),
    ) -> Self {
        let Some(format) = format else {
            let values = on(bench, [matrices, rows, width], device);
            return Self {
                stored: Matrices::Dense(values.clone()),
                values,
            };
        };
        let spec = PackedSpec {
            matrices,
            gated,
            ..matrix(format, rows, width)
        };
        let mut bytes = bench.random.packed(spec);
        let largest = bytes.values().iter().fold(0.0_f32, |m, x| m.max(x.abs()));
        let factor = 6.0 / ((width as f32).sqrt() * largest);
        bytes.gains.iter_mut().for_each(|gain| *gain *= factor);
        let values = TensorData::new(bytes.values(), [matrices, rows, width]);
        Self {
            stored: Matrices::Packed(Packed::upload(bytes, device)),
            values: Tensor::from_data(values, device),
        }
    }

    /// The values of one matrix.
    fn one(&self) -> Tensor<2> {
        self.values.clone().squeeze_dim(0)
    }
}

fn vector(bench: &mut Bench<'_>, width: usize, device: &Device) -> Tensor<1> {
    bench.random.tensor([width], device) * 0.3 + 1.0
}

fn normed(x: Tensor<2>, norm: &Tensor<1>) -> Tensor<2> {
    rms_norm(x.unsqueeze_dim(1), norm.clone(), EPS).squeeze_dim(1)
}

/// Keys or values as a cache stores them.
fn rounded(rows: Tensor<3>, format: KvFormat) -> Tensor<3> {
    match format {
        KvFormat::Float(dtype) => rows.cast(dtype).cast(DType::F32),
        KvFormat::E4m3 => reference::e4m3(rows),
    }
}

/// Cosines and sines of each position.
fn angles(frequency: &[f32], positions: &[f32], device: &Device) -> [Tensor<2>; 2] {
    let angles = positions
        .iter()
        .flat_map(|p| frequency.iter().map(move |f| p * f));
    let shape = [positions.len(), frequency.len()];
    let angles = Tensor::<2>::from_data(TensorData::new(angles.collect(), shape), device);
    [angles.clone().cos(), angles.sin()]
}

impl Layer {
    /// The same on the device and on the oracle.
    fn twice(
        bench: &mut Bench<'_>,
        formats: (KvFormat, Option<PackedFormat>),
        hidden: usize,
    ) -> [Self; 2] {
        let random = bench.random.clone();
        let found = Self::new(bench, bench.device, formats, hidden);
        bench.random = random;
        [found, Self::new(bench, bench.oracle, formats, hidden)]
    }

    fn new(
        bench: &mut Bench<'_>,
        device: &Device,
        (format, packed): (KvFormat, Option<PackedFormat>),
        hidden: usize,
    ) -> Self {
        let [heads, kv_heads] = HEADS;
        let mut head_norm = || bench.random.tensor([HEAD], device) * 0.3 + 1.0;
        let qk_norms = [head_norm(), head_norm()];
        let mut kept = || {
            let rows = bench.random.tensor([CAPACITY, kv_heads, HEAD], device);
            rounded(rows, format)
        };
        let kept = [kept(), kept()];
        let qkv = [1, (heads + 2 * kv_heads) * HEAD, hidden];
        let both = |bench: &mut Bench<'_>, count| {
            let to = (device, packed);
            [
                Weights::new(bench, [count, 2 * INNER, hidden], true, to),
                Weights::new(bench, [count, hidden, INNER], false, to),
            ]
        };
        Self {
            norms: [(); 2].map(|()| vector(bench, hidden, device)),
            qk_norms,
            qkv: Weights::new(bench, qkv, false, (device, packed)),
            o_proj: Weights::new(bench, [1, hidden, heads * HEAD], false, (device, packed)),
            router: on(bench, [EXPERTS, hidden], device),
            experts: both(bench, EXPERTS),
            gate: on(bench, [1, hidden], device),
            shared: Some(both(bench, 1)),
            kept,
            format,
        }
    }

    fn parts(&self) -> LayerParts {
        let stored = |weights: &Weights| weights.stored.clone();
        let [norm, second] = self.norms.clone();
        let cache = self.kept.clone().map(|rows| {
            let store = KvStore::zeros(self.format, rows.dims(), &rows.device());
            store.write(rows, 0)
        });
        LayerParts {
            attention: AttentionParts {
                norm,
                qkv: stored(&self.qkv),
                qk_norms: self.qk_norms.clone(),
                o_proj: stored(&self.o_proj),
                cache,
            },
            norm: second,
            feed_forward: FeedForwardParts::Sparse {
                router: self.router.clone(),
                top_k: TOP_K,
                normalize: true,
                experts: self.experts.each_ref().map(stored),
                shared: self.shared.as_ref().map(|matrices| SharedParts {
                    gate: self.gate.clone(),
                    matrices: matrices.each_ref().map(stored),
                }),
            },
        }
    }

    /// The first half by operations, keys and values rounded as the cache rounds them.
    fn attend(&self, x: Tensor<2>, len: usize, angles: &[Tensor<2>; 2]) -> Tensor<2> {
        let [heads, kv_heads] = HEADS;
        let rows = x.dims()[0];
        let qkv = linear(normed(x.clone(), &self.norms[0]), self.qkv.one(), None);
        let qkv = qkv.reshape([rows, heads + 2 * kv_heads, HEAD]);
        let rotated = |x: Tensor<3>, norm: &Tensor<1>| {
            let x = rms_norm(x, norm.clone(), EPS);
            rope(x, angles[0].clone(), angles[1].clone())
        };
        let q = rotated(qkv.clone().slice(s![.., 0..heads, ..]), &self.qk_norms[0]);
        let k = rotated(
            qkv.clone().slice(s![.., heads..heads + kv_heads, ..]),
            &self.qk_norms[1],
        );
        let v = qkv.slice(s![.., heads + kv_heads.., ..]);
        let mut kept = self.kept.clone();
        for (kept, rows) in kept.iter_mut().zip([k, v]) {
            let rows = rounded(rows, self.format);
            *kept = write_rows(kept.clone(), rows, len);
        }
        let [k, v] = kept;
        let out = attention(q, k, v, AttentionSpec::causal(HEAD, len));
        x + linear(out.reshape([rows, heads * HEAD]), self.o_proj.one(), None)
    }

    /// The second half by operations.
    fn feed_forward(&self, x: Tensor<2>) -> Tensor<2> {
        let n = normed(x.clone(), &self.norms[1]);
        let routes = route(linear(n.clone(), self.router.clone(), None), TOP_K, true);
        let [gate_up, down] = self.experts.each_ref().map(|x| x.values.clone());
        let routed = experts(n.clone(), routes, gate_up, down);
        let Some(shared) = &self.shared else {
            return x + routed;
        };
        let [gate_up, down] = shared.each_ref().map(Weights::one);
        let shared = linear(swiglu(linear(n.clone(), gate_up, None)), down, None);
        x + routed + shared * activation::sigmoid(linear(n, self.gate.clone(), None))
    }
}
