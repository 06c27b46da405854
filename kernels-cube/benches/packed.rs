//! Packed products on one GPU: right, and how fast beside a kernel that only reads the same bytes.
//!
//! Every variant is checked against f64 products of the decoded values, outputs poisoned before. Times are taken inside
//! a captured graph whose launches rotate over more than 1 GB of weights, so that no cache holds them; the read-only
//! kernel of the same byte count runs in the same way. Sections are chosen by name: `check read gemv experts gemm`; codings
//! too: `nvfp4 mxfp4 fp8 fp8-block mxfp8`.

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

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn_omni_kernels::Buffer;
use burn_omni_kernels::few::{self, Weights};
use burn_omni_kernels::many::{self, Added, Blocking, Plan};
use burn_omni_kernels::packed::tiles::{Activations, ColumnOrder, Matrix, Tiling, activations};
use burn_omni_kernels::packed::{Coding, Scaling, Shape};
use coded::{CODINGS, Source};
use cubecl::prelude::*;
use half::bf16;

fn main() {
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with("--"))
        .collect();
    let is_chosen = |name: &str| chosen.iter().any(|c| c == name);
    let mut codings: Vec<_> = CODINGS.to_vec();
    if CODINGS.iter().any(|(name, _)| is_chosen(name)) {
        codings.retain(|(name, _)| is_chosen(name));
    }
    let sections = ["check", "read", "gemv", "experts", "gemm", "profile"];
    let all = !sections.into_iter().any(is_chosen);
    let on = |name: &str| is_chosen(name) || all && name != "profile";
    let bench = Bench::new();
    if on("check") {
        for (name, coding) in &codings {
            bench.check_all(*coding, name);
        }
    }
    if sections[1..].iter().copied().any(on) {
        let pool = Pool::new(&bench);
        if on("read") {
            pool.read_only();
        }
        for (name, coding) in codings {
            let cut = Cut {
                pool: &pool,
                coding,
                name,
            };
            if on("gemv") {
                cut.gemv();
            }
            if on("experts") {
                cut.experts();
            }
            if on("gemm") {
                cut.gemm();
            }
            if on("profile") {
                cut.profile();
            }
        }
    }
}

/// Whether anything was wrong.
static WRONG: AtomicBool = AtomicBool::new(false);

/// How a line begins.
fn verdict(right: bool) -> &'static str {
    if right {
        "ok   "
    } else {
        WRONG.store(true, Ordering::Relaxed);
        "WRONG"
    }
}

struct Bench {
    client: Client,
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

/// The product of one row, and the sum of the magnitudes in it.
fn dot(source: &Source, row: usize, x: &[f64]) -> (f64, f64) {
    x.iter()
        .enumerate()
        .fold((0.0, 0.0), |(sum, size), (column, x)| {
            let product = source.value(row, column) * x;
            (sum + product, size + product.abs())
        })
}

impl Bench {
    fn new() -> Self {
        Self {
            client: cubecl::Device::Cuda(Default::default()).client(),
        }
    }
    fn upload<T: CubeElement + cubecl::frontend::Scalar>(&self, data: &[T]) -> Buffer {
        Buffer::of(&self.client, data)
    }
    fn room<T: cubecl::frontend::Scalar>(&self, length: usize) -> Buffer {
        Buffer::empty(&self.client, T::elem_type_native(), length)
    }
    fn poisoned(&self, length: usize) -> Buffer {
        self.upload(&vec![f32::NAN; length])
    }
    fn read<T: CubeElement>(&self, buffer: &Buffer) -> Vec<T> {
        let bytes = self
            .client
            .read_one(buffer.handle.clone())
            .expect("the launches before this read succeeded");
        T::from_bytes(&bytes)[..buffer.len()].to_vec()
    }
    fn activations(
        &self,
        x: &[f32],
        rows: usize,
        (columns, order): (usize, ColumnOrder),
        split: bool,
    ) -> Activations {
        activations::round(
            &self.client,
            &burn_omni_kernels::Matrix {
                buffer: self.upload(x),
                rows,
                width: x.len() / rows,
                stride: x.len() / rows,
            },
            (columns, order),
            split,
        )
    }

    fn check_all(&self, coding: Coding, name: &str) {
        let mut random = Random(7);
        {
            for split in [false, true] {
                for (rows, out, width) in [
                    (1, 1, 16),
                    (1, 64, 64),
                    (1, 160, 768),
                    (1, 48, 2048),
                    (1, 33, 4096),
                    (1, 40, 112),
                    (1, 16, 1088),
                    (2, 33, 48),
                    (5, 64, 256),
                    (8, 320, 2048),
                    (9, 17, 768),
                    (16, 48, 1040),
                    (16, 1056, 128),
                    (17, 16, 64),
                    (100, 300, 144),
                    (128, 256, 768),
                    (150, 264, 1024),
                ] {
                    let shape = Shape {
                        matrices: 1,
                        rows: out,
                        width,
                        gated: false,
                    };
                    let source = Source::random(&mut || random.bits(), coding, shape);
                    self.check_dense(&mut random, &source, rows, split, name);
                }
                for (rows, experts, top_k, hidden, width) in [
                    (1, 8, 2, 64, 32),
                    (1, 16, 8, 256, 768),
                    (3, 9, 3, 144, 48),
                    (40, 4, 2, 96, 64),
                    (100, 6, 3, 256, 136),
                ] {
                    self.check_experts(
                        &mut random,
                        coding,
                        [rows, experts, top_k, hidden, width],
                        split,
                        name,
                    );
                }
            }
        }
    }

    fn input(random: &mut Random, count: usize, split: bool) -> Vec<f32> {
        (0..count)
            .map(|_| {
                if split {
                    random.unit()
                } else {
                    bf16::from_f32(random.unit()).to_f32()
                }
            })
            .collect()
    }

    fn check_dense(
        &self,
        random: &mut Random,
        source: &Source,
        rows: usize,
        split: bool,
        name: &str,
    ) {
        let Shape {
            rows: out, width, ..
        } = source.shape;
        let x = Self::input(random, rows * width, split);
        let matrix = source.matrix(&self.client);
        let wrong = source.wrong(&self.client, &matrix);
        if wrong > 0 {
            println!(
                "{} unpack {name} {out}x{width}: {wrong} values",
                verdict(false)
            );
        }
        let columns = matrix.tiling.columns();
        let a = self.activations(&x, rows, (columns, ColumnOrder::Natural), split);
        let x_rows = x.clone();
        let x: Vec<f64> = x.into_iter().map(f64::from).collect();
        let mut want = Vec::new();
        for row in 0..rows {
            want.extend((0..out).map(|r| dot(source, r, &x[row * width..(row + 1) * width])));
        }
        let report = |what: &str, y: &Buffer| {
            let got = self.read::<f32>(y);
            let bound =
                2.0 * width as f64 * 2_f64.powi(-24) + if split { 2_f64.powi(-16) } else { 0.0 };
            let worst = got
                .iter()
                .zip(&want)
                .map(|(got, (want, size))| (f64::from(*got) - want).abs() / size.max(1e-30) / bound)
                .fold(
                    0.0,
                    |a: f64, b| if b.is_nan() { f64::INFINITY } else { a.max(b) },
                );
            let verdict = verdict(worst <= 1.0);
            println!(
                "{verdict} {what:8} {name} split {split} rows {rows} {out}x{width}: {worst:.3} of the bound"
            );
        };
        if rows * a.halves() <= few::FEW {
            let y = self.poisoned(rows * out);
            few::few(&self.client, &in_tiles(&matrix), (&a, rows), &y);
            report("few", &y);
        }
        let y = self.poisoned(rows * out);
        let weights = in_tiles(&matrix);
        many::many(&self.client, many::Product::new(&weights, &a, rows), &y);
        report("many", &y);
        if let order @ ColumnOrder::Products(_) = many::order(&self.client, &[&weights]) {
            let a = self.activations(&x_rows, rows, (columns, order), split);
            for (down, tiles, groups) in [(8, 2, 16), (8, 1, 16), (8, 1, 32), (4, 1, 2)] {
                let y = self.poisoned(rows * out);
                let blocking = Blocking {
                    down,
                    across: 1,
                    tiles,
                    groups,
                };
                let product = many::Product {
                    blocking,
                    ..many::Product::new(&weights, &a, rows)
                };
                many::many(&self.client, product, &y);
                report("group", &y);
            }
        }
    }

    fn check_experts(
        &self,
        random: &mut Random,
        coding: Coding,
        [rows, experts, top_k, hidden, width]: [usize; 5],
        split: bool,
        name: &str,
    ) {
        let up = Source::random(
            &mut || random.bits(),
            coding,
            Shape {
                matrices: experts,
                rows: 2 * width,
                width: hidden,
                gated: true,
            },
        );
        let down = Source::random(
            &mut || random.bits(),
            coding,
            Shape {
                matrices: experts,
                rows: hidden,
                width,
                gated: false,
            },
        );
        let x = Self::input(random, rows * hidden, split);
        // Expert 1 is never chosen.
        let ids: Vec<u32> = (0..rows * top_k)
            .map(|i| {
                let id = (i as u32 * 5 + i as u32 / top_k as u32) % (experts as u32 - 1);
                if id >= 1 { id + 1 } else { 0 }
            })
            .collect();
        let weights: Vec<f32> = (0..rows * top_k)
            .map(|_| random.unit() * 0.5 + 0.6)
            .collect();
        let (up_matrix, down_matrix) = (up.matrix(&self.client), down.matrix(&self.client));
        let columns = up_matrix.tiling.columns();
        let a = self.activations(&x, rows, (columns, ColumnOrder::Natural), split);
        let x_rows = x.clone();
        let (ids_buffer, weights_buffer) = (self.upload(&ids), self.upload(&weights));
        let stride = down_matrix.tiling.columns();
        let h_count = rows * top_k * stride * if split { 2 } else { 1 };
        let x: Vec<f64> = x.into_iter().map(f64::from).collect();
        let mut want = vec![0.0; rows * hidden];
        let mut size = vec![0.0; rows * hidden];
        for choice in 0..rows * top_k {
            let (row, expert) = (choice / top_k, ids[choice] as usize);
            let x = &x[row * hidden..(row + 1) * hidden];
            let h: Vec<f64> = (0..width)
                .map(|i| {
                    let gate = dot(&up, expert * 2 * width + i, x).0;
                    let value = gate / (1.0 + (-gate).exp())
                        * dot(&up, expert * 2 * width + width + i, x).0;
                    if split {
                        value
                    } else {
                        f64::from(bf16::from_f64(value).to_f32())
                    }
                })
                .collect();
            for i in 0..hidden {
                let (sum, magnitude) = dot(&down, expert * hidden + i, &h);
                want[row * hidden + i] += sum * f64::from(weights[choice]);
                size[row * hidden + i] += magnitude * f64::from(weights[choice]);
            }
        }
        let report = |what: &str, y: &Buffer| {
            let got = self.read::<f32>(y);
            // A value next to a rounding boundary of bf16 may fall to the other side.
            let bound = if split { 3e-4 } else { 2_f64.powi(-8) };
            let worst = got
                .iter()
                .zip(want.iter().zip(&size))
                .map(|(got, (want, size))| (f64::from(*got) - want).abs() / size.max(1e-30) / bound)
                .fold(
                    0.0,
                    |a: f64, b| if b.is_nan() { f64::INFINITY } else { a.max(b) },
                );
            let verdict = verdict(worst <= 1.0);
            println!(
                "{verdict} {what:8} {name} split {split} rows {rows} {experts}/{top_k} {hidden}x{width}: {worst:.3} of the bound"
            );
        };
        let h = Activations::new(self.upload(&vec![bf16::ZERO; h_count]), split);
        few::gate_up(
            &self.client,
            &in_tiles(&up_matrix),
            &a,
            (&ids_buffer, top_k),
            (&h.buffer, stride),
        );
        let y = self.poisoned(rows * hidden);
        few::down(
            &self.client,
            &in_tiles(&down_matrix),
            &h,
            ([&ids_buffer, &weights_buffer], top_k),
            &y,
        );
        report("listed", &y);
        let [up_matrix, down_matrix] = [&up_matrix, &down_matrix].map(in_tiles);
        let both = [&up_matrix, &down_matrix];
        let native = many::order(&self.client, &both);
        let orders = [ColumnOrder::Natural, native];
        for order in &orders[..if native == ColumnOrder::Natural { 1 } else { 2 }] {
            let order = *order;
            let a = self.activations(&x_rows, rows, (columns, order), split);
            let plan = Plan::new(&self.client, (&ids_buffer, top_k), experts, (split, order));
            let h = Activations {
                order,
                ..Activations::new(self.upload(&vec![bf16::ZERO; h_count]), split)
            };
            many::gate_up(&self.client, &up_matrix, &a, &plan, (&h.buffer, stride));
            let parts = self.poisoned(rows * top_k * hidden);
            many::down(
                &self.client,
                &down_matrix,
                &h,
                (&plan, &weights_buffer),
                &parts,
            );
            let y = self.poisoned(rows * hidden);
            many::sum_slots(
                &self.client,
                (&parts, top_k),
                Added::default(),
                (&y, hidden),
            );
            report(
                if order == ColumnOrder::Natural {
                    "grouped"
                } else {
                    "group"
                },
                &y,
            );
        }
    }

    /// Microseconds of a launch in a captured graph of `count` launches; the median of five.
    fn graph(&self, count: usize, launch: impl Fn(usize)) -> f64 {
        let sync = self.upload(&[0_u32; 4]);
        self.client.graph_prepare().expect("graphs are supported");
        (0..count).for_each(&launch);
        let _: Vec<u32> = self.read(&sync);
        self.client.start_capture().expect("capture starts");
        (0..count).for_each(&launch);
        let graph = self.client.stop_capture().expect("capture ends");
        let replay = || {
            #[expect(unsafe_code, reason = "the buffers outlive the graph")]
            // SAFETY: all buffers of the launches are alive.
            let done = unsafe { graph.replay() };
            done.expect("the graph runs");
        };
        replay();
        let _: Vec<u32> = self.read(&sync);
        let mut times: Vec<f64> = (0..5)
            .map(|_| {
                let start = Instant::now();
                (0..4).for_each(|_| replay());
                let _: Vec<u32> = self.read(&sync);
                start.elapsed().as_secs_f64() * 1e6 / (count * 4) as f64
            })
            .collect();
        times.sort_by(f64::total_cmp);
        times[2]
    }
}

const CODE_WORDS: usize = 1 << 28; // 1 GiB
const SCALE_WORDS: usize = 1 << 25;
const EXPERTS: usize = 128;
const TOP_K: usize = 8;

/// Random bytes to cut matrices from.
struct Pool<'a> {
    bench: &'a Bench,
    codes: Buffer,
    scales: Buffer,
    gains: Buffer,
    x: Buffer,
    y: Buffer,
}

impl<'a> Pool<'a> {
    #[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
    fn new(bench: &'a Bench) -> Self {
        let codes = bench.room::<u32>(CODE_WORDS);
        let scales = bench.room::<u32>(SCALE_WORDS);
        for (buffer, kind) in [(&codes, 0), (&scales, 1)] {
            // SAFETY: units beyond the buffer return.
            unsafe {
                fill::launch_unchecked(
                    &bench.client,
                    CubeCount::Static(32768, buffer.len().div_ceil(32768 * 256) as u32, 1),
                    CubeDim::new_1d(256),
                    arg(buffer, 1),
                    7,
                    kind,
                );
            }
        }
        let mut random = Random(3);
        let x: Vec<bf16> = (0..4096 * 4096)
            .map(|_| bf16::from_f32(random.unit()))
            .collect();
        Self {
            codes,
            scales,
            gains: bench.upload(&vec![0.01_f32; 200_000 * 2]),
            x: bench.upload(&x),
            y: bench.room::<bf16>(4096 * 8192),
            bench,
        }
    }

    /// Matrix number `index` of those of a coding that fit in the pool.
    fn matrix(
        &self,
        coding: Coding,
        index: usize,
        [matrices, rows, width]: [usize; 3],
        gated: bool,
    ) -> Matrix {
        let tiling = Tiling::new(
            coding,
            Shape {
                matrices,
                rows,
                width,
                gated,
            },
        );
        let (codes, scales) = (tiling.code_words(matrices), tiling.scale_words(matrices));
        let count = CODE_WORDS / codes;
        let at = index % count;
        Matrix {
            codes: self.codes.part(at * codes, codes),
            scales: self.scales.part(at * scales, scales),
            gains: self.gains.clone(),
            tiling,
            rows,
        }
    }

    #[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
    fn read_time(&self, bytes: usize) -> f64 {
        let count = (CODE_WORDS * 4 / bytes).clamp(4, 200);
        let sink = self.bench.upload(&[0_u32; 4]);
        let grid = bytes / (16 * 4 * 256);
        self.bench.graph(count, |i| {
            let part = self
                .codes
                .part(i % (CODE_WORDS * 4 / bytes) * (bytes / 4), bytes / 4);
            // SAFETY: the grid covers the part.
            unsafe {
                read_only::launch_unchecked(
                    &self.bench.client,
                    CubeCount::Static(grid as u32, 1, 1),
                    CubeDim::new_1d(256),
                    arg(&part, 4),
                    arg(&sink, 1),
                );
            }
        })
    }

    fn read_only(&self) {
        for bytes in [
            1 << 30,
            175_177_728,
            14_155_776,
            7_077_888,
            5_898_240,
            4_718_592,
        ] {
            let us = self.read_time(bytes);
            println!(
                "read only {:9.1} KB: {us:8.2} us {:6.0} GB/s",
                bytes as f64 / 1024.0,
                bytes as f64 / us / 1e3
            );
        }
    }

    fn row(&self, what: &str, us: f64, bytes: usize) {
        let read = self.read_time(bytes / 16384 * 16384);
        println!(
            "{what:36} {us:8.2} us {:6.0} GB/s  read-only {read:7.2} us: {:5.1} %",
            bytes as f64 / us / 1e3,
            read / us * 100.0
        );
    }
}

/// Matrices of a coding.
struct Cut<'a> {
    pool: &'a Pool<'a>,
    coding: Coding,
    name: &'static str,
}

impl Cut<'_> {
    fn matrix(
        &self,
        index: usize,
        matrices: usize,
        rows: usize,
        width: usize,
        gated: bool,
    ) -> Matrix {
        self.pool
            .matrix(self.coding, index, [matrices, rows, width], gated)
    }

    /// Bytes of so many values.
    fn bytes(&self, values: usize) -> usize {
        let scales = match self.coding.scaling {
            Scaling::None => 0,
            Scaling::F32 => values / self.coding.block * 4,
            _ => values / self.coding.block,
        };
        values / if self.coding.bytes { 1 } else { 2 } + scales
    }

    fn gemv(&self) {
        for (name, rows, width) in [
            ("qkv 5120x2048", 5120, 2048),
            ("o_proj 2048x4096", 2048, 4096),
            ("head 152064x2048", 152_064, 2048),
            ("talker qkv 3072x1024", 3072, 1024),
        ] {
            let bytes = self.bytes(rows * width);
            let count = (CODE_WORDS * 4 / bytes).clamp(6, 200);
            let a = Activations::new(self.pool.x.clone(), false);
            for tokens in [1, 2, 4, 8, 16] {
                let us = self.pool.bench.graph(count, |i| {
                    few::few(
                        &self.pool.bench.client,
                        &in_tiles(&self.matrix(i, 1, rows, width, false)),
                        (&a, tokens),
                        &self.pool.y,
                    )
                });
                self.pool
                    .row(&format!("{} {name} rows {tokens}", self.name), us, bytes);
            }
        }
    }

    fn experts(&self) {
        let a = Activations::new(self.pool.x.clone(), false);
        for tokens in [1, 2, 4, 8] {
            let ids: Vec<Buffer> = (0..16)
                .map(|set| {
                    self.pool.bench.upload(
                        &(0..tokens * TOP_K)
                            .map(|i| {
                                ((set + 16 * ((i * 5 + set) % TOP_K) + i / TOP_K * 37) % EXPERTS)
                                    as u32
                            })
                            .collect::<Vec<_>>(),
                    )
                })
                .collect();
            let weights = self.pool.bench.upload(&vec![0.125_f32; tokens * TOP_K]);
            let bytes = self.bytes(tokens * TOP_K * 1536 * 2048);
            let us = self.pool.bench.graph(80, |i| {
                few::gate_up(
                    &self.pool.bench.client,
                    &in_tiles(&self.matrix(i, EXPERTS, 1536, 2048, true)),
                    &a,
                    (&ids[i / 5 % 16], TOP_K),
                    (&self.pool.y, 768),
                );
            });
            self.pool.row(
                &format!("{} experts gate_up rows {tokens}", self.name),
                us,
                bytes,
            );
            let us = self.pool.bench.graph(160, |i| {
                few::down(
                    &self.pool.bench.client,
                    &in_tiles(&self.matrix(i, EXPERTS, 2048, 768, false)),
                    &a,
                    ([&ids[i / 10 % 16], &weights], TOP_K),
                    &self.pool.y,
                );
            });
            self.pool.row(
                &format!("{} experts down rows {tokens}", self.name),
                us,
                bytes / 2,
            );
        }
    }

    /// A launch of each kernel, for a profiler.
    fn profile(&self) {
        let client = &self.pool.bench.client;
        let a = Activations::new(self.pool.x.clone(), false);
        let ids: Vec<u32> = (0..TOP_K as u32).map(|i| i * 11 + 3).collect();
        let ids = self.pool.bench.upload(&ids);
        let weights = self.pool.bench.upload(&[0.125_f32; TOP_K]);
        for i in 0..3 {
            let matrix = |[rows, width]: [usize; 2]| self.matrix(i, 1, rows, width, false);
            for shape in [[5120, 2048], [2048, 4096], [152_064, 2048]] {
                few::few(client, &in_tiles(&matrix(shape)), (&a, 1), &self.pool.y);
            }
            let up = self.matrix(i, EXPERTS, 1536, 2048, true);
            few::gate_up(
                client,
                &in_tiles(&up),
                &a,
                (&ids, TOP_K),
                (&self.pool.y, 768),
            );
            let down = self.matrix(i, EXPERTS, 2048, 768, false);
            few::down(
                client,
                &in_tiles(&down),
                &a,
                ([&ids, &weights], TOP_K),
                &self.pool.y,
            );
            let weights = in_tiles(&matrix([5120, 2048]));
            many::many(client, many::Product::new(&weights, &a, 4096), &self.pool.y);
        }
        let _: Vec<bf16> = self.pool.bench.read(&self.pool.y.part(0, 8));
    }

    fn gemm(&self) {
        let client = &self.pool.bench.client;
        let a = Activations::new(self.pool.x.clone(), false);
        let grouped = {
            let weights = in_tiles(&self.matrix(0, 1, 5120, 2048, false));
            many::order(client, &[&weights])
        };
        for tokens in [128, 512, 4096] {
            for (name, rows, width) in [
                ("qkv 5120x2048", 5120, 2048),
                ("o_proj 2048x4096", 2048, 4096),
            ] {
                for (order, down, tiles, groups) in [
                    (ColumnOrder::Natural, 4, 2, 16),
                    (ColumnOrder::Natural, 4, 1, 8),
                    (grouped, 8, 1, 16),
                    (grouped, 4, 1, 16),
                ] {
                    let blocking = Blocking {
                        down,
                        across: 1,
                        tiles,
                        groups,
                    };
                    let a = Activations { order, ..a.clone() };
                    let us = self.pool.bench.graph(8, |i| {
                        let weights = in_tiles(&self.matrix(i, 1, rows, width, false));
                        let product = many::Product {
                            blocking,
                            ..many::Product::new(&weights, &a, tokens)
                        };
                        many::many(client, product, &self.pool.y);
                    });
                    println!(
                        "{} {name} rows {tokens} {order:?} {down} {tiles} {groups}: {us:9.1} us {:6.1} TFLOP/s",
                        self.name,
                        2.0 * (tokens * rows * width) as f64 / us / 1e6
                    );
                }
            }
            let ids: Vec<u32> = (0..tokens * TOP_K)
                .map(|i| ((i * 37 + i / TOP_K * 11) % EXPERTS) as u32)
                .collect();
            let ids = self.pool.bench.upload(&ids);
            let weights = self.pool.bench.upload(&vec![0.125_f32; tokens * TOP_K]);
            let us = self.pool.bench.graph(8, |_| {
                drop(Plan::new(
                    client,
                    (&ids, TOP_K),
                    EXPERTS,
                    (false, ColumnOrder::Natural),
                ))
            });
            println!("plan rows {tokens}: {us:9.1} us");
            let parts = self.pool.bench.room::<bf16>(tokens * TOP_K * 2048);
            for order in [ColumnOrder::Natural, grouped] {
                let a = Activations { order, ..a.clone() };
                let plan = Plan::new(client, (&ids, TOP_K), EXPERTS, (false, order));
                let h = self.pool.bench.room::<bf16>(tokens * TOP_K * 768);
                let us = self.pool.bench.graph(8, |i| {
                    many::gate_up(
                        client,
                        &in_tiles(&self.matrix(i, EXPERTS, 1536, 2048, true)),
                        &a,
                        &plan,
                        (&h, 768),
                    )
                });
                println!(
                    "{} grouped gate_up {order:?} rows {tokens}: {us:9.1} us {:6.1} TFLOP/s",
                    self.name,
                    2.0 * (tokens * TOP_K * 1536 * 2048) as f64 / us / 1e6
                );
                let h = Activations {
                    order,
                    ..Activations::new(h, false)
                };
                let us = self.pool.bench.graph(8, |i| {
                    many::down(
                        client,
                        &in_tiles(&self.matrix(i, EXPERTS, 2048, 768, false)),
                        &h,
                        (&plan, &weights),
                        &parts,
                    )
                });
                println!(
                    "{} grouped down {order:?} rows {tokens}: {us:9.1} us {:6.1} TFLOP/s",
                    self.name,
                    2.0 * (tokens * TOP_K * 768 * 2048) as f64 / us / 1e6
                );
            }
            let us = self.pool.bench.graph(8, |_| {
                many::sum_slots(
                    client,
                    (&parts, TOP_K),
                    Added::default(),
                    (&self.pool.y.part(0, tokens * 2048), 2048),
                )
            });
            println!("sum of slots rows {tokens}: {us:9.1} us");
        }
    }
}

fn in_tiles(matrix: &Matrix) -> Weights {
    Weights::Tiles(matrix.clone())
}

#[expect(unsafe_code, reason = "the length is the buffer's")]
fn arg(buffer: &Buffer, size: usize) -> BufferArg {
    // SAFETY: the buffer has this length.
    unsafe { BufferArg::from_raw_parts(buffer.handle.clone(), buffer.len() / size) }
}

/// Reads everything, four loads of 16 bytes a unit, and writes next to never.
#[cube(launch_unchecked)]
fn read_only(w: &[Vector<u32, Const<4>>], y: &mut [u32]) {
    let base = CUBE_POS_X as usize * CUBE_DIM_X as usize * 4 + UNIT_POS_X as usize;
    let mut v = Array::<Vector<u32, Const<4>>>::new(4usize);
    #[unroll]
    for i in 0..4usize {
        v[i] = w[base + i * CUBE_DIM_X as usize];
    }
    let mut s = 0u32;
    #[unroll]
    for i in 0..4usize {
        s = s
            ^ v[i].extract(0usize)
            ^ v[i].extract(1usize)
            ^ v[i].extract(2usize)
            ^ v[i].extract(3usize);
    }
    if s == 0x12345678u32 {
        y[0] = s;
    }
}

/// Random words; of kind 1, four scale bytes each.
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
        }
        y[i] = h;
    }
}
