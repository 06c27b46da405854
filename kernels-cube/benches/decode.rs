//! Decoding a token at a time: right, and how fast at the size of Qwen3-Omni's thinker.
//!
//! `check` compares steps of small decoders, through a captured graph, with the same arithmetic in f64. `speed` makes 48
//! layers of the release's sizes from random words, captures a step, and replays it at several lengths of the cache;
//! `nodes` takes each kind of launch alone, rotating over all layers. Both have caches of bf16, with `fp8` of E4M3, and
//! weights of NVFP4, with `weights-NAME` of another coding: `weights-mxfp4 weights-fp8 weights-fp8-block weights-mxfp8`.
//! `check` has all of them unless one is named.

#![allow(
    clippy::too_many_arguments,
    clippy::too_many_lines,
    clippy::print_stdout,
    reason = "a program that checks and prints"
)]
#![allow(
    arithmetic_overflow,
    reason = "the hash in `fill` wraps, and the host shadow of its constants is folded"
)]

#[path = "../tests/coded/mod.rs"]
mod coded;

use std::time::Instant;

use burn_omni_kernels::control::{Control, RING, TOKENS};
use burn_omni_kernels::decode::{
    Attend, Attended, Cache, Choice, FeedForward, Layer, Router, Routing, Stack, Step, attend,
    router,
};
use burn_omni_kernels::few::{self, Row, Rows, Weights};
use burn_omni_kernels::packed::tiles::{self, Activations, Matrix, Tiling};
use burn_omni_kernels::packed::{Coding, Scaling, Shape};
use burn_omni_kernels::{Buffer, E4M3};
use coded::CODINGS;
use cubecl::prelude::*;
use half::bf16;

fn main() {
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with("--"))
        .collect();
    let (named, chosen): (Vec<_>, Vec<_>) = chosen
        .into_iter()
        .partition(|name| name.starts_with("weights-"));
    let mut codings = CODINGS.to_vec();
    if !named.is_empty() {
        codings.retain(|(name, _)| named.contains(&format!("weights-{name}")));
    }
    let on = |name: &str| chosen.is_empty() || chosen.iter().any(|c| c == name);
    let client = cubecl::Device::Cuda(Default::default()).client();
    if on("check") {
        for packed in codings.iter().copied().map(Some).chain([None]) {
            for sparse in [false, true] {
                for (heads, kv_heads, len) in [(8, 1, 5), (4, 2, 300), (16, 2, 1000)] {
                    let small = Small::new(&client, [heads, kv_heads], sparse, packed);
                    for e4m3 in [false, true] {
                        small.check(len, e4m3);
                    }
                }
            }
        }
    }
    if on("speed") || on("nodes") {
        let has = |name: &str| chosen.iter().any(|c| c == name);
        let (name, coding) = codings[0];
        println!("weights of {name}");
        let thinker = Thinker::new(&client, coding, has("packed-head"), has("fp8"));
        if on("speed") {
            for len in [512, 4096, 16384, 32000] {
                thinker.speed(len);
            }
        }
        if on("nodes") {
            thinker.nodes();
        }
    }
}

/// A number as a cache has it.
fn rounded(number: f64, e4m3: bool) -> f64 {
    if e4m3 {
        e4m3_value(e4m3_byte(number))
    } else {
        f64::from(bf16::from_f64(number).to_f32())
    }
}

/// The value of an E4M3 byte, by its definition.
fn e4m3_value(byte: u8) -> f64 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f64::from(byte & 7));
    let magnitude = match (exponent, byte & 7) {
        (15, 7) => f64::NAN,
        (0, _) => mantissa / 512.0,
        _ => (8.0 + mantissa) * 2_f64.powi(exponent - 10),
    };
    if byte & 0x80 == 0 {
        magnitude
    } else {
        -magnitude
    }
}

/// The E4M3 byte whose value is nearest, of two the even one.
fn e4m3_byte(number: f64) -> u8 {
    if number.is_nan() {
        return 0x7F;
    }
    let distance = |byte: &u8| (e4m3_value(*byte) - number).abs();
    let signed = if number < 0.0 { 0x80_u8 } else { 0 };
    (signed..signed + 0x7F)
        .min_by(|a, b| {
            distance(a)
                .total_cmp(&distance(b))
                .then((a & 1).cmp(&(b & 1)))
        })
        .expect("there are bytes")
}

/// Numbers of a cache on the device.
fn cache(client: &Client, numbers: &[f64], e4m3: bool) -> Buffer {
    if e4m3 {
        let bytes: Vec<u8> = numbers.iter().map(|v| e4m3_byte(*v)).collect();
        return Buffer {
            handle: client.create_from_slice(&bytes),
            elem: E4M3,
        };
    }
    let numbers: Vec<bf16> = numbers.iter().map(|v| bf16::from_f64(*v)).collect();
    Buffer::of(client, &numbers)
}

struct Random(u64);

impl Random {
    fn bits(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }
    fn unit(&mut self) -> f32 {
        (self.bits() >> 8) as f32 / (1 << 23) as f32 - 1.0
    }
}

fn read<T: CubeElement>(client: &Client, buffer: &Buffer) -> Vec<T> {
    let bytes = client
        .read_one(buffer.handle.clone())
        .expect("the launches before this read succeeded");
    T::from_bytes(&bytes)[..buffer.len()].to_vec()
}

/// A matrix with its values.
struct Known {
    weights: Weights,
    values: Vec<f64>,
    width: usize,
}

impl Known {
    fn rows(
        client: &Client,
        random: &mut Random,
        matrices: usize,
        rows: usize,
        width: usize,
    ) -> Self {
        let values: Vec<bf16> = (0..matrices * rows * width)
            .map(|_| bf16::from_f32(random.unit() / (width as f32).sqrt() * 2.0))
            .collect();
        Self {
            weights: Weights::Rows(Rows {
                buffer: Buffer::of(client, &values),
                rows,
                width,
            }),
            values: values.into_iter().map(|v| f64::from(v.to_f32())).collect(),
            width,
        }
    }

    fn tiles(client: &Client, random: &mut Random, coding: Coding, shape: Shape) -> Self {
        let Shape {
            matrices,
            rows,
            width,
            ..
        } = shape;
        let count = matrices * rows * width;
        // Magnitudes below 2, of which a block's scale makes not much more.
        let code = |bits: u32| {
            if coding.bytes {
                bits & 0xBFBF_BFBF
            } else {
                bits
            }
        };
        let codes: Vec<u32> = (0..count / if coding.bytes { 4 } else { 8 })
            .map(|_| code(random.bits()))
            .collect();
        let blocks = matrices * rows * width.div_ceil(coding.block.max(1));
        let scales: Vec<u32> = match coding.scaling {
            Scaling::E4m3 => (0..blocks / 4)
                .map(|_| random.bits() & 0x0707_0707 | 0x3030_3030)
                .collect(),
            Scaling::E8m0 => (0..blocks / 4)
                .map(|_| (random.bits() & 0x0101_0101) + 0x7E7E_7E7E)
                .collect(),
            Scaling::F32 => (0..blocks)
                .map(|_| (0.75 + random.unit() / 4.0).to_bits())
                .collect(),
            Scaling::None | Scaling::Affine => vec![0],
        };
        let size = if coding.bytes { 1.8 } else { 0.6 };
        let gains: Vec<f32> = (0..matrices * rows)
            .map(|_| (1.5 + random.unit()) * size / (width as f32).sqrt())
            .collect();
        let tiling = Tiling::new(coding, shape);
        let tiled = [tiling.code_words(matrices), tiling.scale_words(matrices)]
            .map(|words| Buffer::empty(client, u32::elem_type_native(), words));
        let stored = [Buffer::of(client, &codes), Buffer::of(client, &scales)];
        tiles::pack(
            client,
            [&stored[0], &stored[1]],
            [&tiled[0], &tiled[1]],
            tiling,
            shape,
        );
        let [tiled_codes, tiled_scales] = tiled;
        let matrix = Matrix {
            codes: tiled_codes,
            scales: tiled_scales,
            gains: Buffer::of(client, &gains),
            tiling,
            rows,
        };
        let values = Buffer::empty(client, f32::elem_type_native(), count);
        let parts = [&matrix.codes, &matrix.scales, &matrix.gains];
        tiles::unpack(client, parts, &values, tiling, shape);
        Self {
            weights: Weights::Tiles(matrix),
            values: read::<f32>(client, &values)
                .into_iter()
                .map(f64::from)
                .collect(),
            width,
        }
    }

    fn in_rows(&self) -> Rows {
        match &self.weights {
            Weights::Rows(rows) => rows.clone(),
            Weights::Tiles(_) => unreachable!("it was made of rows"),
        }
    }

    /// Rows `first ..` of `count`, times `x`.
    fn times(&self, first: usize, count: usize, x: &[f64]) -> Vec<f64> {
        (first..first + count)
            .map(|row| {
                let weights = &self.values[row * self.width..(row + 1) * self.width];
                weights.iter().zip(x).map(|(w, x)| w * x).sum()
            })
            .collect()
    }
}

/// A small decoder, on the device and in f64.
struct Small {
    client: Client,
    heads: [usize; 2],
    routing: Option<Routing>,
    packed: Option<(&'static str, Coding)>,
    layers: Vec<SmallLayer>,
    embedding: Known,
    head: Known,
    norm: Vec<f32>,
}

struct SmallLayer {
    norms: [Vec<f32>; 2],
    qk_norms: [Vec<f32>; 2],
    qkv: Known,
    o_proj: Known,
    router: Known,
    gate_up: Known,
    down: Known,
    /// The gate, gate and up, and down of a shared expert.
    shared: Option<[Known; 3]>,
}

const HIDDEN: usize = 320;
const INNER: usize = 192;
const SHARED: usize = 64;
const VOCABULARY: usize = 500;
const EPS: f32 = 1e-6;

impl Small {
    fn new(
        client: &Client,
        heads: [usize; 2],
        sparse: bool,
        packed: Option<(&'static str, Coding)>,
    ) -> Self {
        let seed = heads[0] as u64 * 17 + u64::from(sparse) * 3 + u64::from(packed.is_some());
        let mut random = Random(seed);
        let experts = if sparse { 48 } else { 1 };
        let norm = |random: &mut Random, width: usize| -> Vec<f32> {
            (0..width).map(|_| 1.0 + 0.3 * random.unit()).collect()
        };
        let matrix =
            |random: &mut Random, matrices: usize, rows: usize, width: usize, gated: bool| {
                if let Some((_, coding)) = packed {
                    let shape = Shape {
                        matrices,
                        rows,
                        width,
                        gated,
                    };
                    Known::tiles(client, random, coding, shape)
                } else {
                    Known::rows(client, random, matrices, rows, width)
                }
            };
        let random = &mut random;
        let layers = (0..2)
            .map(|_| SmallLayer {
                norms: [norm(random, HIDDEN), norm(random, HIDDEN)],
                qk_norms: [norm(random, 128), norm(random, 128)],
                qkv: matrix(random, 1, (heads[0] + 2 * heads[1]) * 128, HIDDEN, false),
                o_proj: matrix(random, 1, HIDDEN, heads[0] * 128, false),
                router: Known::rows(client, random, 1, experts, HIDDEN),
                gate_up: matrix(random, experts, 2 * INNER, HIDDEN, true),
                down: matrix(random, experts, HIDDEN, INNER, false),
                shared: (sparse && heads[0] == 16).then(|| {
                    [
                        Known::rows(client, random, 1, 1, HIDDEN),
                        matrix(random, 1, 2 * SHARED, HIDDEN, true),
                        matrix(random, 1, HIDDEN, SHARED, false),
                    ]
                }),
            })
            .collect();
        Self {
            client: client.clone(),
            heads,
            routing: sparse.then_some(Routing {
                experts,
                top_k: 4,
                normalize: heads[0] != 4,
            }),
            packed,
            layers,
            embedding: Known::rows(client, random, 1, VOCABULARY, HIDDEN),
            head: Known::rows(client, random, 1, VOCABULARY, HIDDEN),
            norm: norm(random, HIDDEN),
        }
    }

    fn check(&self, len: usize, e4m3: bool) {
        const STEPS: usize = 3;
        let client = &self.client;
        let [heads, kv_heads] = self.heads;
        let frequency: Vec<f32> = (0..64).map(|i| 1e4_f32.powf(-(i as f32) / 64.0)).collect();
        let mut random = Random(99);
        let size = (len + STEPS + 8) * kv_heads * 128;
        let mut caches: Vec<[Vec<f64>; 2]> = Vec::new();
        let layers: Vec<Layer> = self
            .layers
            .iter()
            .map(|layer| {
                let [keys, values] = [0, 1].map(|_| {
                    (0..size)
                        .map(|i| {
                            if i < len * kv_heads * 128 {
                                rounded(f64::from(random.unit()), e4m3)
                            } else {
                                f64::NAN
                            }
                        })
                        .collect::<Vec<_>>()
                });
                let cache = Cache {
                    keys: cache(client, &keys, e4m3),
                    values: cache(client, &values, e4m3),
                };
                caches.push([keys, values]);
                let upload = |values: &[f32]| Buffer::of(client, values);
                Layer {
                    norms: [0, 1].map(|i| upload(&layer.norms[i])),
                    qkv: layer.qkv.weights.clone(),
                    qk_norms: [0, 1].map(|i| upload(&layer.qk_norms[i])),
                    o_proj: layer.o_proj.weights.clone(),
                    feed_forward: match self.routing {
                        Some(routing) => FeedForward::Sparse {
                            router: Router {
                                weights: layer.router.in_rows(),
                                shared: layer.shared.as_ref().map(|[gate, ..]| gate.in_rows()),
                                routing,
                            },
                            experts: [layer.gate_up.weights.clone(), layer.down.weights.clone()],
                            shared: layer
                                .shared
                                .as_ref()
                                .map(|[_, up, down]| [up.weights.clone(), down.weights.clone()]),
                        },
                        None => FeedForward::Dense([
                            layer.gate_up.weights.clone(),
                            layer.down.weights.clone(),
                        ]),
                    },
                    cache,
                }
            })
            .collect();
        let stack = Stack::new(
            client,
            HIDDEN,
            layers,
            (Buffer::of(client, &self.norm), EPS),
            Attend::new(client, self.heads, EPS, &frequency),
        );
        let step = Step::new(
            client,
            self.embedding.in_rows(),
            stack,
            self.head.weights.clone(),
        );
        let start = |step: &Step| {
            step.stack
                .control
                .start(client, 7, len as u32, (len + 3) as f32);
        };
        client.graph_prepare().expect("graphs are supported");
        start(&step);
        step.launch(client);
        let _: Vec<f32> = read(client, &step.logits);
        client.start_capture().expect("capture starts");
        step.launch(client);
        let graph = client.stop_capture().expect("capture ends");
        start(&step);
        let mut token = 7;
        let mut worst: f64 = 0.0;
        let mut right = true;
        for n in 0..STEPS {
            #[expect(unsafe_code, reason = "the buffers outlive the graph")]
            // SAFETY: the step holds all buffers.
            unsafe { graph.replay() }.expect("the graph runs");
            let got: Vec<f32> = read(client, &step.logits);
            let place = (token, len + n, (len + n + 3) as f64);
            let want = self.reference(place, &frequency, &mut caches, e4m3);
            let size = (want.iter().map(|v| v * v).sum::<f64>() / want.len() as f64).sqrt();
            for (got, want) in got.iter().zip(&want) {
                let error = (f64::from(*got) - want).abs() / size;
                worst = if error.is_nan() {
                    f64::INFINITY
                } else {
                    worst.max(error)
                };
            }
            let best = got
                .iter()
                .enumerate()
                .fold(0, |best, (i, v)| if *v > got[best] { i } else { best });
            let control: Vec<u32> = read(client, &step.stack.control.0);
            right &= control[0] as usize == best
                && control[1] as usize == len + n + 1
                && control[TOKENS + n % RING] as usize == best;
            token = best;
        }
        // A key next to a rounding boundary may fall to the other side, and those of E4M3 are far apart.
        let most = if e4m3 { 5e-2 } else { 1e-2 };
        let verdict = if worst < most && right {
            "ok   "
        } else {
            "WRONG"
        };
        println!(
            "{verdict} step heads {heads}/{kv_heads} len {len} routing {:?} weights {} cache {}: {worst:.1e} of the logits' size, tokens {right}",
            self.routing.map(|r| r.normalize),
            self.packed.map_or("bf16", |(name, _)| name),
            if e4m3 { "e4m3" } else { "bf16" },
        );
    }

    fn reference(
        &self,
        (token, len, position): (usize, usize, f64),
        frequency: &[f32],
        caches: &mut [[Vec<f64>; 2]],
        e4m3: bool,
    ) -> Vec<f64> {
        let [heads, kv_heads] = self.heads;
        let norm = |x: &[f64], weight: &[f32]| -> Vec<f64> {
            let mean = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
            let scale = 1.0 / (mean + f64::from(EPS)).sqrt();
            x.iter()
                .zip(weight)
                .map(|(v, w)| v * scale * f64::from(*w))
                .collect()
        };
        let rotate = |x: Vec<f64>| -> Vec<f64> {
            (0..128)
                .map(|i| {
                    let (sin, cos) = (position * f64::from(frequency[i % 64])).sin_cos();
                    let other = if i < 64 { -x[i + 64] } else { x[i - 64] };
                    x[i] * cos + other * sin
                })
                .collect()
        };
        let mut h = self.embedding.values[token * HIDDEN..(token + 1) * HIDDEN].to_vec();
        for (layer, [keys, values]) in self.layers.iter().zip(caches) {
            let x = norm(&h, &layer.norms[0]);
            let qkv = layer.qkv.times(0, (heads + 2 * kv_heads) * 128, &x);
            let part = |head: usize| qkv[head * 128..(head + 1) * 128].to_vec();
            for kv in 0..kv_heads {
                let key = rotate(norm(&part(heads + kv), &layer.qk_norms[1]));
                let value = part(heads + kv_heads + kv);
                for i in 0..128 {
                    let at = (len * kv_heads + kv) * 128 + i;
                    keys[at] = rounded(key[i], e4m3);
                    values[at] = rounded(value[i], e4m3);
                }
            }
            let mut attended = Vec::new();
            for head in 0..heads {
                let query = rotate(norm(&part(head), &layer.qk_norms[0]));
                let kv = head / (heads / kv_heads);
                let row = |rows: &[f64], key: usize| {
                    rows[(key * kv_heads + kv) * 128..(key * kv_heads + kv + 1) * 128].to_vec()
                };
                let scores: Vec<f64> = (0..=len)
                    .map(|key| {
                        let dot: f64 = row(keys, key).iter().zip(&query).map(|(k, q)| k * q).sum();
                        (dot / 128_f64.sqrt()).exp()
                    })
                    .collect();
                let sum: f64 = scores.iter().sum();
                let mut output = vec![0.0; 128];
                for (key, score) in scores.iter().enumerate() {
                    for (o, v) in output.iter_mut().zip(row(values, key)) {
                        *o += v * score / sum;
                    }
                }
                attended.extend(output);
            }
            for (h, o) in h.iter_mut().zip(layer.o_proj.times(0, HIDDEN, &attended)) {
                *h += o;
            }
            let x = norm(&h, &layer.norms[1]);
            let chosen: Vec<(usize, f64)> = match self.routing {
                None => vec![(0, 1.0)],
                Some(routing) => {
                    let scores = layer.router.times(0, routing.experts, &x);
                    let mut order: Vec<usize> = (0..routing.experts).collect();
                    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
                    let top = &order[..routing.top_k];
                    let sum: f64 = if routing.normalize {
                        top.iter().map(|e| scores[*e].exp()).sum()
                    } else {
                        scores.iter().map(|s| s.exp()).sum()
                    };
                    top.iter().map(|e| (*e, scores[*e].exp() / sum)).collect()
                }
            };
            for (expert, weight) in chosen {
                let gate = layer.gate_up.times(expert * 2 * INNER, INNER, &x);
                let up = layer.gate_up.times(expert * 2 * INNER + INNER, INNER, &x);
                let inner: Vec<f64> = gate
                    .iter()
                    .zip(up)
                    .map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up)
                    .collect();
                for (h, o) in h
                    .iter_mut()
                    .zip(layer.down.times(expert * HIDDEN, HIDDEN, &inner))
                {
                    *h += o * weight;
                }
            }
            if let Some([gate, up, down]) = &layer.shared {
                let share = 1.0 / (1.0 + (-gate.times(0, 1, &x)[0]).exp());
                let gates = up.times(0, SHARED, &x);
                let ups = up.times(SHARED, SHARED, &x);
                let inner: Vec<f64> = gates
                    .iter()
                    .zip(ups)
                    .map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up)
                    .collect();
                for (h, o) in h.iter_mut().zip(down.times(0, HIDDEN, &inner)) {
                    *h += o * share;
                }
            }
        }
        self.head.times(0, VOCABULARY, &norm(&h, &self.norm))
    }
}

/// A decoder of the release's sizes, from random words.
struct Thinker {
    client: Client,
    step: Step,
    layers: Vec<Layer>,
    attend: Attend,
    head: Weights,
    coding: Coding,
}

const WIDTH: usize = 2048;
const EXPERTS: usize = 128;
const ROUTING: Routing = Routing {
    experts: EXPERTS,
    top_k: 8,
    normalize: true,
};
const CAPACITY: usize = 33_000;

impl Thinker {
    fn new(client: &Client, coding: Coding, packed_head: bool, fp8: bool) -> Self {
        let start = Instant::now();
        let seed = std::cell::Cell::new(1);
        let words = |count: usize, kind: usize| {
            seed.set(seed.get() + 1);
            random_words(client, count, seed.get(), kind)
        };
        let dense = |rows: usize, width: usize| Rows {
            buffer: Buffer {
                handle: words(rows * width / 2, 2).handle,
                elem: bf16::elem_type_native(),
            },
            rows,
            width,
        };
        // As f32 they are two small bf16.
        let scales_of = if coding.scaling == Scaling::F32 { 2 } else { 1 };
        let tiles = |matrices: usize, rows: usize, width: usize, gated: bool| {
            let tiling = Tiling::new(
                coding,
                Shape {
                    matrices,
                    rows,
                    width,
                    gated,
                },
            );
            Weights::Tiles(Matrix {
                codes: words(tiling.code_words(matrices), 0),
                scales: words(tiling.scale_words(matrices), scales_of),
                gains: Buffer::of(client, &vec![0.01_f32; matrices * rows]),
                tiling,
                rows,
            })
        };
        let cache = || {
            let numbers = CAPACITY * 4 * 128;
            let (handle, elem) = if fp8 {
                (words(numbers / 4, 3).handle, E4M3)
            } else {
                (words(numbers / 2, 2).handle, bf16::elem_type_native())
            };
            Buffer { handle, elem }
        };
        let ones = |count: usize| Buffer::of(client, &vec![1.0_f32; count]);
        let layers: Vec<Layer> = (0..48)
            .map(|_| Layer {
                norms: [ones(WIDTH), ones(WIDTH)],
                qkv: tiles(1, 5120, WIDTH, false),
                qk_norms: [ones(128), ones(128)],
                o_proj: tiles(1, WIDTH, 4096, false),
                feed_forward: FeedForward::Sparse {
                    router: Router {
                        weights: dense(EXPERTS, WIDTH),
                        shared: None,
                        routing: ROUTING,
                    },
                    shared: None,
                    experts: [
                        tiles(EXPERTS, 1536, WIDTH, true),
                        tiles(EXPERTS, WIDTH, 768, false),
                    ],
                },
                cache: Cache {
                    keys: cache(),
                    values: cache(),
                },
            })
            .collect();
        let head = if packed_head {
            tiles(1, 152_064, WIDTH, false)
        } else {
            Weights::Rows(dense(152_064, WIDTH))
        };
        let frequency: Vec<f32> = (0..64).map(|i| 1e6_f32.powf(-(i as f32) / 64.0)).collect();
        let attend = Attend::new(client, [32, 4], EPS, &frequency);
        let stack = Stack::new(
            client,
            WIDTH,
            layers.clone(),
            (ones(WIDTH), EPS),
            attend.clone(),
        );
        let step = Step::new(client, dense(152_064, WIDTH), stack, head.clone());
        let _: Vec<u32> = read(client, &step.stack.control.0);
        println!("made 48 layers in {:.1} s", start.elapsed().as_secs_f64());
        Self {
            client: client.clone(),
            step,
            layers,
            attend,
            head,
            coding,
        }
    }

    /// Bytes of so many packed values.
    fn bytes(&self, values: usize) -> usize {
        let scales = match self.coding.scaling {
            Scaling::None => 0,
            Scaling::F32 => values / self.coding.block * 4,
            _ => values / self.coding.block,
        };
        values / if self.coding.bytes { 1 } else { 2 } + scales
    }

    fn speed(&self, len: u32) {
        let client = &self.client;
        let start = || {
            self.step.stack.control.start(client, 5, len, len as f32);
        };
        client.graph_prepare().expect("graphs are supported");
        start();
        self.step.launch(client);
        let _: Vec<u32> = read(client, &self.step.stack.control.0);
        client.start_capture().expect("capture starts");
        self.step.launch(client);
        let graph = client.stop_capture().expect("capture ends");
        start();
        let replay = || {
            #[expect(unsafe_code, reason = "the buffers outlive the graph")]
            // SAFETY: the step holds all buffers.
            let done = unsafe { graph.replay() };
            done.expect("the graph runs");
        };
        (0..5).for_each(|_| replay());
        let _: Vec<u32> = read(client, &self.step.stack.control.0);
        let mut times: Vec<f64> = (0..7)
            .map(|_| {
                let start = Instant::now();
                (0..20).for_each(|_| replay());
                let _: Vec<u32> = read(client, &self.step.stack.control.0);
                start.elapsed().as_secs_f64() * 1e6 / 20.0
            })
            .collect();
        times.sort_by(f64::total_cmp);
        // The same with a read of every token, one step behind.
        let begin = Instant::now();
        for _ in 0..50 {
            replay();
            let _: Vec<u32> = read(client, &self.step.stack.control.0);
        }
        let read_each = begin.elapsed().as_secs_f64() * 1e6 / 50.0;
        let logits: Vec<f32> = read(client, &self.step.logits);
        let finite = logits.iter().all(|v| v.is_finite());
        let control: Vec<u32> = read(client, &self.step.stack.control.0);
        println!(
            "thinker, {len} rows in the cache: {:.1} us a token ({:.1} to {:.1}), {:.0} tokens/s; reading each {:.1} us; finite {finite}; last tokens {:?}",
            times[3],
            times[0],
            times[6],
            1e6 / times[3],
            read_each,
            &control[TOKENS..TOKENS + 6]
        );
    }

    /// Microseconds of a launch in a captured graph that goes through all layers; the median of five.
    fn time(&self, what: &str, bytes: usize, launch: impl Fn(&Layer)) {
        let client = &self.client;
        client.graph_prepare().expect("graphs are supported");
        self.layers.iter().for_each(&launch);
        let _: Vec<u32> = read(client, &self.step.stack.control.0);
        client.start_capture().expect("capture starts");
        (0..3).for_each(|_| self.layers.iter().for_each(&launch));
        let graph = client.stop_capture().expect("capture ends");
        let mut times: Vec<f64> = (0..6)
            .map(|_| {
                let start = Instant::now();
                for _ in 0..3 {
                    #[expect(unsafe_code, reason = "the buffers outlive the graph")]
                    // SAFETY: all buffers of the launches are alive.
                    let done = unsafe { graph.replay() };
                    done.expect("the graph runs");
                }
                let _: Vec<u32> = read(client, &self.step.stack.control.0);
                start.elapsed().as_secs_f64() * 1e6 / (9 * self.layers.len()) as f64
            })
            .collect();
        times.sort_by(f64::total_cmp);
        println!(
            "{what:24} {:7.2} us {:6.0} GB/s",
            times[2],
            bytes as f64 / times[2] / 1e3
        );
    }

    fn nodes(&self) {
        let client = &self.client;
        let row = Row::new(client, WIDTH, EPS);
        let f32 = f32::elem_type_native();
        let qkv = Buffer::of(client, &vec![0.5_f32; 5120]);
        let choice = Choice::new(client, EXPERTS, 8);
        let wide = |columns: usize| {
            Activations::new(Buffer::of(client, &vec![bf16::ONE; 2 * columns]), true)
        };
        let norm = Buffer::of(client, &vec![1.0_f32; WIDTH]);
        let (a, h) = (wide(4096), wide(8 * 768));
        let y = Buffer::empty(client, f32, 5120);
        self.time("qkv", self.bytes(5120 * 2048), |layer| {
            few::normed(client, &layer.qkv, &row, &y);
        });
        for len in [512_u32, 4096, 16384, 32000] {
            let control = Control::new(client);
            control.start(client, 1, len, len as f32);
            let bytes = len as usize * 1024 * self.layers[0].cache.keys.elem.size();
            self.time(&format!("attend {len}"), bytes, |layer| {
                let attended = Attended {
                    qkv: &qkv,
                    norms: layer.qk_norms.each_ref(),
                    control: &control.0,
                    cache: &layer.cache,
                    output: (&a, 4096),
                    next: &layer.qk_norms[0],
                };
                attend(client, &self.attend, attended);
            });
        }
        self.time("o_proj", self.bytes(2048 * 4096), |layer| {
            few::residual(client, &layer.o_proj, (&a, 4096), (&row, &norm));
        });
        let experts = |layer: &Layer| match &layer.feed_forward {
            FeedForward::Sparse {
                router, experts, ..
            } => (router.clone(), experts.clone()),
            FeedForward::Dense(_) => unreachable!(),
        };
        self.time("router", 128 * 2048 * 2, |layer| {
            router(client, &experts(layer).0, &row, &choice, &norm);
        });
        let ids = Buffer::of(client, &(0..8).map(|i| i * 11 + 3).collect::<Vec<u32>>());
        let shares = Buffer::of(client, &[0.125_f32; 8]);
        self.time("gate_up", self.bytes(8 * 1536 * 2048), |layer| {
            few::normed_gate_up(client, &experts(layer).1[0], &row, Some(&ids), (&h, 768));
        });
        self.time("down", self.bytes(8 * 768 * 2048), |layer| {
            few::residual_down(
                client,
                &experts(layer).1[1],
                (&h, 768),
                [&ids, &shares],
                (&row, &norm),
            );
        });
        let logits = Buffer::empty(client, f32, 152_064);
        let bytes = match &self.head {
            Weights::Tiles(_) => self.bytes(152_064 * 2048),
            Weights::Rows(_) => 152_064 * 2048 * 2,
        };
        self.time("head", bytes, |_| {
            few::normed(client, &self.head, &row, &logits)
        });
    }
}

#[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
fn random_words(client: &Client, count: usize, seed: u32, kind: usize) -> Buffer {
    let buffer = Buffer::empty(client, u32::elem_type_native(), count);
    // SAFETY: units beyond the buffer return.
    unsafe {
        fill::launch_unchecked(
            client,
            CubeCount::Static(32768, count.div_ceil(32768 * 256) as u32, 1),
            CubeDim::new_1d(256),
            BufferArg::from_raw_parts(buffer.handle.clone(), count),
            seed.wrapping_mul(0x9E37_79B9),
            kind,
        );
    }
    buffer
}

/// Random words; of kind 1, four scale bytes each; of kind 2, two small bf16; of kind 3, four small E4M3.
#[cube(launch_unchecked)]
fn fill(y: &mut [u32], seed: u32, #[comptime] kind: usize) {
    let i = ABSOLUTE_POS;
    if i < y.len() {
        let mut h = (i as u32) * 0x9E37_79B1u32 + seed;
        h = (h ^ (h >> 15u32)) * 0x85EB_CA77u32;
        h = (h ^ (h >> 13u32)) * 0xC2B2_AE3Du32;
        h = h ^ (h >> 16u32);
        if comptime!(kind == 1) {
            h = (h & 0x1F1F_1F1Fu32) + 0x4040_4040u32;
        } else if comptime!(kind == 2) {
            h = (h & 0x807F_807Fu32) | 0x3C00_3C00u32;
        } else if comptime!(kind == 3) {
            h &= 0x9F9F_9F9Fu32;
        }
        y[i] = h;
    }
}
