//! Attention of prompts on matrix units: right, and how fast at the size of Qwen3-Omni's thinker.
//!
//! `check` compares small prompts with the same in f64 on the host. `speed` takes prompts without what came before, with
//! keys and values in f32 and in bf16, in several blockings, and by the kernel without matrix units; operations are those
//! of keys that rows see. `cargo bench -p burn-omni-kernels --features cuda --bench attention -- check speed`

#![allow(clippy::print_stdout, reason = "a program that checks and prints")]

use std::ops::Range;
use std::time::Instant;

use burn_omni_kernels::attention::matrix::{self, Blocking};
use burn_omni_kernels::attention::without_matrix_units;
use burn_omni_kernels::matrix_units::Instructions;
use burn_omni_kernels::{Attention, Buffer, Heads, Seen, attention};
use cubecl::prelude::*;
use half::bf16;

/// Largest error as a share of the largest value: that of weights rounded to bf16, of which outputs are means, and that of
/// an output rounded to bf16.
const TOLERANCES: [f64; 2] = [1.0 / 512.0 + 1e-5, 1.0 / 256.0];

const BLOCKINGS: [Blocking; 6] = [
    blocking(8, 1, 64, true),
    blocking(4, 1, 64, true),
    blocking(8, 1, 32, true),
    blocking(4, 2, 64, false),
    blocking(4, 2, 32, false),
    blocking(8, 2, 32, false),
];

const fn blocking(planes: usize, tiles: usize, keys: usize, held: bool) -> Blocking {
    Blocking {
        planes,
        tiles,
        keys,
        held,
    }
}

fn main() {
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with("--"))
        .collect();
    let on = |name: &str| chosen.is_empty() || chosen.iter().any(|c| c == name);
    let client = cubecl::Device::Cuda(Default::default()).client();
    if on("check") {
        check(&client);
    }
    if on("speed") {
        speed(&client, 512, [32, 4, 128]);
        speed(&client, 4096, [32, 4, 128]);
        speed(&client, 2048, [20, 20, 64]);
        speed(&client, 2048, [16, 16, 72]);
    }
}

struct Random(u64);

impl Random {
    /// Numbers in [-1, 1), as bf16 has them.
    fn numbers(&mut self, count: usize) -> Vec<f32> {
        let mut number = || {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let number = (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0;
            bf16::from_f32(number).to_f32()
        };
        (0..count).map(|_| number()).collect()
    }
}

/// Rows of heads with their numbers, in f32 or in bf16, which the numbers are in both.
struct Known {
    heads: Heads,
    numbers: Vec<f32>,
}

impl Known {
    /// Rows from `end` on are not numbers.
    fn new(
        client: &Client,
        random: &mut Random,
        [rows, heads, width]: [usize; 3],
        end: usize,
        is_bf16: bool,
    ) -> Self {
        let mut numbers = random.numbers(rows * heads * width);
        numbers[end * heads * width..].fill(f32::NAN);
        let buffer = if is_bf16 {
            let rounded: Vec<bf16> = numbers.iter().copied().map(bf16::from_f32).collect();
            Buffer::of(client, &rounded)
        } else {
            Buffer::of(client, &numbers)
        };
        let heads = Heads {
            buffer,
            rows,
            heads,
            width,
            strides: [heads * width, width],
        };
        Self { heads, numbers }
    }

    fn head(&self, row: usize, head: usize) -> &[f32] {
        let Heads { heads, width, .. } = self.heads;
        &self.numbers[(row * heads + head) * width..][..width]
    }
}

fn read(client: &Client, buffer: &Buffer) -> Vec<f32> {
    let bytes = client
        .read_one(buffer.handle.clone())
        .expect("the launches before this read succeeded");
    if buffer.elem == f32::elem_type_native() {
        f32::from_bytes(&bytes)[..buffer.len()].to_vec()
    } else {
        let rounded = &bf16::from_bytes(&bytes)[..buffer.len()];
        rounded.iter().map(|number| number.to_f32()).collect()
    }
}

/// What small prompts give, in every blocking and in the one that is chosen.
fn check(client: &Client) {
    let mut random = Random(1);
    let segments: Vec<[u32; 2]> = (0..300)
        .map(|row| match row {
            0..20 => [0, 20],
            20..23 | 141 | 299 => [row, row],
            23..190 => [20, 190],
            _ => [190, 300],
        })
        .collect();
    let causal = |first, window| Seen::Causal { first, window };
    for ([rows, keys, heads, kv_heads, width], seen) in [
        ([300, 306, 16, 2, 128], causal(0, 1000)),
        ([133, 700, 8, 8, 128], causal(561, 10_000)),
        ([200, 300, 8, 2, 64], causal(90, 130)),
        ([129, 129, 1, 1, 80], causal(0, 129)),
        ([300, 300, 4, 4, 72], Seen::Ranges(&segments)),
        ([300, 300, 4, 1, 80], Seen::Ranges(&segments)),
        ([300, 300, 2, 2, 64], Seen::Ranges(&segments)),
    ] {
        for types in [[false, false], [false, true], [true, true]] {
            let end = match seen {
                Seen::Causal { first, .. } => first + rows,
                Seen::Ranges(_) => keys,
            };
            let q = Known::new(client, &mut random, [rows, heads, width], rows, types[0]);
            let [k, v] = [(); 2]
                .map(|()| Known::new(client, &mut random, [keys, kv_heads, width], end, types[1]));
            let attended = Attention {
                q: &q.heads,
                k: &k.heads,
                v: &v.heads,
                scale: 0.4,
                seen,
            };
            let expected = expected([&q, &k, &v], seen, 0.4);
            let name = format!("{rows} x {heads} x {width} by {kv_heads}, bf16 {types:?}");
            let judge = |how: String, y: &Buffer| {
                let found = read(client, y);
                let differences = found.iter().zip(&expected).map(|(a, b)| f64::from(*a) - b);
                let worst = differences.fold(0.0, |worst: f64, difference| {
                    let size = difference.abs();
                    if size.is_finite() {
                        worst.max(size)
                    } else {
                        f64::INFINITY
                    }
                });
                let is_right =
                    worst <= TOLERANCES[usize::from(types[0])] && found.len() == expected.len();
                let verdict = if is_right { "pass" } else { "FAIL" };
                println!("{verdict} {name}, {how}: {worst:.2e}");
            };
            for blocking in BLOCKINGS {
                drop(Buffer::of(client, &vec![f32::NAN; expected.len()]));
                let y = matrix::launch(client, &attended, blocking, Instructions::Native);
                judge(format!("{blocking:?}"), &y);
            }
            judge("chosen".to_owned(), &attention(client, attended));
        }
    }
}

/// Attention in f64.
fn expected([q, k, v]: [&Known; 3], seen: Seen<'_>, scale: f32) -> Vec<f64> {
    let Heads {
        rows, heads, width, ..
    } = q.heads;
    let group = heads / k.heads.heads;
    let mut all = Vec::with_capacity(rows * heads * width);
    for row in 0..rows {
        let keys: Range<usize> = match seen {
            Seen::Causal { first, window } => {
                let end = first + row + 1;
                end.saturating_sub(window)..end
            }
            Seen::Ranges(ranges) => ranges[row][0] as usize..ranges[row][1] as usize,
        };
        for head in 0..heads {
            let score = |key| {
                let products = q.head(row, head).iter().zip(k.head(key, head / group));
                products
                    .map(|(a, b)| f64::from(*a) * f64::from(*b))
                    .sum::<f64>()
                    * f64::from(scale)
            };
            let scores: Vec<f64> = keys.clone().map(score).collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            let mut sums = vec![0.0; width];
            for (key, weight) in keys.clone().zip(&weights) {
                for (sum, value) in sums.iter_mut().zip(v.head(key, head / group)) {
                    *sum += weight / total * f64::from(*value);
                }
            }
            all.extend(sums);
        }
    }
    all
}

/// A causal prompt.
fn speed(client: &Client, rows: usize, [heads, kv_heads, width]: [usize; 3]) {
    let mut random = Random(2);
    let q = Known::new(client, &mut random, [rows, heads, width], rows, false);
    for is_bf16 in [true, false] {
        let [k, v] = [(); 2]
            .map(|()| Known::new(client, &mut random, [rows, kv_heads, width], rows, is_bf16));
        let attended = Attention {
            q: &q.heads,
            k: &k.heads,
            v: &v.heads,
            scale: 0.088,
            seen: Seen::Causal {
                first: 0,
                window: rows,
            },
        };
        let pairs = (rows * (rows + 1) / 2 * heads) as f64;
        let report = |how: &str, count: usize, launch: &dyn Fn() -> Buffer| {
            let time = time(client, count, launch);
            let rate = pairs * (4 * width) as f64 / time / 1e12;
            println!(
                "{rows} x {heads} x {width}, keys in bf16: {is_bf16}, {how}: {:.1} us, {rate:.1} TFLOP/s",
                time * 1e6
            );
        };
        for blocking in BLOCKINGS {
            report(&format!("{blocking:?}"), 50, &|| {
                matrix::launch(client, &attended, blocking, Instructions::Native)
            });
        }
        report("chosen", 50, &|| attention(client, attended));
        report("without matrix units", 2, &|| {
            without_matrix_units(client, &attended)
        });
    }
}

/// The median of the seconds that a launch takes, `count` of them in a row.
fn time(client: &Client, count: usize, launch: &dyn Fn() -> Buffer) -> f64 {
    let wait = Buffer::numbers(client, &[0; 4]);
    let done = || {
        let bytes = client.read_one(wait.handle.clone());
        bytes.expect("the launches before this read succeeded");
    };
    drop(launch());
    done();
    let mut times: Vec<f64> = (0..5)
        .map(|_| {
            let start = Instant::now();
            (0..count).for_each(|_| drop(launch()));
            done();
            start.elapsed().as_secs_f64() / count as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[2]
}
