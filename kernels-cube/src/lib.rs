//! GPU kernels, written once in CubeCL: launchers over plain buffers, without a tensor library.
//!
//! They run on CUDA and on WGPU: planes of 8 to 64 units or none, at most 32 KiB of shared memory, indices in 32 bits,
//! launches whose accesses are checked. Whatever the elements' types, sums are formed in f32 and in a fixed order.
//!
//! Where the units of a cube can work together, kernels share memory; elsewhere, as on adapters that are programs, each
//! unit works alone (see [`Units`]).
//!
//! | launcher | shapes | kernel |
//! |---|---|---|
//! | [`linear()`] | `[rows, depth] x [out, depth]`, or causal convolution | lanes along a row of the weight; tiles |
//! | [`norm()`], [`norm_rounded`] | `[rows, heads, width]` | one cube a head |
//! | [`rope()`], [`normed_rope()`] | `[rows, heads, width]` | one unit a pair; lanes along a head |
//! | [`attention()`] | `[rows, heads, head_dim] x [keys, kv_heads, head_dim]` | online softmax over tiles of keys; many rows on matrix units |
//! | [`map`], [`swiglu`], [`swiglu_rounded`] | `[rows, width]` | one unit an element |
//! | [`snake`], [`add_scaled`], [`depthwise_conv1d`] | `[rows, channels]` | one unit some channels of a row |
//! | [`extend`], [`snaked`] | `[rows, width]` | one unit some numbers of a row |
//! | [`route()`] | `[rows, experts]` | one cube a row |
//! | [`draw_words`], [`draw_floats`], [`copy`] | any number | one unit a word |
//! | [`write_rows`], [`read_rows`] | `[rows, heads, width]` | one unit a number, or four of E4M3 |
//! | [`few`] | up to 16 rows, packed or bf16 weights | matrix units, weights read once |
//! | [`many`] | more rows, packed or bf16 weights, convolutions, grouped experts | matrix units, activations staged |
//! | [`decode`] | one row through a stack of layers | six launches a layer, captured; places are in [`control`] |
//! | [`prompt`] | many rows through the halves of a layer | five launches and seven, more for E4M3 and an expert of all rows |
//! | [`choose`] | scores of a vocabulary | one cube, or two launches; captured |
//! | [`packed`] | matrices of 4- and 8-bit values | in checkpoint order on any device, in tiles on matrix units |
//! | [`experts()`] | `[rows, hidden]` | lanes along a row of an expert's weight |

mod activation;
pub mod attention;
mod buffer;
pub mod choose;
mod clock;
pub mod control;
pub mod decode;
mod draw;
mod e4m3;
mod experts;
pub mod few;
mod grid;
pub mod linear;
pub mod many;
mod math;
pub mod matrix_units;
mod norm;
pub mod packed;
mod plane;
pub mod prompt;
mod reduce;
mod rope;
mod route;
mod store;
mod stream;
mod units;
mod warpgroup;

pub use activation::{Function, add_scaled, depthwise_conv1d, map, snake, swiglu, swiglu_rounded};
pub use attention::{Attention, Seen, attention};
pub use buffer::{Buffer, Heads, Matrix};
pub use draw::{COPY_WORDS, Drawn, copy, draw_floats, draw_words};
pub use e4m3::E4M3;
pub use experts::{ExpertMatrices, experts};
pub use linear::{Product, Taps, linear};
pub use norm::{NormParameters, norm, norm_rounded, norm_rounded_into, norm_rounded_twice};
pub use rope::{Angles, normed_rope, rope};
pub use route::{Routes, route};
pub use store::{read_rows, write_rows};
pub use stream::{extend, snaked, snaked_into};
pub use units::{On, Units};
