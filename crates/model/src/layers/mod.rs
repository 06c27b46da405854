//! What two stages share. Activations are rows `[rows, width]` of one sequence.

mod attention;
mod cache;
mod decoder;
mod encoder;
mod mlp;
mod moe;
mod norm;
mod rope;

pub use attention::{AttentionSize, SelfAttention};
pub use cache::KvCache;
pub use decoder::{DecoderLayer, FeedForward};
pub use encoder::EncoderAttention;
pub use mlp::Mlp;
pub use moe::{MoeSize, SparseMoe};
pub use norm::{LayerNorm, RmsNorm};
pub use rope::{Rope, RopeTable};
