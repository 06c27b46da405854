//! Attention on matrix units, with plain code in place of their instructions, against the same in f64 on the host.
//! `cargo test -p burn-omni-kernels --features wgpu`

mod adapter;

use burn_omni_kernels::attention::matrix::{self, Blocking};
use burn_omni_kernels::matrix_units::Instructions;
use burn_omni_kernels::packed::tiles::{ColumnOrder, Rounding, activations};
use burn_omni_kernels::{Attention, Buffer, Heads, Matrix, Seen};
use cubecl::prelude::*;
use half::bf16;

use adapter::{Random, client, e4m3, e4m3_buffer, e4m3_byte, read};

/// Largest error as a share of the largest value: that of weights rounded to bf16, of which outputs are means.
const TOLERANCE: f64 = 1.0 / 512.0;
const SCALE: f32 = 0.4;

/// How numbers are stored.
#[derive(Clone, Copy, Debug)]
enum Form {
    F32,
    Bf16,
    E4m3,
}

/// Rows of heads, and their numbers as the kernel rounds them.
struct Known {
    heads: Heads,
    numbers: Vec<f32>,
}

impl Known {
    /// Heads of rows that are `stride` numbers, from number `start` of each row on.
    fn new(
        client: &Client,
        (rows, [start, stride]): (&[f32], [usize; 2]),
        [heads, width]: [usize; 2],
        form: Form,
    ) -> Self {
        let round = |number: &f32| bf16::from_f32(*number);
        let buffer = match form {
            Form::F32 => Buffer::of(client, rows),
            Form::Bf16 => {
                let rounded: Vec<u16> = rows.iter().map(|number| round(number).to_bits()).collect();
                Buffer {
                    elem: bf16::elem_type_native(),
                    ..Buffer::of(client, &rounded)
                }
            }
            Form::E4m3 => {
                let bytes: Vec<u8> = rows.iter().map(|number| e4m3_byte(*number)).collect();
                e4m3_buffer(client, &bytes)
            }
        };
        let numbers = rows
            .chunks(stride)
            .flat_map(|row| &row[start..start + heads * width]);
        Self {
            heads: Heads {
                buffer: buffer.part(start, rows.len() - start),
                rows: rows.len() / stride,
                heads,
                width,
                strides: [stride, width],
            },
            numbers: numbers
                .map(|number| match form {
                    Form::F32 | Form::Bf16 => round(number).to_f32(),
                    Form::E4m3 => e4m3(e4m3_byte(*number)),
                })
                .collect(),
        }
    }

    fn head(&self, row: usize, head: usize) -> &[f32] {
        let Heads { heads, width, .. } = self.heads;
        &self.numbers[(row * heads + head) * width..][..width]
    }
}

/// The keys that a row sees.
fn seen_by(seen: Seen<'_>, row: usize) -> std::ops::Range<usize> {
    match seen {
        Seen::Causal { first, window } => {
            let end = first + row + 1;
            end.saturating_sub(window)..end
        }
        Seen::Ranges(ranges) => ranges[row][0] as usize..ranges[row][1] as usize,
    }
}

/// Checks what the kernel makes of queries, keys and values.
#[track_caller]
fn check(client: &Client, [q, k, v]: [&Known; 3], seen: Seen<'_>, blocking: Blocking) {
    let Heads {
        rows, heads, width, ..
    } = q.heads;
    let group = heads / k.heads.heads;
    let what = format!("{rows} x {heads} x {width} by {group}, {seen:?}, {blocking:?}");
    // What memory the output gets may hold.
    drop(Buffer::of(client, &vec![f32::NAN; rows * heads * width]));
    let attention = Attention {
        q: &q.heads,
        k: &k.heads,
        v: &v.heads,
        scale: SCALE,
        seen,
    };
    let y = matrix::launch(client, &attention, blocking, Instructions::Plain);
    let found = read(client, &y);
    assert_eq!(found.len(), rows * heads * width, "{what}");
    for (row, found) in found.chunks(heads * width).enumerate() {
        for (head, found) in found.chunks(width).enumerate() {
            let keys = seen_by(seen, row);
            let score = |key| {
                let products = q.head(row, head).iter().zip(k.head(key, head / group));
                products
                    .map(|(a, b)| f64::from(*a) * f64::from(*b))
                    .sum::<f64>()
                    * f64::from(SCALE)
            };
            let scores: Vec<f64> = keys.clone().map(score).collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            for (d, found) in found.iter().enumerate() {
                let values = keys
                    .clone()
                    .map(|key| f64::from(v.head(key, head / group)[d]));
                let sum: f64 = weights.iter().zip(values).map(|(w, v)| w * v).sum();
                let expected = if total > 0.0 { sum / total } else { 0.0 };
                assert!(
                    (f64::from(*found) - expected).abs() <= TOLERANCE,
                    "{what}: {found} instead of {expected} at row {row}, head {head}, number {d}"
                );
            }
        }
    }
}

const fn blocking(planes: usize, tiles: usize, keys: usize, held: bool) -> Blocking {
    Blocking {
        planes,
        tiles,
        keys,
        held,
    }
}

/// Heads of the next numbers, which are less than one; rows from `end` on are not numbers.
fn heads(
    client: &Client,
    random: &mut Random,
    [rows, heads, width]: [usize; 3],
    end: usize,
    form: Form,
) -> Known {
    let mut numbers: Vec<f32> = (0..rows * heads * width).map(|_| random.number()).collect();
    numbers[end * heads * width..].fill(f32::NAN);
    Known::new(client, (&numbers, [0, heads * width]), [heads, width], form)
}

#[test]
fn causal_rows_of_all_widths() {
    let Some(client) = client() else { return };
    let mut random = Random(1);
    for (width, keys) in [(64, 32), (72, 32), (80, 32), (128, 16)] {
        for (kv_heads, group, rows, first, window) in [
            (1, 8, 21, 37, 1000),
            (2, 4, 19, 0, 1000),
            (1, 1, 75, 3, 1000),
            (2, 1, 70, 90, 33),
        ] {
            for form in [Form::F32, Form::Bf16, Form::E4m3] {
                let end = first + rows;
                let q = heads(
                    &client,
                    &mut random,
                    [rows, kv_heads * group, width],
                    rows,
                    Form::F32,
                );
                let [k, v] = [(); 2]
                    .map(|()| heads(&client, &mut random, [end + 5, kv_heads, width], end, form));
                let seen = Seen::Causal { first, window };
                check(&client, [&q, &k, &v], seen, blocking(2, 1, keys, true));
            }
        }
    }
}

#[test]
fn blockings_agree() {
    let Some(client) = client() else { return };
    let mut random = Random(2);
    let q = heads(&client, &mut random, [37, 6, 64], 37, Form::F32);
    let [k, v] = [(); 2].map(|()| heads(&client, &mut random, [60, 2, 64], 57, Form::Bf16));
    let seen = Seen::Causal {
        first: 20,
        window: 45,
    };
    for blocking in [
        blocking(1, 1, 16, true),
        blocking(1, 1, 16, false),
        blocking(4, 1, 32, true),
        blocking(2, 2, 16, true),
        blocking(1, 2, 32, false),
        blocking(3, 2, 16, false),
    ] {
        check(&client, [&q, &k, &v], seen, blocking);
    }
}

#[test]
fn outputs_are_written_as_the_product_behind_them_takes_them() {
    let Some(client) = client() else { return };
    let mut random = Random(5);
    for (rows, [heads_of, kv_heads], width, rounding) in [
        (21, [8, 1], 64, Rounding::natural(true)),
        (
            37,
            [6, 2],
            128,
            Rounding {
                order: ColumnOrder::Products(16),
                split: false,
            },
        ),
        (
            19,
            [2, 2],
            128,
            Rounding {
                order: ColumnOrder::Products(32),
                split: true,
            },
        ),
    ] {
        let q = heads(
            &client,
            &mut random,
            [rows, heads_of, width],
            rows,
            Form::F32,
        );
        let [k, v] = [(); 2].map(|()| {
            heads(
                &client,
                &mut random,
                [rows, kv_heads, width],
                rows,
                Form::F32,
            )
        });
        let attention = Attention {
            q: &q.heads,
            k: &k.heads,
            v: &v.heads,
            scale: SCALE,
            seen: Seen::Causal {
                first: 0,
                window: rows,
            },
        };
        let blocking = blocking(2, 1, 16, true);
        let width = heads_of * width;
        let plain = Matrix {
            buffer: matrix::launch(&client, &attention, blocking, Instructions::Plain),
            rows,
            width,
            stride: width,
        };
        // In f32, which takes numbers as they are and leaves nothing for the second halves.
        let [found, expected] = [(); 2]
            .map(|()| Buffer::of(&client, &vec![f32::NAN; rows * rounding.halves() * width]));
        let Rounding { order, split } = rounding;
        activations::round_into(&client, &plain, &expected, (width, order), split);
        let output = (&found, Some(rounding));
        matrix::launch_into(&client, &attention, output, blocking, Instructions::Plain);
        assert_eq!(
            read(&client, &found),
            read(&client, &expected),
            "{rounding:?}"
        );
    }
}

#[test]
fn segments_and_rows_that_see_nothing() {
    let Some(client) = client() else { return };
    let mut random = Random(3);
    let ranges: Vec<[u32; 2]> = (0..100)
        .map(|row| match row {
            0..20 => [0, 20],
            20..23 | 41 | 99 => [row, row],
            23..90 => [20, 90],
            _ => [90, 100],
        })
        .collect();
    for (width, heads_of, kv_heads) in [(72, 2, 2), (80, 4, 1), (64, 8, 1)] {
        let q = heads(&client, &mut random, [100, heads_of, width], 100, Form::F32);
        let [k, v] =
            [(); 2].map(|()| heads(&client, &mut random, [100, kv_heads, width], 100, Form::F32));
        let seen = Seen::Ranges(&ranges);
        check(&client, [&q, &k, &v], seen, blocking(2, 1, 32, true));
    }
    let nothing = Seen::Causal {
        first: 0,
        window: 0,
    };
    let q = heads(&client, &mut random, [50, 2, 64], 50, Form::F32);
    let k = heads(&client, &mut random, [50, 1, 64], 50, Form::F32);
    check(&client, [&q, &k, &k], nothing, blocking(2, 1, 32, true));
}

#[test]
fn heads_in_rows_of_a_fused_product() {
    let Some(client) = client() else { return };
    let mut random = Random(4);
    for form in [Form::F32, Form::Bf16, Form::E4m3] {
        let (rows, kv_heads, group, width) = (67, 2, 4, 64);
        let stride = (group + 2) * kv_heads * width;
        let numbers: Vec<f32> = (0..rows * stride).map(|_| random.number()).collect();
        let part = |start, heads, form| {
            Known::new(
                &client,
                (&numbers, [start * width, stride]),
                [heads, width],
                form,
            )
        };
        let q = part(0, kv_heads * group, Form::F32);
        let k = part(kv_heads * group, kv_heads, form);
        let v = part(kv_heads * (group + 1), kv_heads, form);
        let seen = Seen::Causal {
            first: 0,
            window: rows,
        };
        check(&client, [&q, &k, &v], seen, blocking(2, 1, 32, true));
    }
}
