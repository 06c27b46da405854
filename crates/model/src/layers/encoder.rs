//! What the encoders share: bidirectional attention inside segments.

use burn::tensor::{Tensor, s};
use burn_omni_ops::{self as ops, AttentionSpec};
use burn_omni_quant::Linear;

use super::RopeTable;

/// Attention of an encoder, whose rows see their own segment in both directions.
#[derive(Clone, Debug)]
pub struct EncoderAttention {
    /// Queries, keys and values as one matrix.
    pub qkv: Linear,
    /// The projection of the output.
    pub out: Linear,
    /// Number of heads.
    pub heads: usize,
}

impl EncoderAttention {
    /// # Shapes
    /// - x, output: `[rows, hidden]`, of which consecutive `segments` see one another
    /// - rope: the rows' rotation, where the encoder has one
    #[must_use]
    pub fn forward(&self, x: Tensor<2>, segments: &[usize], rope: Option<&RopeTable>) -> Tensor<2> {
        let [rows, hidden] = x.dims();
        let head_dim = hidden / self.heads;
        let qkv = self
            .qkv
            .forward(x)
            .reshape([rows, 3 * self.heads, head_dim]);
        let part = |i: usize| {
            qkv.clone()
                .slice(s![.., i * self.heads..(i + 1) * self.heads, ..])
        };
        let (mut q, mut k) = (part(0), part(1));
        if let Some(RopeTable { cos, sin }) = rope {
            let rotate = |x| ops::rope(x, cos.clone(), sin.clone());
            (q, k) = (rotate(q), rotate(k));
        }
        let spec = AttentionSpec::segments(head_dim, segments.to_vec());
        self.out
            .forward(ops::attention(q, k, part(2), spec).reshape([rows, hidden]))
    }
}
