//! Encoders: a dense matrix to the bytes of a quantized one.
//!
//! Every result is determined by the format's definition, to the last bit: all arithmetic on scales is f32, in the order
//! that the producers of such checkpoints have it, and values round to the nearest code, ties to the even one.

mod codec;
mod encoded;
mod matrix;
mod mx;
mod nvfp4;
#[cfg(test)]
mod tests;

pub(crate) use codec::RANGE;
pub use codec::{encode_e2m1, encode_e4m3};
pub use encoded::Encoded;
pub use matrix::Matrix;
pub use mx::mxfp4;
pub use nvfp4::{Convention, nvfp4};
