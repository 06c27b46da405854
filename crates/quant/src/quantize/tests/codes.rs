//! Single numbers.

use burn_omni_ops::packed::{E2M1, e4m3};
use proptest::prelude::*;

use crate::quantize::{encode_e2m1, encode_e4m3};

fn e2m1(code: u8) -> f32 {
    let magnitude = E2M1[usize::from(code & 7)];
    if code & 8 == 0 { magnitude } else { -magnitude }
}

#[test]
fn every_code_is_its_own_nearest() {
    for code in 0..16 {
        // Code 8 is minus zero, and zero has code 0 whatever its sign.
        let expected = if code == 8 { 0 } else { code };
        assert_eq!(encode_e2m1(e2m1(code)), expected, "E2M1 code {code}");
    }
    for byte in 0..=255_u8 {
        let value = e4m3(byte);
        let expected = if value.is_nan() { 0x7F } else { byte };
        assert_eq!(encode_e4m3(value), expected, "E4M3 byte {byte:#04x}");
    }
}

#[test]
fn ties_of_e2m1_go_to_the_even_code() {
    let up = f32::next_up;
    let down = f32::next_down;
    // The last number that still has a code, and the code.
    let last = [
        (0.25, 0),
        (down(0.75), 1),
        (1.25, 2),
        (down(1.75), 3),
        (2.5, 4),
        (down(3.5), 5),
        (5.0, 6),
        (f32::INFINITY, 7),
    ];
    for (number, code) in last {
        assert_eq!(encode_e2m1(number), code, "{number}");
        assert_eq!(encode_e2m1(-number), code + 8, "-{number}");
        if number.is_finite() {
            assert_eq!(encode_e2m1(up(number)), code + 1, "above {number}");
        }
    }
    assert_eq!(encode_e2m1(-1e-30), 8, "the sign stays");
    assert_eq!(encode_e2m1(f32::NAN), 0);
}

#[test]
fn e4m3_saturates_and_rounds_to_even() {
    let cases = [
        (464.0, 0x7E),
        (1e9, 0x7E),
        (f32::INFINITY, 0x7E),
        (-464.0, 0xFE),
        (1.0, 0x38),
        (1.0625, 0x38),
        (1.1875, 0x3A),
        (0.001_953_125, 0x01),
        (0.000_976_562_5, 0x00),
        (0.002_929_687_5, 0x02),
        (44.8, 0x63),
    ];
    for (number, byte) in cases {
        assert_eq!(encode_e4m3(number), byte, "{number}");
    }
}

/// The nearest of all finite values by trying them all, the even code at a tie.
fn nearest(number: f32, codes: impl Iterator<Item = (u8, f32)>) -> u8 {
    let distance = |value: f32| (f64::from(value) - f64::from(number)).abs();
    codes
        .min_by(|(a, x), (b, y)| {
            let by_distance = distance(*x).total_cmp(&distance(*y));
            by_distance.then((a & 1).cmp(&(b & 1)))
        })
        .expect("there are codes")
        .0
}

proptest! {
    #[test]
    fn e2m1_is_the_nearest(number in -8.0_f32..8.0) {
        let codes = if number < 0.0 { 8..16 } else { 0..8 };
        let expected = nearest(number, codes.map(|code| (code, e2m1(code))));
        prop_assert_eq!(encode_e2m1(number), expected);
    }

    #[test]
    fn e4m3_is_the_nearest(number in prop_oneof![-500.0_f32..500.0, -0.05_f32..0.05, -0.003_f32..0.003]) {
        let first: u8 = if number.is_sign_negative() { 0x80 } else { 0 };
        let expected = nearest(number, (first..first + 0x7F).map(|byte| (byte, e4m3(byte))));
        prop_assert_eq!(encode_e4m3(number), expected);
    }
}
