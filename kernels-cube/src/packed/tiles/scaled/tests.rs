//! No device with these instructions is needed: what kernels compute with integers runs on the host as it is, and the
//! instruction is emulated as the PTX ISA describes it.

use super::order::{
    CHUNK, STEP, activation_word, chunks, code_pair, scale_byte, scale_thread, scale_vector,
};
use super::recode::{column, gather, lower, narrow, upper};
use super::{capability, encode, has_products};
use crate::e4m3::magnitude_of;
use crate::packed::Scaling;
use crate::packed::tiles::decode::{MASK, columns, values0, values1, values2, values3};
use crate::packed::tiles::{ROWS, Scaled, Tiling};

const E2M1: [f64; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

fn e2m1(code: u32) -> f64 {
    let magnitude = E2M1[(code & 7) as usize];
    if code & 8 == 0 { magnitude } else { -magnitude }
}

fn e4m3(byte: u32) -> f64 {
    let mantissa = f64::from(byte & 7);
    match byte >> 3 {
        0 => mantissa / 512.0,
        exponent => (8.0 + mantissa) / 8.0 * 2_f64.powi(exponent as i32 - 7),
    }
}

fn e8m0(byte: u32) -> f64 {
    2_f64.powi(byte as i32 - 127)
}

/// Numbers from a fixed stream.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }
}

#[test]
fn geforce_and_gb10_alone_have_the_products() {
    let having: Vec<u32> = (0..200).filter(|number| has_products(*number)).collect();
    assert_eq!(having, [120, 121]);
    assert_eq!(capability("ptx_sm120"), Some(120));
    assert_eq!(capability("ptx_sm90"), Some(90));
    for other in ["", "ptx_sm", "sm_120", "Vulkan", "ptx_sm12x"] {
        assert_eq!(capability(other), None, "{other}");
    }
}

/// A stored word of these codes: of row `g` and of row `g + 8`, four columns each.
fn stored(codes: [[u32; 4]; 2]) -> u32 {
    let table = columns(false);
    let mut word = 0;
    for (row, four) in codes.iter().enumerate() {
        for (k, code) in four.iter().enumerate() {
            let place = (k / 2 * 2 + row) * 2 + k % 2;
            for (bit, turned) in table[place * 4..][..4].iter().enumerate() {
                word ^= (code >> bit & 1) * turned;
            }
        }
    }
    word
}

#[test]
fn every_code_at_every_place_comes_back() {
    let mut random = Random(1);
    for place in 0..16 {
        for code in 0..16 {
            let mut codes = [[0; 8]; 2];
            codes.as_flattened_mut().fill_with(|| random.bits() & 15);
            codes[place / 8][place % 8] = code;
            let half = |from: usize| codes.map(|row| [0, 1, 2, 3].map(|k| row[from + k]));
            let (first, second) = (stored(half(0)), stored(half(4)));
            for (row, word) in [upper(first, second), lower(first, second)]
                .into_iter()
                .enumerate()
            {
                for (nibble, column) in (0..8).map(column).enumerate() {
                    assert_eq!(word >> (4 * nibble) & 15, codes[row][column]);
                }
            }
        }
    }
}

#[test]
fn recoded_words_are_what_the_dequantizing_product_multiplies() {
    let mut random = Random(2);
    // The e2m1 bits of a bf16 of `decode`: its sign and the bits of its mantissa's first and exponent's last two.
    let code = |pair: u32, high: u32| {
        let bits = pair >> (16 * high);
        bits >> 6 & 7 | bits >> 12 & 8
    };
    for _ in 0..100_000 {
        let words = [random.bits(), random.bits()];
        let recoded = [upper(words[0], words[1]), lower(words[0], words[1])];
        for (nibble, column) in (0..8).map(column).enumerate() {
            let word = words[column / 4];
            let pairs = match column % 4 {
                0 | 1 => [values0(word, MASK), values1(word, MASK)],
                _ => [values2(word, MASK), values3(word, MASK)],
            };
            for (recoded, pair) in recoded.into_iter().zip(pairs) {
                let expected = code(pair, column as u32 % 2);
                assert_eq!(recoded >> (4 * nibble) & 15, expected);
            }
        }
    }
}

/// What tiles store for an E4M3 byte: its value with five exponent bits.
fn widened(byte: u32) -> u32 {
    (0..=255)
        .find(|wide| match wide >> 3 {
            0 => *wide == 0 && byte == 0,
            exponent => {
                let mantissa = f64::from(wide & 7);
                (8.0 + mantissa) / 8.0 * 2_f64.powi(exponent - 10) == e4m3(byte)
            }
        })
        .expect("five exponent bits hold every value") as u32
}

#[test]
fn every_scale_byte_comes_back() {
    // NaN is not stored.
    for byte in 0..0x7F {
        for place in 0..4 {
            for others in [0, 1, 7, 8, 0x38, 0x7E] {
                let bytes: [u32; 4] =
                    std::array::from_fn(|at| if at == place { byte } else { others });
                let word = |bytes: [u32; 4]| u32::from_le_bytes(bytes.map(|byte| byte as u8));
                assert_eq!(narrow(word(bytes.map(widened))), word(bytes), "{byte}");
            }
        }
    }
}

#[test]
fn numbers_become_the_nearest_codes() {
    let mut random = Random(3);
    let nearest = |values: &dyn Fn(u32) -> f64, count: u32, number: f64| {
        let distance = |code: u32| (values(code) - number).abs();
        (0..count)
            .min_by(|a, b| {
                let (a, b) = ((distance(*a), a & 1), (distance(*b), b & 1));
                a.partial_cmp(&b).expect("no NaN")
            })
            .expect("there are codes")
    };
    let dyadic = (0..4096_u32).map(|n| n as f32 / 512.0);
    let others = (0..20_000).map(|_| f32::from_bits(0x3000_0000 + random.bits() % 0x1420_0000));
    for number in dyadic.chain(others) {
        let wanted = nearest(&e2m1, 8, f64::from(number));
        assert_eq!(encode::code_of(number), wanted, "{number}");
        let negative = if number == 0.0 { 0 } else { 8 };
        assert_eq!(encode::code_of(-number), wanted + negative, "-{number}");
        let number = number.min(448.0);
        let wanted = nearest(&e4m3, 0x7F, f64::from(number));
        assert_eq!(magnitude_of(number), wanted, "{number}");
        if number > 0.0 {
            let byte = encode::e8m0_of(number);
            assert!(
                f64::from(number) <= 6.0 * e8m0(byte) * (1.0 + 1e-7),
                "{number}"
            );
            assert!(f64::from(number) > 6.0 * e8m0(byte - 1), "{number}");
        }
    }
    assert_eq!(encode::code_of(f32::NAN), 0);
    assert_eq!(encode::e8m0_of(f32::NAN), 255);
    assert_eq!(encode::e8m0_of(f32::INFINITY), 255);
    assert_eq!(encode::e8m0_of(0.0), 0);
}

/// What 32 lanes hand to the instruction.
#[derive(Clone, Copy, Default)]
struct Lane {
    a: [u32; 4],
    b: [u32; 2],
    a_scale: u32,
    b_scale: u32,
}

/// `mma.sync.aligned.m16n8k64…kind::mxf4nvf4.block_scale` without its addend: the 16 x 8 results. Fragments as in PTX ISA
/// 9.0, 9.7.14.5.11; scales as in 9.7.14.3: four bytes a row for blocks of 16, two for blocks of 32, of the first operand
/// from lane `2 thread` of four for the upper rows and the next for the lower, of the second from lane 0.
fn instruction(lanes: &[Lane; 32], e8m0s: bool, thread: usize) -> [[f64; 8]; 16] {
    let mut a = [[0.0; 64]; 16];
    let mut b = [[0.0; 64]; 8];
    let scale = |word: u32, column: usize| {
        if e8m0s {
            e8m0(word >> (8 * (column / 32)) & 255)
        } else {
            e4m3(word >> (8 * (column / 16)) & 127)
        }
    };
    for (number, lane) in lanes.iter().enumerate() {
        let (group, in_group) = (number / 4, number % 4);
        for i in 0..32 {
            let is_upper = i < 8 || (16..24).contains(&i);
            let row = if is_upper { group } else { group + 8 };
            let column = in_group * 8 + i % 8 + if i < 16 { 0 } else { 32 };
            let holder = lanes[group * 4 + 2 * thread + usize::from(!is_upper)];
            let code = lane.a[i / 8] >> (4 * (i % 8)) & 15;
            a[row][column] = e2m1(code) * scale(holder.a_scale, column);
        }
        for i in 0..16 {
            let column = in_group * 8 + i % 8 + if i < 8 { 0 } else { 32 };
            let holder = lanes[group * 4];
            let code = lane.b[i / 8] >> (4 * (i % 8)) & 15;
            b[group][column] = e2m1(code) * scale(holder.b_scale, column);
        }
    }
    a.map(|row| b.map(|column| row.iter().zip(column).map(|(a, b)| a * b).sum()))
}

/// A matrix of 16 rows in codes and scale bytes, as a checkpoint has it.
struct Coded {
    codes: Vec<u32>,
    scales: Vec<u32>,
    tiling: Tiling,
}

impl Coded {
    fn random(random: &mut Random, rows: usize, tiling: Tiling) -> Self {
        let columns = tiling.columns();
        let blocks = rows * columns / tiling.scaled.block;
        Self {
            codes: (0..rows * columns).map(|_| random.bits() & 15).collect(),
            scales: (0..blocks)
                .map(|_| match tiling.scaled.e8m0() {
                    true => 120 + random.bits() % 14,
                    // A block of scale 0 among others.
                    false => (random.bits() % 9).min(1) * (random.bits() % 0x7F),
                })
                .collect(),
            tiling,
        }
    }

    fn value(&self, row: usize, column: usize) -> f64 {
        let columns = self.tiling.columns();
        let scale = self.scales[(row * columns + column) / self.tiling.scaled.block];
        let scale = if self.tiling.scaled.e8m0() {
            e8m0(scale)
        } else {
            e4m3(scale)
        };
        e2m1(self.codes[row * columns + column]) * scale
    }

    /// The one tile of 16 rows: words of codes and of scales, as the header of `tiles` says.
    fn tile(&self) -> (Vec<u32>, Vec<u32>) {
        let (columns, block) = (self.tiling.columns(), self.tiling.scaled.block);
        let steps = block / 16;
        let codes = (0..columns * ROWS / 8).map(|word| {
            let (b, lane, chunk) = (word % 4, word / 4 % 32, word / 128);
            let column = (chunk / steps * 4 + lane % 4) * block + chunk % steps * 16 + b * 4;
            stored([lane / 4, lane / 4 + 8].map(|row| {
                let scale = self.scales[(row * columns + column) / block];
                let is_zero = scale == 0 && !self.tiling.scaled.e8m0();
                [0, 1, 2, 3].map(|k| {
                    let code = self.codes[row * columns + column + k];
                    if is_zero { 0 } else { code }
                })
            }))
        });
        let scales = (0..self.tiling.pairs * 32).map(|word| {
            let (lane, pair) = (word % 32, word / 32);
            let bytes = [0, 1, 2, 3].map(|byte| {
                let row = lane / 4 + byte % 2 * 8;
                let block = pair * 8 + byte / 2 * 4 + lane % 4;
                let scale = self.scales[row * columns / self.tiling.scaled.block + block];
                if self.tiling.scaled.e8m0() {
                    scale as u8
                } else {
                    widened(scale) as u8
                }
            });
            u32::from_le_bytes(bytes)
        });
        (codes.collect(), scales.collect())
    }

    /// Rows of activations as `quantize` writes them.
    fn activations(&self, rows: usize) -> (Vec<u32>, Vec<u32>) {
        let columns = self.tiling.columns();
        let mut codes = vec![0; rows * columns / 8];
        let mut scales = vec![0; rows * columns / STEP];
        let blocks = STEP / self.tiling.scaled.block;
        for row in 0..rows {
            for eight in 0..columns / 8 {
                let at = activation_word(eight / 8, eight % 8 / 4, eight % 4);
                for (nibble, column) in (0..8).map(column).enumerate() {
                    let code = self.codes[row * columns + eight * 8 + column];
                    codes[row * columns / 8 + at] |= code << (4 * nibble);
                }
            }
            for step in 0..columns / STEP {
                for block in 0..blocks {
                    let scale = self.scales[(row * columns / STEP + step) * blocks + block];
                    scales[row * columns / STEP + step] |= scale << (8 * block);
                }
            }
        }
        (codes, scales)
    }
}

/// The 16 x 8 product as the kernel forms it: what each lane loads and hands to the instruction, chunk by chunk.
fn product(weights: &Coded, x: &Coded) -> [[f64; 8]; 16] {
    let tiling = weights.tiling;
    let (codes, scales) = weights.tile();
    let (x_codes, x_scales) = x.activations(8);
    let scaled = tiling.scaled;
    assert_eq!(codes.len(), tiling.pairs * chunks(scaled) * 128 * 2);
    let mut sums = [[0.0; 8]; 16];
    for chunk in 0..tiling.columns() / CHUNK {
        for step in 0..2 {
            let mut lanes = [Lane::default(); 32];
            for (number, lane) in lanes.iter_mut().enumerate() {
                for half in 0..2 {
                    let pair = code_pair(chunk, step, half, number, scaled);
                    let [first, second] = [0, 1].map(|word| codes[pair * 2 + word]);
                    lane.a[half * 2] = upper(first, second);
                    lane.a[half * 2 + 1] = lower(first, second);
                    // Vector `chunk * 4 + t` of a row, of which step `step` has words `2 step .. + 2`.
                    let vector = (chunk * 4 + number % 4) * 4;
                    let row = number / 4 * tiling.columns() / 8;
                    lane.b[half] = x_codes[row + vector + step * 2 + half];
                }
                let vector = scale_vector(chunk, number, scaled) * 4;
                let byte = scale_byte(chunk, number, scaled) as u32;
                let word = |word: usize| scales[vector + word];
                let gathered = gather(word(0), word(1), word(2), word(3), byte);
                lane.a_scale = if tiling.scaled.e8m0() {
                    gathered >> (16 * step)
                } else {
                    narrow(gathered)
                };
                let row = number / 4 * tiling.columns() / STEP;
                lane.b_scale = x_scales[row + chunk * 2 + step];
            }
            let thread = scale_thread(step, scaled) as usize;
            let part = instruction(&lanes, tiling.scaled.e8m0(), thread);
            for (sum, part) in sums.as_flattened_mut().iter_mut().zip(part.as_flattened()) {
                *sum += part;
            }
        }
    }
    sums
}

#[test]
fn the_emulated_product_is_that_of_the_values() {
    let mut random = Random(4);
    for (block, pairs) in [(16, 1), (16, 3), (32, 1), (32, 2)] {
        let tiling = Tiling {
            scaled: Scaled {
                block,
                scaling: if block == 32 {
                    Scaling::E8m0
                } else {
                    Scaling::E4m3
                },
                bytes: false,
            },
            tiles: 1,
            pairs,
        };
        let weights = Coded::random(&mut random, 16, tiling);
        let x = Coded::random(&mut random, 8, tiling);
        let found = product(&weights, &x);
        for (row, found) in found.iter().enumerate() {
            for (column, found) in found.iter().enumerate() {
                let products =
                    (0..tiling.columns()).map(|k| weights.value(row, k) * x.value(column, k));
                // Sums of this size of such numbers are exact in f64.
                assert_eq!(*found, products.sum::<f64>(), "{tiling:?} {row} {column}");
            }
        }
    }
}
