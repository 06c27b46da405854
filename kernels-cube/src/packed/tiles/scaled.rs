//! Products whose both operands have 4 bits: the block-scaled matrix instructions of sm_120 and sm_121.
//!
//! One instruction multiplies 16 rows of a tile with eight rows of activations over 64 columns, codes and scales as they
//! are: `mma.sync.aligned.m16n8k64.row.col.kind::mxf4nvf4.block_scale`, PTX ISA 9.2, sections 9.7.14.3 (block scaling)
//! and 9.7.14.5.11 (fragments).
//!
//! | weights | scales of both operands | qualifiers |
//! |---|---|---|
//! | NVFP4 | E4M3, a block of 16 | `scale_vec::4X`, `ue4m3` |
//! | MXFP4 | powers of two, a block of 32 | `scale_vec::2X`, `ue8m0` |
//!
//! The weights are the [tiles](super) of all other products: `recode` turns their words into codes in registers, and
//! `order` says which lane takes which. Rows of activations are rounded to the weights' format by [`quantize()`].
//!
//! What is multiplied differs from the activations by what rounding to 4 bits takes away, so nothing chooses these
//! products unless it was asked to.

mod emulate;
mod encode;
mod order;
mod product;
mod quantize;
mod recode;
#[cfg(test)]
mod tests;

use cubecl::prelude::*;

use super::holds;
use crate::packed::Coding;

pub use product::{down, gate_up, many};
pub use quantize::{Quantized, dequantize, quantize};

/// Whether an architecture, by ten times its compute capability, has the instructions: those of GeForce and GB10. Data
/// centre GPUs (sm_100, sm_103) and Thor (sm_110) have others for the same formats.
#[must_use]
pub const fn has_products(capability: u32) -> bool {
    matches!(capability, 120 | 121)
}

/// Ten times the compute capability of the device with this fingerprint, of those that CUDA runs on.
///
/// CubeCL's lists of instructions are no answer: 0.11 names 4-bit products for architectures that refuse them.
#[must_use]
pub fn capability(fingerprint: &str) -> Option<u32> {
    fingerprint.strip_prefix("ptx_sm")?.parse().ok()
}

/// Whether a device multiplies matrices of this coding with rows of 4 bits. On others with tiles the functions here give
/// the same, slowly, so that they can be checked there.
#[must_use]
pub fn runs_on(client: &Client, coding: Coding) -> bool {
    super::runs_on(client) && holds(coding) && !coding.bytes && has_instruction(client)
}

fn has_instruction(client: &Client) -> bool {
    capability(&client.properties().identity.fingerprint).is_some_and(has_products)
}
