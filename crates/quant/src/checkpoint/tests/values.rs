//! Conversion and the search for NaN, for every dtype.

use half::{bf16, f16};
use proptest::prelude::*;
use safetensors::Dtype;

use super::super::RawTensor;
use super::*;

fn tensor<'a>(dtype: Dtype, shape: &'a [usize], bytes: &'a [u8]) -> RawTensor<'a> {
    RawTensor {
        name: "thinker.x",
        file: Path::new("m.safetensors"),
        dtype,
        shape,
        bytes,
    }
}

/// Position and NaN-ness of the first bad value of these bytes.
fn first_bad(dtype: Dtype, bytes: &[u8]) -> Option<(usize, bool)> {
    tensor(dtype, &[], bytes)
        .check_finite()
        .map(|bad| (bad.index, bad.value.is_nan()))
}

#[test]
fn every_half_pattern_converts_exactly() {
    let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    for skip in [0, 1] {
        // With one byte in front the elements are not aligned.
        let mut shifted = vec![0; skip];
        shifted.extend_from_slice(&bytes);
        let shape = [1 << 16];
        let bf16s = tensor(Dtype::BF16, &shape, &shifted[skip..])
            .to_f32()
            .unwrap();
        let f16s = tensor(Dtype::F16, &shape, &shifted[skip..])
            .to_f32()
            .unwrap();
        for bits in 0..=u16::MAX {
            let place = usize::from(bits);
            let (b, h) = (bf16::from_bits(bits), f16::from_bits(bits));
            assert!(bf16s[place].to_bits() == b.to_f32().to_bits() || b.is_nan());
            assert!(f16s[place].to_bits() == h.to_f32().to_bits() || h.is_nan());
            assert_eq!(
                (bf16s[place].is_nan(), f16s[place].is_nan()),
                (b.is_nan(), h.is_nan())
            );
            let (finite_b, finite_h) = (b.is_finite(), h.is_finite());
            assert_eq!(
                first_bad(Dtype::BF16, &bits.to_le_bytes()).is_none(),
                finite_b
            );
            assert_eq!(
                first_bad(Dtype::F16, &bits.to_le_bytes()).is_none(),
                finite_h
            );
        }
    }
}

#[test]
fn the_first_bad_value_of_a_large_tensor_is_found() {
    let mut values = vec![1.0_f32; 300_000];
    values[299_999] = f32::NAN;
    values[70_001] = f32::NEG_INFINITY;
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let bad = tensor(Dtype::F32, &[300_000], &bytes)
        .check_finite()
        .unwrap();
    assert_eq!((bad.index, bad.value), (70_001, f64::NEG_INFINITY));
    assert_eq!(first_bad(Dtype::C64, &bytes), Some((35_000, false)));
}

#[test]
fn eight_bit_floats_have_their_own_nan() {
    let all: Vec<u8> = (0..=u8::MAX).collect();
    assert_eq!(first_bad(Dtype::F8_E4M3, &all), Some((0x7f, true)));
    assert_eq!(first_bad(Dtype::F8_E5M2, &all), Some((0x7c, false)));
    assert_eq!(first_bad(Dtype::F8_E5M2, &all[0x7d..]), Some((0, true)));
    assert_eq!(first_bad(Dtype::F8_E4M3FNUZ, &all), Some((0x80, true)));
    assert_eq!(first_bad(Dtype::F8_E5M2FNUZ, &all), Some((0x80, true)));
    assert_eq!(first_bad(Dtype::F8_E8M0, &all), Some((0xff, true)));
    assert_eq!(
        first_bad(Dtype::F64, &f64::INFINITY.to_le_bytes()),
        Some((0, false))
    );
    assert_eq!(first_bad(Dtype::U8, &all), None);
    assert_eq!(first_bad(Dtype::F4, &all), None);
}

#[test]
fn other_dtypes_are_refused_by_name() {
    let error = tensor(Dtype::U8, &[1], &[0]).to_f32().unwrap_err();
    assert_eq!(
        error.to_string(),
        "m.safetensors: tensor `thinker.x`: expected dtype BF16, F16 or F32, found U8"
    );
}

proptest! {
    #[test]
    fn f32_values_survive(values in prop::collection::vec(any::<f32>(), 0..100)) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let shape = [values.len()];
        let read = tensor(Dtype::F32, &shape, &bytes).to_f32().unwrap();
        prop_assert!(read.iter().zip(&values).all(|(a, b)| a.to_bits() == b.to_bits()));
        prop_assert_eq!(read.len(), values.len());
        let bad = values.iter().position(|value| !value.is_finite());
        prop_assert_eq!(tensor(Dtype::F32, &shape, &bytes).check_finite().map(|b| b.index), bad);
    }
}
