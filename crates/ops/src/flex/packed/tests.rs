//! The kernels on every kind of vectors that this processor has, against products in f64.

use burn::tensor::{Device, Int, Tensor, TensorData};
use pulp::Simd;

use super::*;
use crate::check::{FORMATS, Random, numbers};
use crate::packed::{Code, Scale};
use crate::{Packed, PackedBytes, PackedFormat, Routes};

/// Rows of the matrix and columns: one row, multiples of 16 that are odd, whole panels and ragged ones.
const SHAPES: [(usize, usize); 5] = [(1, 16), (1, 208), (37, 48), (64, 192), (70, 720)];

fn spec(format: PackedFormat, rows: usize, width: usize) -> PackedSpec {
    PackedSpec {
        format,
        matrices: 1,
        rows,
        width,
        gated: false,
        w4a4: false,
    }
}

/// A matrix whose halves have gains of unlike sizes.
fn matrix(random: &mut Random, spec: PackedSpec) -> PackedBytes {
    let mut bytes = random.packed(spec);
    let half = bytes.gains.len() / 2;
    bytes.gains[half..]
        .iter_mut()
        .for_each(|gain| *gain *= 300.0);
    bytes
}

/// Whether `out = x * values^T` up to `2 K 2^-24` of the sum of magnitudes.
fn assert_close(out: &[f32], x: &[f32], values: &[f32], width: usize, name: &str) {
    let rows = values.len() / width;
    assert_eq!(out.len(), x.len() / width * rows, "{name}: size");
    for (i, found) in out.iter().enumerate() {
        let x = &x[i / rows * width..][..width];
        let weight = &values[i % rows * width..][..width];
        let terms = || {
            x.iter()
                .zip(weight)
                .map(|(x, w)| f64::from(*x) * f64::from(*w))
        };
        let (exact, magnitude): (f64, f64) = (terms().sum(), terms().map(f64::abs).sum());
        let bound = 2.0 * width as f64 * 2.0_f64.powi(-24) * magnitude;
        let difference = (f64::from(*found) - exact).abs();
        assert!(
            difference <= bound,
            "{name}: {found} for {exact}, bound {bound:e}"
        );
    }
}

/// The bytes in panels for vectors of `lanes`.
fn panels(bytes: &PackedBytes, lanes: usize) -> (Vec<u32>, Vec<u32>) {
    let words = |bytes: &[u8]| -> Vec<u32> {
        let word = |bytes: &[u8]| {
            let mut four = [0; 4];
            four[..bytes.len()].copy_from_slice(bytes);
            u32::from_le_bytes(four)
        };
        bytes.chunks(4).map(word).collect()
    };
    let (mut codes, mut scales) = (words(&bytes.codes), words(&bytes.scales));
    interleave_parts(&mut codes, &mut scales, &bytes.spec, lanes);
    (codes, scales)
}

/// Both ways to read a matrix, with vectors of one kind; what is written to holds NaN before.
fn every_format_is_read<S: Simd>(simd: S, name: &str) {
    let mut random = Random(7);
    for format in FORMATS {
        for (rows, width) in SHAPES {
            let bytes = matrix(&mut random, spec(format, rows, width));
            let values = bytes.values();
            let (codes, scales) = panels(&bytes, S::F32_LANES);
            let matrix = Matrix {
                spec: bytes.spec,
                codes: &codes,
                scales: bytemuck::cast_slice(&scales),
                gains: &bytes.gains,
            };
            let case = format!("{name} {format:?} {rows} x {width}");
            for panel in 0..rows.div_ceil(S::F32_LANES) {
                let first = panel * S::F32_LANES;
                let expected = &values[first * width..rows.min(first + S::F32_LANES) * width];
                let mut out = vec![f32::NAN; expected.len()];
                let out = &mut out;
                simd.vectorize(Unpack { matrix, panel, out });
                for (found, expected) in out.iter().zip(expected) {
                    let bound = 2.0_f32.powi(-23) * expected.abs();
                    assert!(
                        (found - expected).abs() <= bound,
                        "{case}: {found} {expected}"
                    );
                }
            }
            for count in [1, 2, 3, 4, 7, 15] {
                let x: Vec<f32> = (0..count * width).map(|_| random.number()).collect();
                let rows_of_x = |data, stride| Rows {
                    data,
                    rows: count,
                    stride,
                };
                let columns = bytes.spec.columns();
                let padded = pad(rows_of_x(&x, width), width, columns);
                let mut out = vec![f32::NAN; count * rows];
                simd.vectorize(FewRows {
                    matrix,
                    x: rows_of_x(&padded, columns),
                    columns: 0..rows,
                    out: &mut out,
                });
                assert_close(&out, &x, &values, width, &case);
            }
        }
    }
}

#[test]
fn every_format_is_read_with_every_kind_of_vectors() {
    every_format_is_read(pulp::Scalar, "scalar");
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(simd) = pulp::x86::V3::try_new() {
            every_format_is_read(simd, "AVX2");
        }
        if let Some(simd) = pulp::x86::V4::try_new() {
            every_format_is_read(simd, "AVX-512");
        }
    }
    #[cfg(target_arch = "aarch64")]
    if let Some(simd) = pulp::aarch64::Neon::try_new() {
        every_format_is_read(simd, "Neon");
    }
}

#[test]
fn few_and_many_rows_are_within_the_bound() {
    let (mut random, device) = (Random(8), Device::flex());
    for format in FORMATS {
        for (rows, width) in SHAPES {
            let bytes = matrix(&mut random, spec(format, rows, width));
            let values = bytes.values();
            let packed = Packed::upload(bytes, &device);
            for count in [1, 5, FEW_ROWS, FEW_ROWS + 1, 70] {
                let x = random.tensor([count, width], &device);
                let found = numbers(crate::packed_linear(x.clone(), &packed));
                assert_close(&found, &numbers(x), &values, width, &format!("{format:?}"));
            }
        }
    }
}

#[test]
fn floats_with_powers_of_two_or_bytes_as_scales_are_unpacked_exactly() {
    for format in FORMATS {
        if !matches!(format.scale, Scale::E4m3 | Scale::E8m0 | Scale::None) {
            continue;
        }
        let bytes = Random(9).packed(spec(format, 40, 720));
        let values = bytes.values();
        let found = crate::unpack(&Packed::upload(bytes, &Device::flex()));
        assert_eq!(numbers(found), values, "{format:?}");
    }
}

#[test]
fn a_matrix_of_zeros_gives_zeros() {
    let device = Device::flex();
    for format in FORMATS {
        let mut bytes = Random(10).packed(spec(format, 33, 80));
        bytes.codes.fill(match format.code {
            Code::Int4 => 0x88,
            Code::Nf4 => 0x77,
            _ => 0x80, // zero and its negative
        });
        if format.code == Code::E4m3 {
            bytes.codes.iter_mut().step_by(2).for_each(|code| *code = 0);
        }
        if format.scale == Scale::Affine {
            bytes.scales.fill(0);
        }
        bytes.gains.fill(1.0);
        let packed = Packed::upload(bytes, &device);
        for rows in [1, 9, 60] {
            let x = Random(11).tensor([rows, 80], &device);
            let found = numbers(crate::packed_linear(x, &packed));
            assert!(found.iter().all(|x| *x == 0.0), "{format:?}");
        }
    }
}

/// Routes to the experts 0, 2 and 4 of five.
fn even_routes(rows: usize, device: &Device) -> Routes {
    let ids: Vec<i64> = (0..2 * rows)
        .map(|i| (i as i64 + i as i64 / 3) % 3 * 2)
        .collect();
    let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [2 * rows]), device);
    Routes {
        ids: ids.reshape([rows, 2]),
        weights: Random(12).tensor([rows, 2], device),
    }
}

fn stacks(random: &mut Random, format: PackedFormat) -> [PackedBytes; 2] {
    [(192, 144, true), (144, 96, false)].map(|(rows, width, gated)| {
        random.packed(PackedSpec {
            matrices: 5,
            gated,
            ..spec(format, rows, width)
        })
    })
}

#[test]
fn experts_that_nobody_chose_are_not_read() {
    let device = Device::flex();
    for format in FORMATS {
        let whole = stacks(&mut Random(13), format);
        let poisoned = whole.clone().map(|mut bytes| {
            for expert in [1, 3] {
                let rows = bytes.spec.rows;
                bytes.gains[expert * rows..][..rows].fill(f32::NAN);
            }
            bytes
        });
        let [whole, poisoned] =
            [whole, poisoned].map(|stacks| stacks.map(|bytes| Packed::upload(bytes, &device)));
        for rows in [1, 6, 90] {
            let x: Tensor<2> = Random(14).tensor([rows, 144], &device);
            let run = |[up, down]: &[Packed; 2]| {
                let routes = even_routes(rows, &device);
                numbers(crate::packed_experts(x.clone(), routes, up, down))
            };
            let found = run(&poisoned);
            assert!(found.iter().all(|x| x.is_finite()), "{format:?}");
            assert_eq!(found, run(&whole));
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let device = Device::flex();
    let bytes = Random(15).packed(spec(PackedFormat::NVFP4, 1000, 1040));
    let packed = Packed::upload(bytes, &device);
    let [up, down] =
        stacks(&mut Random(16), PackedFormat::NVFP4).map(|bytes| Packed::upload(bytes, &device));
    let run = || {
        let products = [1, 8, 90].map(|rows| {
            let x = Random(17).tensor([rows, 1040], &device);
            numbers(crate::packed_linear(x, &packed))
        });
        let mixtures = [1, 90].map(|rows| {
            let x = Random(18).tensor([rows, 144], &device);
            numbers(crate::packed_experts(
                x,
                even_routes(rows, &device),
                &up,
                &down,
            ))
        });
        (products, mixtures, numbers(crate::unpack(&packed)))
    };
    let [one, two, three] = [1, 2, 3].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("threads can be started").install(run)
    });
    assert!(one == two && one == three);
}
