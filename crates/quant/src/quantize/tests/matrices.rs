//! Whole matrices.

use burn_omni_ops::packed::{E2M1, e4m3, e8m0};
use half::{bf16, f16};
use proptest::prelude::*;
use safetensors::Dtype;
use std::path::Path;

use crate::checkpoint::RawTensor;
use crate::quantize::{Convention, Encoded, Matrix, mxfp4, nvfp4};

const BOTH: [Convention; 2] = [Convention::ModelOpt, Convention::CompressedTensors];

fn encode(values: &[f32], width: usize, convention: Convention) -> Encoded {
    let matrix = Matrix::of_values(values, width);
    nvfp4(matrix, matrix.amax(), convention)
}

#[test]
fn the_vector_of_the_specification() {
    let first: Vec<f32> = (0..16_u8)
        .map(|i| f32::from(i) / 10.0 * if i % 2 == 0 { -1.0 } else { 1.0 })
        .collect();
    let tenth = first.iter().map(|x| x / 10.0);
    let values: Vec<f32> = first.iter().copied().chain(tenth).collect();
    let packed = [0x10, 0x2a, 0x4b, 0x5c, 0x6d, 0x6e, 0x7e, 0x7f];
    let expected = [
        0.0, 0.125, -0.25, 0.25, -0.375, 0.5, -0.5, 0.75, -0.75, 1.0, -1.0, 1.0, -1.0, 1.5, -1.5,
        1.5,
    ];
    for convention in BOTH {
        let encoded = encode(&values, 16, convention);
        assert_eq!(encoded.scales, [0x7E, 0x63]);
        assert_eq!(encoded.codes, [packed, packed].concat());
        let tensor_scale = match convention {
            Convention::ModelOpt => f32::from_bits(0x3A12_4925),
            Convention::CompressedTensors => 1792.0,
        };
        assert_eq!(encoded.tensor_scale, Some(tensor_scale));
        let values = encoded.into_packed().values();
        for (value, expected) in values.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-6, "{value} {expected}");
        }
    }
}

#[test]
fn zeros() {
    for (convention, scale) in BOTH.into_iter().zip([0x38, 0x20]) {
        let none = encode(&[0.0; 32], 32, convention);
        assert_eq!(none.tensor_scale, Some(1.0));
        assert_eq!(none.scales, [scale; 2]);
        assert_eq!(none.codes, [0; 16]);
        // A block of zeros beside another one.
        let values: Vec<f32> = [[0.0; 16], [3.0; 16]].concat();
        let half = encode(&values, 32, convention);
        assert_eq!(half.scales, [scale, 0x7E]);
        assert_eq!(half.codes, [[0; 8], [0x77; 8]].concat());
    }
    let none = mxfp4(Matrix::of_values(&[0.0; 32], 32));
    assert_eq!((none.codes, none.scales), (vec![0; 16], vec![0]));
}

#[test]
fn a_tensor_scale_may_be_shared() {
    let values = [1.0; 16];
    let alone = encode(&values, 16, Convention::ModelOpt);
    let shared = nvfp4(Matrix::of_values(&values, 16), 8.0, Convention::ModelOpt);
    assert_eq!(alone.scales, [0x7E]);
    assert_eq!(shared.tensor_scale, Some(8.0 / 2688.0));
    assert_eq!(shared.scales, [0x66], "448 / 8 = 56");
    assert_eq!(shared.into_packed().values(), values);
}

#[test]
fn powers_of_two_never_saturate() {
    let scale = |amax: f32| {
        let mut values = [0.0; 32];
        values[7] = -amax;
        i32::from(mxfp4(Matrix::of_values(&values, 32)).scales[0]) - 127
    };
    let cases = [
        (1.0, -2),
        (1.5, -2),
        (1.74, -1),
        (1.75, -1),
        (3.4, 0),
        (3.5, 0),
        (6.0, 0),
        (6.1, 1),
        (7.0, 1),
        (12.0, 1),
        (f32::MAX, 126),
        (6.0 * f32::MIN_POSITIVE, -126),
        (3.0 * f32::MIN_POSITIVE, -127),
        (1e-44, -127),
    ];
    for (amax, exponent) in cases {
        assert_eq!(scale(amax), exponent, "{amax}");
    }
}

#[test]
fn rows_are_filled_up_with_zeros() {
    let values: Vec<f32> = (0..2 * 20).map(|i| (i % 7) as f32 - 3.0).collect();
    for encoded in [
        encode(&values, 20, Convention::ModelOpt),
        mxfp4(Matrix::of_values(&values, 20)),
    ] {
        let block = encoded.format.block;
        let blocks = 20_usize.div_ceil(block);
        assert_eq!(encoded.codes.len(), 2 * blocks * block / 2);
        assert_eq!(encoded.scales.len(), 2 * blocks);
        let packed = encoded.into_packed();
        assert_eq!(packed.codes.len(), 2 * packed.spec.row_bytes());
        assert_eq!(packed.scales.len(), 2 * packed.spec.scale_bytes());
        let decoded = packed.values();
        assert_eq!(decoded.len(), values.len());
        let row = &packed.codes[..packed.spec.row_bytes()];
        assert!(row[10..].iter().all(|&byte| byte == 0));
        let largest = decoded.iter().fold(0.0, |a: f32, b| a.max(b.abs()));
        assert!((largest - 3.0).abs() < 0.1);
    }
}

#[test]
fn every_dense_dtype_reads_alike() {
    let values: Vec<f32> = (0..3 * 32).map(|i| (i as f32 - 40.0) / 16.0).collect();
    let halves = values
        .iter()
        .flat_map(|&x| bf16::from_f32(x).to_le_bytes())
        .collect();
    let shorts = values
        .iter()
        .flat_map(|&x| f16::from_f32(x).to_le_bytes())
        .collect();
    let singles = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let stored: [(Dtype, Vec<u8>); 3] = [
        (Dtype::BF16, halves),
        (Dtype::F16, shorts),
        (Dtype::F32, singles),
    ];
    for (dtype, bytes) in stored {
        let tensor = RawTensor {
            name: "w",
            file: Path::new("f"),
            dtype,
            shape: &[3, 32],
            bytes: &bytes,
        };
        let matrix = Matrix::of_tensor(&tensor).unwrap();
        assert_eq!((matrix.rows(), matrix.width()), (3, 32));
        assert_eq!(matrix.amax(), 55.0 / 16.0);
        assert_eq!(
            nvfp4(matrix, matrix.amax(), Convention::ModelOpt),
            encode(&values, 32, Convention::ModelOpt),
            "{dtype}"
        );
    }
    let integers = RawTensor {
        name: "w",
        file: Path::new("f"),
        dtype: Dtype::I32,
        shape: &[1],
        bytes: &[0; 4],
    };
    assert!(Matrix::of_tensor(&integers).is_err());
}

#[test]
fn the_largest_magnitude_shows_what_is_not_finite() {
    assert!(Matrix::of_values(&[1.0, f32::NAN], 2).amax().is_nan());
    assert_eq!(
        Matrix::of_values(&[1.0, f32::NEG_INFINITY], 2).amax(),
        f32::INFINITY
    );
    assert_eq!(Matrix::of_values(&[1.0, -2.0], 1).amax(), 2.0);
}

/// Values whose blocks have very different sizes.
fn values(blocks: usize) -> impl Strategy<Value = Vec<f32>> {
    let block = (-12..12_i32, prop::collection::vec(-1.0_f32..1.0, 16));
    prop::collection::vec(block, blocks).prop_map(|blocks| {
        let scaled =
            |(power, block): (i32, Vec<f32>)| block.into_iter().map(move |x| x * 2_f32.powi(power));
        blocks.into_iter().flat_map(scaled).collect()
    })
}

/// Whether `value` is as near to `number` as any multiple of `step` that E2M1 has; a rounding of the quotient is allowed.
fn is_nearest(number: f32, value: f64, step: f64) -> bool {
    let number = f64::from(number);
    let best = E2M1
        .iter()
        .map(|&magnitude| (f64::from(magnitude) * step - number.abs()).abs())
        .fold(f64::INFINITY, f64::min);
    (value - number).abs() <= best + number.abs() * 1e-6
}

proptest! {
    #[test]
    fn nvfp4_takes_the_nearest_point_of_the_grid(values in values(8), convention in prop::sample::select(&BOTH[..])) {
        let encoded = encode(&values, 64, convention);
        let (scales, gain) = (encoded.scales.clone(), f64::from(encoded.gain));
        let decoded = encoded.into_packed().values();
        for (i, (&number, &value)) in values.iter().zip(&decoded).enumerate() {
            let step = f64::from(e4m3(scales[i / 16])) * gain;
            prop_assert!(is_nearest(number, f64::from(value), step), "{number} became {value}");
        }
    }

    #[test]
    fn mxfp4_takes_the_nearest_point_of_the_grid(values in values(8)) {
        let encoded = mxfp4(Matrix::of_values(&values, 64));
        let scales = encoded.scales.clone();
        let decoded = encoded.into_packed().values();
        for (i, (&number, &value)) in values.iter().zip(&decoded).enumerate() {
            let step = f64::from(e8m0(scales[i / 32]));
            prop_assert!(is_nearest(number, f64::from(value), step), "{number} became {value}");
        }
    }

    #[test]
    fn what_is_on_the_grid_stays(values in values(8)) {
        for convention in BOTH {
            let first = encode(&values, 64, convention);
            let scales = first.scales.clone();
            let once = first.into_packed().values();
            let matrix = Matrix::of_values(&once, 64);
            let again = nvfp4(matrix, Matrix::of_values(&values, 64).amax(), convention);
            let again = again.into_packed().values();
            for (i, (a, b)) in once.iter().zip(&again).enumerate() {
                // Among the subnormal scales the largest code need not occur.
                let normal = scales[i / 16] >= 8;
                prop_assert!(!normal || (a - b).abs() <= a.abs() * 1e-6, "{a} became {b}");
            }
        }
    }
}
