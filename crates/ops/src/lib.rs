//! The operations that Burn lacks, as one extension trait over Burn's `Backend`.
//!
//! Model code calls the free functions below; which implementation runs is a property of the tensors' device.
//! Each operation has a plain-tensor version in [`mod@reference`] that is its oracle in the tests and the path of every
//! backend without an implementation of its own. This crate is the only library crate that names a backend.
//!
//! Activations are rows: `[rows, width]`, one row a token, frame, patch or time step. Weights keep the dtype they are
//! stored in; sums are formed in f32.
//!
//! | operation | shapes | CPU (`Flex`) | GPU (`CubeBackend`) |
//! |---|---|---|---|
//! | [`linear`] | `[rows, in] x [out, in] -> [rows, out]` | gemv, small product, panel gemm | lanes along a row, tiles |
//! | [`rms_norm`], [`layer_norm`] | `[rows, heads, width]` | row kernel | one cube a head |
//! | [`normed_rope`] | `[rows, heads, head_dim]` | both, one after the other | lanes along a head |
//! | [`rope`] | `[rows, heads, head_dim]` | row kernel | one unit a pair |
//! | [`attention`] | `[rows, heads, head_dim] x [keys, kv_heads, head_dim]` | blocked gemm, grouped heads | online softmax |
//! | [`swiglu`], [`gelu`], [`gelu_tanh`], [`snake`] | `[rows, width]` | row kernel | one unit a number |
//! | [`route`], [`experts`] | `[rows, experts]`, `[rows, hidden]` | only the rows routed to an expert | lanes along a row |
//! | [`packed_linear`], [`packed_experts`], [`unpack`] | [`Packed`] matrices | decoded in registers; panel gemm for many rows | matrix units over tiles, on request with 4-bit rows; else decoded in registers |
//! | [`attention_over`] | the same over a [`KvStore`], which may be E4M3 | numbers decoded first | decoded as they are loaded, for matrix units first |
//! | [`write_rows`], [`KvStore::write`] | `[capacity, heads, width]` | a copy of rows | one unit a number or a word, in place |
//! | [`drawn`], [`Packed::drawn`], [`copy`] | any | in parallel | one unit a number |
//! | [`add_scaled`], [`depthwise_conv1d`] | `[rows, channels]` | row kernel | one unit some channels of a row |
//! | [`extend`] | `[reach, width]`, `[rows, width]` | copies of rows | one unit some numbers of a row |
//! | [`causal_conv1d`] | `[history + rows, in] x [out, taps * in]` | product over overlapping rows | the same |
//! | [`rms_norm_linear`], [`swiglu_linear`] | `[rows, in] x [out, in]` | one after the other | two launches on matrix units |
//! | [`snake_conv1d`], [`add_snake_linear`] | `[rows, in] x [out, taps * in]` | one after the other | two launches on matrix units |
//! | [`prompt::attend`], [`prompt::feed_forward`] | `[rows, hidden]` | operations one by one | halves of a layer in a few launches on matrix units |

#[cfg(feature = "vulkan")]
pub mod adapter;
mod attention;
#[expect(
    clippy::too_many_arguments,
    reason = "the extension macro takes tensors one by one"
)]
#[cfg_attr(
    not(any(feature = "flex", feature = "cube")),
    expect(
        unused_variables,
        reason = "without a backend there is nobody to pass them to"
    )
)]
mod backend;
#[cfg(any(feature = "flex", feature = "cube"))]
pub mod check;
pub mod decode;
mod draw;
mod fault;
pub mod filling;
mod functions;
#[cfg(any(feature = "cuda", test))]
pub mod kernel_cache;
mod kv;
mod memory;
pub mod packed;
pub mod prompt;
pub mod reference;
pub mod rehearsal;

#[cfg(feature = "cube")]
mod cube;
#[cfg(feature = "flex")]
mod flex;

pub use attention::{AttentionSpec, Mask};
pub use backend::OmniOps;
pub use draw::{COPY_WORDS, Words, copy, drawn, drawn_float, drawn_gain};
pub use fault::Fault;
pub use functions::{
    Routes, add_scaled, add_snake_linear, attention, causal_conv1d, depthwise_conv1d, experts,
    extend, gelu, gelu_tanh, has_w4a4, layer_norm, linear, normed_rope, packed_experts,
    packed_linear, rms_norm, rms_norm_linear, rope, route, snake, snake_conv1d, swiglu,
    swiglu_linear, unpack, write_rows,
};
pub use kv::{KvFormat, KvStore, attention_over};
pub use memory::for_good;
pub use packed::{Packed, PackedBytes, PackedFormat, PackedSpec};
