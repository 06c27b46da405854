//! Checkpoints, stored formats and the weights that a model multiplies with.
//!
//! - [`checkpoint`]: the files, memory-mapped and validated; names, dtypes and bytes.
//! - [`quantize`]: dense matrices to the bytes of quantized ones; [`write`](mod@write): whole checkpoints of them.
//! - [`formats`]: the stored forms of a quantized matrix, each read into the one that the kernels take.
//! - [`Weights`]: a place in a checkpoint's name tree, from which modules take their tensors.
//! - [`Linear`], [`Experts`], [`Embedding`]: the weights themselves. How a matrix is stored is a variant inside them, so
//!   a quantized model is the same model.

pub mod checkpoint;
pub mod formats;
pub mod quantize;
pub mod write;

mod asked;
mod buffer;
mod draw;
mod embedding;
mod experts;
mod linear;
mod load;
mod raw;
mod warnings;
mod weights;

pub use asked::{Asked, asked};
pub use draw::draw;
pub use embedding::Embedding;
pub use experts::Experts;
pub use linear::{Bias, Linear, Weight};
pub use load::{LoadError, LoadOptions, check, load, read};
pub use warnings::Warnings;
pub use weights::Weights;
