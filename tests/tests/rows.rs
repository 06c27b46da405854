//! The kernel that rounds rows of activations to 4 bits, on a Vulkan adapter that is a program, against the encoders of
//! checkpoints.

use std::panic::catch_unwind;

use burn_omni_kernels::Buffer;
use burn_omni_kernels::packed::tiles::scaled::{dequantize, quantize};
use burn_omni_kernels::packed::tiles::{Scaled, Tiling};
use burn_omni_kernels::packed::{Coding, Scaling, Shape};
use burn_omni_ops::adapter::software_vulkan_for_test;
use burn_omni_quant::quantize::{Convention, Matrix, mxfp4, nvfp4};
use cubecl::prelude::*;
use cubecl::wgpu::{WgpuDevice, WgpuDeviceKind};

fn client() -> Option<Client> {
    software_vulkan_for_test()?;
    let device = cubecl::Device::Wgpu(WgpuDevice::new(WgpuDeviceKind::Cpu));
    catch_unwind(|| device.client()).ok()
}

fn read(client: &Client, buffer: &Buffer) -> Vec<f32> {
    let bytes = client.read_one(buffer.handle.clone());
    f32::from_bytes(&bytes.expect("the launches worked")).to_vec()
}

/// Rows of sizes from 1e-5 to 1e5, some of whose blocks are zeros; the last row is zeros alone.
fn rows(count: usize, width: usize) -> Vec<f32> {
    let mut state = 1_u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let value = |at: usize| {
        let (row, column) = (at / width, at % width);
        let size = 10_f32.powi(row as i32 % 11 - 5) * random().powi(3);
        let is_zero = row + 1 == count || (row % 3 == 0 && column / 16 == 2);
        if is_zero { 0.0 } else { random() * size }
    };
    (0..count * width).map(value).collect()
}

#[test]
fn rows_of_activations_round_as_weights_do() {
    let Some(client) = client() else { return };
    for (scaling, block) in [(Scaling::E4m3, 16), (Scaling::E8m0, 32)] {
        for (count, width) in [(1, 16), (23, 128), (70, 400), (40, 2048)] {
            let coding = Coding {
                bytes: false,
                e2m1: true,
                scaling,
                block,
            };
            let shape = Shape {
                matrices: 1,
                rows: 16,
                width,
                gated: false,
            };
            let tiling = Tiling::new(coding, shape);
            let values = rows(count, width);
            let x = Buffer::of(&client, &values);
            let quantized = quantize(&client, (&x, width), tiling);
            let found = read(&client, &dequantize(&client, &quantized, tiling));
            let columns = tiling.columns();
            assert_eq!(found.len(), count * columns);
            for (row, found) in values.chunks(width).zip(found.chunks(columns)) {
                let matrix = Matrix::of_values(row, width);
                let encoded = match scaling {
                    Scaling::E4m3 => nvfp4(matrix, matrix.amax(), Convention::ModelOpt),
                    _ => mxfp4(matrix),
                };
                let expected = encoded.into_packed().values();
                let padded = expected.into_iter().chain(std::iter::repeat(0.0));
                for (found, expected) in found.iter().zip(padded) {
                    assert!(
                        (found - expected).abs() <= expected.abs() * 1e-6,
                        "{scaling:?} {count}x{width}: {found} for {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_row_with_a_number_that_is_none_gives_none() {
    let Some(client) = client() else { return };
    for (value, scaling, block) in [
        (f32::NAN, Scaling::E4m3, 16),
        (f32::INFINITY, Scaling::E4m3, 16),
        (f32::NAN, Scaling::E8m0, 32),
        (f32::INFINITY, Scaling::E8m0, 32),
    ] {
        let tiling = Tiling {
            scaled: Scaled {
                block,
                scaling,
                bytes: false,
            },
            tiles: 1,
            pairs: 1,
        };
        let mut values = vec![1.0_f32; 2 * 64];
        values[70] = value;
        let x = Buffer::of(&client, &values);
        let quantized = quantize(&client, (&x, 64), tiling);
        let factors = read(&client, &quantized.factors);
        let scales = read(&client, &quantized.scales);
        let steps = tiling.columns() / 64;
        // The second row alone; powers of two say so in the block's scale.
        assert!(factors[0].is_finite());
        assert_eq!(
            scales[0].to_bits() & 0xFF,
            if tiling.scaled.e8m0() { 125 } else { 0x7E }
        );
        if tiling.scaled.e8m0() {
            assert_eq!(scales[steps].to_bits() & 0xFF, 0xFF);
        } else {
            assert!(!factors[1].is_finite());
        }
    }
}
