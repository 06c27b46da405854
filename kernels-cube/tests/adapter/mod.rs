//! The software adapter, and what tests put on it.

#![allow(dead_code, reason = "no test needs all of it")]

use std::panic::catch_unwind;

use burn_omni_kernels::{Buffer, Heads, Matrix};
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

/// What a buffer holds.
pub(crate) fn read(client: &Client, buffer: &Buffer) -> Vec<f32> {
    let bytes = client
        .read_one(buffer.handle.clone())
        .expect("the launch worked");
    f32::from_bytes(&bytes).to_vec()
}
