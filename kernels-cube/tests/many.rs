//! Products of many rows with weights of bf16 and packed ones, and what stands before them, in plain code on a software
//! adapter, against sums in f64.
//! `cargo test -p burn-omni-kernels --features wgpu --test many`

mod adapter;
mod coded;

use burn_omni_kernels::few::{Rows, Weights};
use burn_omni_kernels::many::{self, Added, Blocking, Plan, Product, sum_slots};
use burn_omni_kernels::matrix_units::Instructions;
use burn_omni_kernels::packed::tiles::{Activations, ColumnOrder, activations};
use burn_omni_kernels::packed::{Coding, Scaling, Shape};
use burn_omni_kernels::{Buffer, Matrix, Taps, snaked_into};
use cubecl::prelude::*;
use half::bf16;

use adapter::{Random, client};
use coded::{CODINGS, Source};

/// Largest difference as a share of the largest magnitude: sums are formed in f32.
const TOLERANCE: f64 = 2e-6;

fn numbers(random: &mut Random, count: usize) -> Vec<f32> {
    (0..count).map(|_| random.number()).collect()
}

/// Two numbers a word, which adapters without bf16 can hold.
fn upload(client: &Client, numbers: &[bf16]) -> Buffer {
    let words: Vec<u32> = numbers
        .chunks(2)
        .map(|two| {
            let high = two.get(1).map_or(0, |high| u32::from(high.to_bits()));
            u32::from(two[0].to_bits()) | high << 16
        })
        .collect();
    Buffer::numbers(client, &words)
}

fn poisoned(client: &Client, count: usize) -> Buffer {
    Buffer::of(client, &vec![f32::NAN; count])
}

/// Rows and what they are in f64; a split row is followed by what rounding took away.
fn activations(
    client: &Client,
    random: &mut Random,
    [rows, width]: [usize; 2],
    split: bool,
) -> (Activations, Vec<f64>) {
    let numbers = numbers(random, rows * width);
    let (stored, values) = halves(&numbers, width, split);
    let buffer = upload(client, &stored);
    (Activations::new(buffer, split), values)
}

fn halves(numbers: &[f32], width: usize, split: bool) -> (Vec<bf16>, Vec<f64>) {
    let mut stored = Vec::new();
    let mut values = Vec::new();
    for row in numbers.chunks(width) {
        let high: Vec<bf16> = row.iter().map(|x| bf16::from_f32(*x)).collect();
        let rest = row.iter().zip(&high).map(|(x, high)| x - high.to_f32());
        let low: Vec<bf16> = rest.map(bf16::from_f32).collect();
        stored.extend(&high);
        if split {
            stored.extend(&low);
        }
        values.extend(high.iter().zip(&low).map(|(high, low)| {
            f64::from(high.to_f32()) + if split { f64::from(low.to_f32()) } else { 0.0 }
        }));
    }
    (stored, values)
}

fn weights(
    client: &Client,
    random: &mut Random,
    [matrices, rows, width]: [usize; 3],
) -> (Weights, Vec<f64>) {
    let numbers: Vec<bf16> = numbers(random, matrices * rows * width)
        .into_iter()
        .map(bf16::from_f32)
        .collect();
    let weights = Weights::Rows(Rows {
        buffer: upload(client, &numbers),
        rows,
        width,
    });
    let values = numbers.iter().map(|x| f64::from(x.to_f32())).collect();
    (weights, values)
}

fn read(client: &Client, buffer: &Buffer) -> Vec<f32> {
    let bytes = client
        .read_one(buffer.handle.clone())
        .expect("the launch worked");
    f32::from_bytes(&bytes).to_vec()
}

fn assert_close(found: &[f32], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1e-3_f64, |m, x| m.max(x.abs()));
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let apart = (f64::from(*found) - expected).abs() / largest;
        assert!(
            apart <= TOLERANCE,
            "{what}: number {at} is {found}, not {expected}"
        );
    }
}

fn dot(x: &[f64], w: &[f64]) -> f64 {
    x.iter().zip(w).map(|(x, w)| x * w).sum()
}

#[test]
fn products_are_those_of_their_numbers() {
    let Some(client) = client() else { return };
    let mut random = Random(1);
    let blocking = |down, across, tiles, groups| Blocking {
        down,
        across,
        tiles,
        groups,
    };
    // Output rows, rows of the matrix, numbers of a row of x, taps, their distance; halves; bias, and rows that are added to.
    let cases = [
        ([20, 33, 64, 1, 1], true, [true, true], blocking(4, 1, 1, 2)),
        (
            [20, 33, 64, 1, 1],
            false,
            [false, true],
            blocking(2, 1, 2, 2),
        ),
        (
            [70, 130, 200, 1, 1],
            true,
            [true, false],
            blocking(2, 2, 2, 2),
        ),
        ([5, 1, 8, 1, 1], true, [false, false], blocking(1, 1, 1, 1)),
        ([33, 40, 24, 7, 3], true, [true, true], blocking(2, 1, 1, 4)),
        (
            [37, 20, 64, 1, 1],
            false,
            [false, true],
            blocking(1, 1, 1, 5),
        ),
        (
            [33, 96, 96, 7, 9],
            false,
            [true, false],
            blocking(4, 1, 2, 4),
        ),
        (
            [9, 16, 72, 2, 1],
            true,
            [false, false],
            blocking(1, 1, 2, 1),
        ),
    ];
    for ([rows, out, width, count, dilation], split, [has_bias, has_onto], blocking) in cases {
        let taps = Taps { count, dilation };
        let inputs = rows + (count - 1) * dilation;
        let (x, values) = activations(&client, &mut random, [inputs, width], split);
        let (weights, matrix) = weights(&client, &mut random, [1, out, count * width]);
        let bias = numbers(&mut random, out);
        let onto = numbers(&mut random, rows * out);
        let [bias_there, onto_there] = [&bias, &onto].map(|all| Buffer::of(&client, all));
        let y = poisoned(&client, rows * out);
        let product = Product {
            weights: &weights,
            x: &x,
            rows,
            taps,
            bias: has_bias.then_some(&bias_there),
            onto: has_onto.then_some(&onto_there),
            blocking,
            instructions: Instructions::Plain,
        };
        many::many(&client, product, &y);
        let mut expected = Vec::new();
        for (row, onto) in onto.chunks(out).enumerate() {
            let added = bias.iter().zip(onto);
            for (matrix, (bias, onto)) in matrix.chunks(count * width).zip(added) {
                let sum: f64 = (0..count)
                    .map(|tap| {
                        let from = (row + tap * dilation) * width;
                        dot(&values[from..from + width], &matrix[tap * width..][..width])
                    })
                    .sum();
                let added = [(has_bias, bias), (has_onto, onto)];
                let added = added.iter().filter(|(has, _)| *has);
                expected.push(sum + added.map(|(_, x)| f64::from(**x)).sum::<f64>());
            }
        }
        let what = format!("{rows} rows, {out}x{width}, {taps:?}, split {split}, {blocking:?}");
        assert_close(&read(&client, &y), &expected, &what);
    }
}

#[test]
fn rows_of_a_stream_are_activated_and_split() {
    let Some(client) = client() else { return };
    let mut random = Random(4);
    // Rows that were kept, new ones, numbers of a row.
    let cases = [
        ([0, 5, 24], true),
        ([3, 5, 24], true),
        ([9, 2, 7], true),
        ([4, 70, 96], false),
    ];
    for ([reach, rows, width], split) in cases {
        let alpha = numbers(&mut random, width);
        let inverse_beta = numbers(&mut random, width);
        let all = numbers(&mut random, (reach + rows) * width);
        let matrix = |rows, all: &[f32]| Matrix {
            buffer: Buffer::of(&client, all),
            rows,
            width,
            stride: width,
        };
        let kept = (reach > 0).then(|| matrix(reach, &all[..reach * width]));
        let x = matrix(rows, &all[reach * width..]);
        let snake = [&alpha, &inverse_beta].map(|all| Buffer::of(&client, all));
        let halves = if split { 2 } else { 1 };
        let found = poisoned(&client, (reach + rows) * halves * width);
        let stream = (kept.as_ref(), &x);
        let last = snaked_into(&client, stream, snake.each_ref(), &found, split);
        // Whatever takes the halves takes f32 here, which holds the first whole and leaves nothing for the second.
        let expected = all.chunks(width).flat_map(|row| {
            let parts = row.iter().zip(alpha.iter().zip(&inverse_beta));
            let high = parts.map(|(x, (alpha, inverse_beta))| {
                let [x, alpha, beta] = [x, alpha, inverse_beta].map(|x| f64::from(*x));
                x + (alpha * x).sin().powi(2) * beta
            });
            let low = std::iter::repeat_n(0.0, (halves - 1) * width);
            high.chain(low).collect::<Vec<_>>()
        });
        let expected: Vec<f64> = expected.collect();
        let what = format!("{reach} and {rows} rows of {width}");
        assert_close(&read(&client, &found), &expected, &what);
        assert_eq!(last.is_some(), reach > 0);
        if let Some(last) = last {
            assert_eq!(read(&client, &last), all[rows * width..], "{what}");
        }
    }
}

/// Random packed matrices, and their values.
fn packed(
    client: &Client,
    random: &mut Random,
    coding: Coding,
    [matrices, rows, width]: [usize; 3],
    gated: bool,
) -> (Weights, Vec<f64>) {
    let shape = Shape {
        matrices,
        rows,
        width,
        gated,
    };
    let mut bits = || ((random.number() + 1.0) * (1 << 23) as f32) as u32;
    let source = Source::random(&mut bits, coding, shape);
    let values = (0..matrices * rows)
        .flat_map(|row| (0..width).map(move |column| (row, column)))
        .map(|(row, column)| source.value(row, column))
        .collect();
    (Weights::Tiles(source.matrix(client)), values)
}

#[test]
fn packed_products_are_those_of_their_values() {
    let Some(client) = client() else { return };
    let mut random = Random(5);
    // Adapters that are programs take long to compile what is unrolled.
    let blocking = |tiles| Blocking {
        down: 1,
        across: 1,
        tiles,
        groups: 1,
    };
    for (name, coding) in CODINGS {
        for ([rows, out, width], split, has_onto, blocking) in [
            ([5, 33, 400], true, true, blocking(1)),
            ([9, 20, 272], false, false, blocking(2)),
            ([9, 20, 272], false, true, blocking(2)),
        ] {
            if blocking.tiles > 1 && coding.scaling != Scaling::F32 {
                continue;
            }
            let (weights, matrix) = packed(&client, &mut random, coding, [1, out, width], false);
            let columns = weights.width_of_many();
            let (x, values) = activations(&client, &mut random, [rows, columns], split);
            let sums = |matrix: &[f64]| -> Vec<f64> {
                let rows = 0..rows;
                rows.map(|x| dot(&values[x * columns..][..width], matrix))
                    .collect()
            };
            // Rows have sizes of their own, and what they are added to has those.
            let mut onto = numbers(&mut random, rows * out);
            for (row, matrix) in matrix.chunks(width).enumerate() {
                let largest = sums(matrix).iter().fold(0.0_f64, |m, x| m.max(x.abs()));
                for x in 0..rows {
                    onto[x * out + row] *= largest as f32;
                }
            }
            let onto_there = Buffer::of(&client, &onto);
            let y = poisoned(&client, rows * out);
            let product = Product {
                onto: has_onto.then_some(&onto_there),
                blocking,
                instructions: Instructions::Plain,
                ..Product::new(&weights, &x, rows)
            };
            many::many(&client, product, &y);
            let found = read(&client, &y);
            for (row, matrix) in matrix.chunks(width).enumerate() {
                let mut expected = sums(matrix);
                if has_onto {
                    let onto = onto.iter().skip(row).step_by(out);
                    let both = expected.iter_mut().zip(onto);
                    both.for_each(|(sum, onto)| *sum += f64::from(*onto));
                }
                let found: Vec<f32> = (0..rows).map(|x| found[x * out + row]).collect();
                let largest = expected.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
                let ones = |x: f64| x / largest.max(1e-30);
                let found: Vec<f32> = found.iter().map(|x| ones(f64::from(*x)) as f32).collect();
                let expected: Vec<f64> = expected.into_iter().map(ones).collect();
                let what = format!("{name} {rows} rows, {out}x{width}, split {split}, row {row}");
                assert_close(&found, &expected, &what);
            }
        }
    }
}

#[test]
fn grouped_experts_are_those_of_their_rows() {
    let Some(client) = client() else { return };
    for split in [false, true] {
        grouped(&client, split);
    }
}

fn grouped(client: &Client, split: bool) {
    let [rows, experts, slots, hidden, inner] = [23, 5, 2, 72, 24];
    let mut random = Random(7);
    // Expert 4 is never chosen.
    let ids: Vec<u32> = (0..rows * slots).map(|i| (i * 7 % 4) as u32).collect();
    let shares = numbers(&mut random, rows * slots);
    let (x, values) = activations(client, &mut random, [rows, hidden], split);
    let (gate_up, up_values) = weights(client, &mut random, [experts, 2 * inner, hidden]);
    let (down, down_values) = weights(client, &mut random, [experts, hidden, inner]);
    let on_device = Buffer::numbers(client, &ids);
    let plan = Plan {
        instructions: Instructions::Plain,
        ..Plan::new(
            client,
            (&on_device, slots),
            experts,
            (split, ColumnOrder::Natural),
        )
    };
    let half_rows = if split { 2 } else { 1 };
    // In f32, so that what is written can be told from what rounding makes of it.
    let h = poisoned(client, rows * slots * half_rows * inner);
    many::gate_up(client, &gate_up, &x, &plan, (&h, inner));
    let bytes = client
        .read_one(plan.order.handle.clone())
        .expect("the launch worked");
    let order: Vec<usize> = u32::from_bytes(&bytes)
        .iter()
        .map(|i| *i as usize)
        .collect();
    let mut expected = Vec::new();
    for choice in &order {
        let x = &values[choice / slots * hidden..][..hidden];
        let matrix = &up_values[ids[*choice] as usize * 2 * inner * hidden..];
        let row = |row: usize| dot(x, &matrix[row * hidden..][..hidden]);
        expected.extend((0..inner).map(|i| row(i) / (1.0 + (-row(i)).exp()) * row(inner + i)));
        // What rounding to f32 takes away.
        expected.extend(std::iter::repeat_n(0.0, (half_rows - 1) * inner));
    }
    let found = read(client, &h);
    assert_close(&found, &expected, "gate and up");

    let rows_of_h: Vec<f32> = found
        .chunks(half_rows * inner)
        .flat_map(|row| row[..inner].to_vec())
        .collect();
    let (stored, h_values) = halves(&rows_of_h, inner, split);
    let h = Activations::new(upload(client, &stored), split);
    let parts = poisoned(client, rows * slots * hidden);
    let shares_there = Buffer::of(client, &shares);
    many::down(client, &down, &h, (&plan, &shares_there), &parts);
    let y = poisoned(client, rows * hidden);
    // What the sum is added to: in one case nothing, in the other all there is.
    let onto = numbers(&mut random, rows * hidden);
    let everyone = numbers(&mut random, rows * hidden);
    let scores = numbers(&mut random, rows);
    let there = [&onto, &everyone, &scores].map(|all| Buffer::of(client, all));
    let [onto_there, everyone_there, scores_there] = &there;
    let added = Added {
        onto: split.then_some(onto_there),
        shared: split.then_some([everyone_there, scores_there]),
    };
    sum_slots(client, (&parts, slots), added, (&y, hidden));
    let mut expected = vec![0.0; rows * hidden];
    if split {
        for (i, (onto, x)) in onto.iter().zip(&everyone).enumerate() {
            let share = 1.0 / (1.0 + (-f64::from(scores[i / hidden])).exp());
            expected[i] = f64::from(*onto) + f64::from(*x) * share;
        }
    }
    for (place, choice) in order.iter().enumerate() {
        let matrix = &down_values[ids[*choice] as usize * hidden * inner..];
        let h = &h_values[place * inner..][..inner];
        for i in 0..hidden {
            expected[choice / slots * hidden + i] +=
                f64::from(shares[*choice]) * dot(h, &matrix[i * inner..][..inner]);
        }
    }
    assert_close(&read(client, &y), &expected, "down");
}

#[test]
fn rows_are_put_into_the_order_of_products() {
    let Some(client) = client() else { return };
    let mut random = Random(4);
    for (block, rows, width, columns, split) in [
        (16, 3, 256, 256, false),
        (16, 2, 136, 256, true),
        (32, 2, 256, 256, false),
        (32, 3, 144, 256, true),
    ] {
        let x = numbers(&mut random, rows * width);
        let matrix = Matrix {
            buffer: Buffer::of(&client, &x),
            rows,
            width,
            stride: width,
        };
        // The adapter has no bf16; f32 keeps the numbers as they are, and nothing is taken away.
        let halves = if split { 2 } else { 1 };
        let placed = poisoned(&client, rows * halves * columns);
        let order = ColumnOrder::Products(block);
        activations::round_into(&client, &matrix, &placed, (columns, order), split);
        let placed = read(&client, &placed);
        for row in 0..rows {
            let own = &placed[row * halves * columns..][..columns];
            let mut expected = Vec::new();
            for span in (0..columns).step_by(4 * block) {
                for part in (0..block).step_by(16) {
                    for pair in (0..16).step_by(2) {
                        for of in 0..4 {
                            let column = span + of * block + part + pair;
                            expected.extend([column, column + 1]);
                        }
                    }
                }
            }
            for (at, column) in expected.into_iter().enumerate() {
                let value = if column < width {
                    x[row * width + column]
                } else {
                    0.0
                };
                assert_eq!(own[at], value, "block {block} row {row} number {at}");
            }
            let rest = &placed[row * halves * columns + columns..][..(halves - 1) * columns];
            assert!(
                rest.iter().all(|rest| *rest == 0.0),
                "block {block} row {row}"
            );
        }
    }
}
