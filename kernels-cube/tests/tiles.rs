//! The order of tiles: what was put into them comes out again, on a software adapter.
//! `cargo test -p burn-omni-kernels --features wgpu --test tiles`

mod adapter;
mod coded;

use burn_omni_kernels::packed::Shape;
use burn_omni_kernels::packed::tiles::{Tiling, holds};

use adapter::{Random, client};
use coded::{CODINGS, Source};

#[test]
fn every_value_comes_back() {
    let Some(client) = client() else { return };
    let mut random = Random(3);
    let mut bits = || ((random.number() + 1.0) * (1 << 23) as f32) as u32;
    for (name, coding) in CODINGS {
        assert!(holds(coding), "{name}");
        for (matrices, rows, width, gated) in [
            (1, 1, 16, false),
            (1, 33, 48, false),
            (1, 40, 400, false),
            (3, 18, 128, false),
            (1, 20, 768, true),
            (4, 42, 208, true),
        ] {
            let shape = Shape {
                matrices,
                rows,
                width,
                gated,
            };
            let source = Source::random(&mut bits, coding, shape);
            let matrix = source.matrix(&client);
            assert_eq!(source.wrong(&client, &matrix), 0, "{name} {shape:?}");
        }
    }
}

#[test]
fn rows_are_padded_to_pairs_of_spans_alone() {
    for (name, coding) in CODINGS {
        for width in [768, 2048, 4096] {
            let shape = Shape {
                matrices: 1,
                rows: 2048,
                width,
                gated: false,
            };
            assert_eq!(Tiling::new(coding, shape).columns(), width, "{name}");
        }
    }
}
