//! How fast it is; run with `--release -- --ignored --nocapture`.

use std::path::Path;
use std::time::Instant;

use safetensors::Dtype;

use crate::checkpoint::RawTensor;
use crate::quantize::{Convention, Matrix, mxfp4, nvfp4};

#[test]
#[ignore = "a measurement"]
fn megabytes_of_bf16_a_second() {
    const ROWS: usize = 16_384;
    const WIDTH: usize = 2048;
    let mut state = 1_u32;
    let bytes: Vec<u8> = (0..ROWS * WIDTH)
        .flat_map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Sign and mantissa at random, magnitudes of 2^-8 to 2^-1.
            let bits = (state >> 16) as u16;
            (bits & 0x83FF | 0x3C00).to_le_bytes()
        })
        .collect();
    let tensor = RawTensor {
        name: "w",
        file: Path::new("f"),
        dtype: Dtype::BF16,
        shape: &[ROWS, WIDTH],
        bytes: &bytes,
    };
    let matrix = Matrix::of_tensor(&tensor).unwrap();
    let report = |what: &str, work: &dyn Fn()| {
        work();
        let started = Instant::now();
        work();
        let rate = bytes.len() as f64 / 1e6 / started.elapsed().as_secs_f64();
        println!("{what}: {rate:.0} MB/s of BF16");
        assert!(rate > 100.0, "{what} is slow: {rate:.0} MB/s");
    };
    report("amax", &|| assert!(matrix.amax().is_finite()));
    for convention in [Convention::ModelOpt, Convention::CompressedTensors] {
        report(&format!("nvfp4 {convention:?}"), &|| {
            std::hint::black_box(nvfp4(matrix, 1.0, convention));
        });
    }
    report("mxfp4", &|| {
        std::hint::black_box(mxfp4(matrix));
    });
}
