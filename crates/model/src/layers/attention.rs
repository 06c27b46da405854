//! Causal self-attention with grouped heads.

use std::ops::Range;

use burn::tensor::{Tensor, s};
use burn_omni_ops::decode::Matrices;
use burn_omni_ops::{self as ops, AttentionSpec};
use burn_omni_quant::{Bias, Linear, Weights};

use super::{KvCache, RmsNorm, RopeTable};
use crate::config::AttentionConfig;

/// The sizes of an attention layer.
#[derive(Clone, Copy, Debug)]
pub struct AttentionSize {
    /// `hidden_size`
    pub hidden: usize,
    /// `num_attention_heads`
    pub heads: usize,
    /// `num_key_value_heads`
    pub kv_heads: usize,
    /// `head_dim`
    pub head_dim: usize,
    /// `rms_norm_eps` of the norms of queries and keys, where the layer has them.
    pub qk_norm_eps: Option<f64>,
    /// `sliding_window`: how many keys a query sees, itself included.
    pub window: Option<usize>,
}

/// The sizes of a layer without norms of queries and keys.
impl From<AttentionConfig> for AttentionSize {
    fn from(config: AttentionConfig) -> Self {
        Self {
            hidden: config.hidden_size,
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            qk_norm_eps: None,
            window: config.sliding_window,
        }
    }
}

/// Queries and keys are normed by head where the model has such norms, then rotated.
#[derive(Clone, Debug)]
pub struct SelfAttention {
    /// `q_proj`, `k_proj` and `v_proj` as one matrix.
    qkv: Linear,
    o_proj: Linear,
    /// `q_norm` and `k_norm`.
    norms: Option<[RmsNorm; 2]>,
    size: AttentionSize,
}

impl SelfAttention {
    /// Loads `q_proj`, `k_proj`, `v_proj`, `o_proj` and, with `qk_norm_eps`, `q_norm` and `k_norm`.
    #[must_use]
    pub fn load(weights: &Weights<'_>, size: AttentionSize) -> Self {
        let (q, kv) = (size.heads * size.head_dim, size.kv_heads * size.head_dim);
        let norm = |name, eps| RmsNorm::load(&weights.at(name), size.head_dim, eps);
        Self {
            qkv: weights.fused_linear(
                &[("q_proj", q), ("k_proj", kv), ("v_proj", kv)],
                size.hidden,
                Bias::No,
            ),
            o_proj: weights.linear("o_proj", [size.hidden, q], Bias::No),
            norms: size
                .qk_norm_eps
                .map(|eps| [norm("q_norm", eps), norm("k_norm", eps)]),
            size,
        }
    }

    /// Query heads and key heads.
    #[must_use]
    pub fn heads(&self) -> [usize; 2] {
        [self.size.heads, self.size.kv_heads]
    }

    /// The weights, where kernels of whole layers can use them: queries, keys and values, the output, and the norms of queries and
    /// keys, which have the epsilon of the other norms.
    #[must_use]
    pub fn parts(&self, eps: f64) -> Option<([Matrices; 2], [Tensor<1>; 2])> {
        let norms = self.norms.as_ref()?;
        let alike = self.size.window.is_none() && norms.iter().all(|norm| norm.eps() == eps);
        alike.then_some(())?;
        let matrices = [self.qkv.matrices()?, self.o_proj.matrices()?];
        Some((matrices, [0, 1].map(|i| norms[i].weight().clone())))
    }

    /// Bytes of the matrices.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.qkv.bytes() + self.o_proj.bytes()
    }

    /// # Shapes
    /// - x, output: `[rows, hidden]`, the rows that follow those in the cache
    #[must_use]
    pub fn forward(&self, x: Tensor<2>, rope: &RopeTable, cache: &mut KvCache) -> Tensor<2> {
        self.attend(self.qkv.forward(x), rope, cache)
    }

    /// The same of rows behind a norm.
    ///
    /// # Shapes
    /// - x, output: `[rows, hidden]`, the rows that follow those in the cache
    #[must_use]
    pub fn forward_normed(
        &self,
        x: Tensor<2>,
        norm: &RmsNorm,
        rope: &RopeTable,
        cache: &mut KvCache,
    ) -> Tensor<2> {
        self.attend(norm.then(&self.qkv, x), rope, cache)
    }

    /// - qkv: `[rows, (heads + 2 * kv_heads) * head_dim]`
    fn attend(&self, qkv: Tensor<2>, rope: &RopeTable, cache: &mut KvCache) -> Tensor<2> {
        let AttentionSize {
            heads,
            kv_heads,
            head_dim,
            window,
            ..
        } = self.size;
        let [rows, _] = qkv.dims();
        let qkv = qkv.reshape([rows, heads + 2 * kv_heads, head_dim]);
        let part = |x: &Tensor<3>, heads: Range<usize>| x.clone().slice(s![.., heads, ..]);
        let (of_q, of_k) = (0..heads, heads..heads + kv_heads);
        let v = part(&qkv, heads + kv_heads..heads + 2 * kv_heads);
        let [q, k] = match &self.norms {
            Some([q_norm, k_norm]) => [
                q_norm.rotated(part(&qkv, of_q), rope),
                k_norm.rotated(part(&qkv, of_k), rope),
            ],
            None => {
                let both = part(&qkv, 0..heads + kv_heads);
                let both = ops::rope(both, rope.cos.clone(), rope.sin.clone());
                [part(&both, of_q), part(&both, of_k)]
            }
        };

        let mut spec = AttentionSpec::causal(head_dim, cache.len());
        if let Some(window) = window {
            spec = spec.with_window(window);
        }
        let kv = cache.append(k, v);
        let out = ops::attention_over(q, kv, spec);
        self.o_proj.forward(out.reshape([rows, heads * head_dim]))
    }
}
