//! Rows of activations, which products of 4-bit operands round as weights are.

use burn::tensor::{Device, Tensor, TensorData};
use burn_omni_ops::{PackedFormat, reference};

use crate::quantize::{Convention, Matrix, mxfp4, nvfp4};

#[test]
fn rows_round_as_matrices_of_one_row() {
    let width = 80;
    let mut state = 1_u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    // Rows of very different sizes, blocks of zeros, and a row of them.
    let values: Vec<f32> = (0..40 * width)
        .map(|at| {
            let (row, column) = (at / width, at % width);
            let size = 10_f32.powi(row as i32 % 11 - 5) * random().powi(3);
            let is_zero = row == 39 || (row % 3 == 0 && column / 16 == 2);
            if is_zero { 0.0 } else { random() * size }
        })
        .collect();
    let shape = TensorData::new(values.clone(), [40, width]);
    let x = Tensor::<2>::from_data(shape, &Device::flex());
    for format in [PackedFormat::NVFP4, PackedFormat::MXFP4] {
        let found = reference::four_bit_rows(x.clone(), format).into_data();
        let found: Vec<f32> = found.try_to_vec().unwrap();
        for (row, found) in values.chunks(width).zip(found.chunks(width)) {
            let matrix = Matrix::of_values(row, width);
            let encoded = match format {
                PackedFormat::NVFP4 => nvfp4(matrix, matrix.amax(), Convention::ModelOpt),
                _ => mxfp4(matrix),
            };
            for (found, expected) in found.iter().zip(encoded.into_packed().values()) {
                assert!(
                    (found - expected).abs() <= expected.abs() * 1e-6,
                    "{found} {expected}"
                );
            }
        }
    }
}
