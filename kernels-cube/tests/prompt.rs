//! What stands before the products of many rows of a layer, against the launches that each does the work of, on a software
//! adapter. `cargo test -p burn-omni-kernels --features wgpu --test prompt`

mod adapter;

use burn_omni_kernels::decode::Cache;
use burn_omni_kernels::packed::tiles::{ColumnOrder, Rounding, activations};
use burn_omni_kernels::prompt::{Fused, queries};
use burn_omni_kernels::{
    self as kernels, Angles, Buffer, Heads, Matrix, NormParameters, On, Units,
};
use cubecl::prelude::*;

use adapter::{Random, client, e4m3_buffer, read};

const EPS: f32 = 1e-6;
/// Largest difference as a share of the largest magnitude.
const TOLERANCE: f32 = 1e-6;

fn poisoned(client: &Client, count: usize) -> Buffer {
    Buffer::of(client, &vec![f32::NAN; count])
}

#[track_caller]
fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1e-3_f32, |m, x| m.max(x.abs()));
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (found - expected).abs() <= TOLERANCE * largest,
            "{what}: number {at} is {found}, not {expected}"
        );
    }
}

#[test]
fn rows_are_normed_in_the_forms_that_products_take() {
    let Some(client) = client() else { return };
    let mut random = Random(1);
    let products = |block, split| Rounding {
        order: ColumnOrder::Products(block),
        split,
    };
    for (rows, width, first, second) in [
        (3, 256, Rounding::natural(true), Some(products(16, false))),
        (2, 512, products(32, true), None),
        (5, 128, products(16, false), Some(products(32, false))),
        (70, 96, Rounding::natural(false), None),
    ] {
        let x = random.matrix(&client, rows, width);
        let weight = random.buffer(&client, width);
        let parameters = NormParameters {
            weight: &weight,
            bias: None,
            eps: EPS,
        };
        let units = Units::Together;
        let on = On {
            client: &client,
            units,
        };
        let normed = Matrix {
            buffer: kernels::norm(on, &x.clone().into(), parameters),
            ..x.clone()
        };
        let mut expected = Vec::new();
        for rounding in [Some(first), second].into_iter().flatten() {
            let Rounding { order, split } = rounding;
            let placed = poisoned(&client, rows * rounding.halves() * width);
            activations::round_into(&client, &normed, &placed, (width, order), split);
            expected.extend(read(&client, &placed));
        }
        let y = poisoned(&client, expected.len());
        kernels::norm_rounded_into(&client, &x, parameters, (&y, (first, second)));
        let what = format!("{rows} rows of {width}, {first:?}, {second:?}");
        assert_close(&read(&client, &y), &expected, &what);
    }
}

/// Rows of fused heads and what they are normed and rotated with.
struct Rows {
    qkv: Heads,
    heads: [usize; 2],
    norms: [Buffer; 2],
    angles: [Buffer; 2],
}

impl Rows {
    fn new(client: &Client, rows: usize, heads: [usize; 2], width: usize) -> Self {
        let mut random = Random(2);
        let all = heads[0] + 2 * heads[1];
        Self {
            qkv: random.heads(client, rows, all, width),
            heads,
            norms: [(); 2].map(|()| random.buffer(client, width)),
            angles: [(); 2].map(|()| random.buffer(client, rows * width / 2)),
        }
    }

    fn angles(&self) -> Angles<'_> {
        let [cos, sin] = &self.angles;
        Angles { cos, sin }
    }

    fn fused(&self) -> Fused<'_> {
        Fused {
            qkv: &self.qkv,
            heads: self.heads,
            norms: self.norms.each_ref(),
            eps: EPS,
            angles: self.angles(),
        }
    }

    fn part(&self, first: usize, heads: usize) -> Heads {
        let start = first * self.qkv.width;
        let len = self.qkv.buffer.len();
        Heads {
            buffer: self.qkv.buffer.part(start, len - start),
            heads,
            ..self.qkv
        }
    }

    /// Queries or keys, one launch of their own.
    fn rotated(&self, client: &Client, which: usize) -> Heads {
        let [heads, kv_heads] = self.heads;
        let (first, count) = [(0, heads), (heads, kv_heads)][which];
        let parameters = NormParameters {
            weight: &self.norms[which],
            bias: None,
            eps: EPS,
        };
        let units = Units::Together;
        let on = On { client, units };
        Heads {
            buffer: kernels::normed_rope(on, &self.part(first, count), parameters, self.angles()),
            rows: self.qkv.rows,
            heads: count,
            width: self.qkv.width,
            strides: [count * self.qkv.width, self.qkv.width],
        }
    }
}

#[test]
fn queries_are_rotated_and_the_cache_gets_the_rest() {
    let Some(client) = client() else { return };
    for (rows, [heads, kv_heads], width, at) in [
        (1, [1, 1], 8, 0),
        (5, [6, 2], 128, 3),
        (30, [4, 4], 72, 1),
        (7, [8, 1], 64, 9),
    ] {
        let what = format!("{rows} rows of {heads}/{kv_heads} heads of {width} at {at}");
        let given = Rows::new(&client, rows, [heads, kv_heads], width);
        let capacity = at + rows + 2;
        let cache = || Cache {
            keys: poisoned(&client, capacity * kv_heads * width),
            values: poisoned(&client, capacity * kv_heads * width),
        };
        let (found, expected) = (cache(), cache());
        let q = queries(&client, given.fused(), (&found, at), false);
        let [alone, k] = [0, 1].map(|which| given.rotated(&client, which));
        let v = given.part(heads + kv_heads, kv_heads);
        kernels::write_rows(&client, &k, &expected.keys, at);
        kernels::write_rows(&client, &v, &expected.values, at);
        assert_close(&read(&client, &q), &read(&client, &alone.buffer), &what);
        let row = kv_heads * width;
        let both = [
            (&found.keys, &expected.keys),
            (&found.values, &expected.values),
        ];
        for (found, expected) in both {
            let [found, expected] = [found, expected].map(|store| read(&client, store));
            let new = at * row..(at + rows) * row;
            assert_close(&found[new.clone()], &expected[new.clone()], &what);
            let others = [&found[..new.start], &found[new.end..]].concat();
            assert!(others.iter().all(|x| x.is_nan()), "{what}: other rows");
        }
    }
}

#[test]
fn a_cache_of_e4m3_gets_the_same_bytes() {
    let Some(client) = client() else { return };
    let (rows, heads, width, at) = (6, [4, 2], 64, 2);
    let given = Rows::new(&client, rows, heads, width);
    let numbers = (at + rows + 1) * heads[1] * width;
    let cache = || Cache {
        keys: e4m3_buffer(&client, &vec![0xFF; numbers]),
        values: e4m3_buffer(&client, &vec![0xFF; numbers]),
    };
    let (found, expected) = (cache(), cache());
    let _ = queries(&client, given.fused(), (&found, at), false);
    let k = given.rotated(&client, 1);
    let v = given.part(heads[0] + heads[1], heads[1]);
    kernels::write_rows(&client, &k, &expected.keys, at);
    kernels::write_rows(&client, &v, &expected.values, at);
    for (found, expected) in [(found.keys, expected.keys), (found.values, expected.values)] {
        let [found, expected] = [found, expected].map(|store| {
            let bytes = client.read_one(store.handle).expect("the launch worked");
            bytes.to_vec()
        });
        assert!(
            found.iter().any(|byte| *byte != 0xFF),
            "nothing was written"
        );
        assert_eq!(found, expected);
    }
}
