//! GPU kernels, written once in CubeCL: launchers over plain buffers, without a tensor library.
//!
//! - [`packed`]: products with matrices of 4- and 8-bit values

mod buffer;
mod grid;
pub mod packed;

pub use buffer::Buffer;
