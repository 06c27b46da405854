//! The software adapter, and what tests put on it.

#![allow(dead_code, reason = "no test needs all of it")]

use std::panic::catch_unwind;

use burn_omni_kernels::{Buffer, E4M3, Heads, Matrix};
use cubecl::prelude::*;
use cubecl::wgpu::{WgpuDevice, WgpuDeviceKind};

/// The software adapter; nothing, with a word, where there is none.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub(crate) fn client() -> Option<Client> {
    let open = || cubecl::Device::Wgpu(WgpuDevice::new(WgpuDeviceKind::Cpu)).client();
    let client = catch_unwind(open).ok();
    if client.is_none() {
        let required = std::env::var("BURN_OMNI_REQUIRE_GPU").is_ok_and(|value| value == "1");
        assert!(
            !required,
            "BURN_OMNI_REQUIRE_GPU=1: no software adapter starts"
        );
        eprintln!("skipped: no software adapter starts");
    }
    client
}

/// Numbers in [-1, 1) from a fixed stream.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// The next numbers.
    pub(crate) fn buffer(&mut self, client: &Client, len: usize) -> Buffer {
        let numbers: Vec<f32> = (0..len).map(|_| self.number()).collect();
        Buffer {
            handle: client.create_from_slice(f32::as_bytes(&numbers)),
            elem: f32::elem_type_native(),
        }
    }

    /// The next number.
    pub(crate) fn number(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Rows of the next numbers.
    pub(crate) fn matrix(&mut self, client: &Client, rows: usize, width: usize) -> Matrix {
        Matrix {
            buffer: self.buffer(client, rows * width),
            rows,
            width,
            stride: width,
        }
    }

    /// Rows of heads of the next numbers.
    pub(crate) fn heads(
        &mut self,
        client: &Client,
        rows: usize,
        heads: usize,
        width: usize,
    ) -> Heads {
        Heads {
            buffer: self.buffer(client, rows * heads * width),
            rows,
            heads,
            width,
            strides: [heads * width, width],
        }
    }
}

/// The value of an E4M3 byte, by its definition.
pub(crate) fn e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let magnitude = match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 512.0,
        _ => (8.0 + mantissa) * 2_f32.powi(exponent - 10),
    };
    if byte & 0x80 == 0 {
        magnitude
    } else {
        -magnitude
    }
}

/// The E4M3 byte whose value is nearest, of two the even one; a byte of NaN for NaN.
pub(crate) fn e4m3_byte(number: f32) -> u8 {
    let sign = if number.is_sign_negative() { 0x80 } else { 0 };
    if number.is_nan() {
        return sign | 0x7F;
    }
    let magnitude = f64::from(number.abs().min(448.0));
    let distance = |byte: u8| (f64::from(e4m3(byte)) - magnitude).abs();
    let nearer = |a: &u8, b: &u8| {
        let (a, b) = (*a, *b);
        distance(a)
            .total_cmp(&distance(b))
            .then((a & 1).cmp(&(b & 1)))
    };
    sign | (0..0x7F).min_by(nearer).expect("there are bytes")
}

/// Bytes of E4M3.
pub(crate) fn e4m3_buffer(client: &Client, bytes: &[u8]) -> Buffer {
    Buffer {
        handle: client.create_from_slice(bytes),
        elem: E4M3,
    }
}

/// What a buffer holds.
pub(crate) fn read(client: &Client, buffer: &Buffer) -> Vec<f32> {
    let bytes = client
        .read_one(buffer.handle.clone())
        .expect("the launch worked");
    f32::from_bytes(&bytes).to_vec()
}
