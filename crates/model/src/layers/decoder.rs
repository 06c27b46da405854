//! The decoder layer of thinker, talker and code predictor.

use burn::tensor::Tensor;
use burn_omni_ops::decode::{AttentionParts, FeedForwardParts, LayerParts, StackParts};
use burn_omni_ops::prompt::{self, Standing};
use burn_omni_quant::Weights;

use super::{AttentionSize, KvCache, Mlp, RmsNorm, Rope, RopeTable, SelfAttention, SparseMoe};

/// The feed-forward block of a layer.
#[derive(Clone, Debug)]
pub enum FeedForward {
    /// One block for all rows.
    Dense(Box<Mlp>),
    /// Routed experts.
    Sparse(Box<SparseMoe>),
}

impl FeedForward {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Dense(mlp) => mlp.forward(x),
            Self::Sparse(moe) => moe.forward(x),
        }
    }
}

/// Pre-norm attention and feed-forward, each added to its input.
#[derive(Clone, Debug)]
pub struct DecoderLayer {
    input_layernorm: RmsNorm,
    self_attn: SelfAttention,
    post_attention_layernorm: RmsNorm,
    mlp: FeedForward,
}

impl DecoderLayer {
    /// Loads the layer at this place; `mlp` loads its feed-forward block from the place `mlp`.
    #[must_use]
    pub fn load(
        weights: &Weights<'_>,
        size: AttentionSize,
        eps: f64,
        mlp: impl FnOnce(&Weights<'_>) -> FeedForward,
    ) -> Self {
        Self {
            input_layernorm: RmsNorm::load(&weights.at("input_layernorm"), size.hidden, eps),
            self_attn: SelfAttention::load(&weights.at("self_attn"), size),
            post_attention_layernorm: RmsNorm::load(
                &weights.at("post_attention_layernorm"),
                size.hidden,
                eps,
            ),
            mlp: mlp(&weights.at("mlp")),
        }
    }

    /// Layers and their caches, where a captured step can use them.
    #[must_use]
    pub fn stack(
        layers: &[Self],
        caches: &[KvCache],
        norm: &RmsNorm,
        rope: &Rope,
    ) -> Option<StackParts> {
        let heads = layers.first()?.self_attn.heads();
        let layers = layers.iter().zip(caches);
        let layers: Option<Vec<_>> = layers.map(|(layer, cache)| layer.parts(cache)).collect();
        Some(StackParts {
            layers: layers?,
            norm: norm.weight().clone(),
            eps: norm.eps(),
            heads,
            inverse_frequency: rope.inverse_frequency().to_vec(),
        })
    }

    /// The weights, and the memory of the cache, where a captured step can use them.
    fn parts(&self, cache: &KvCache) -> Option<LayerParts> {
        (self.post_attention_layernorm.eps() == self.input_layernorm.eps()).then_some(())?;
        Some(LayerParts {
            attention: self.attention_parts(cache)?,
            norm: self.post_attention_layernorm.weight().clone(),
            feed_forward: match &self.mlp {
                FeedForward::Dense(mlp) => FeedForwardParts::Dense(mlp.matrices()?),
                FeedForward::Sparse(moe) => moe.parts()?,
            },
        })
    }

    /// The same of the first half.
    fn attention_parts(&self, cache: &KvCache) -> Option<AttentionParts> {
        let norm = &self.input_layernorm;
        let ([qkv, o_proj], qk_norms) = self.self_attn.parts(norm.eps())?;
        Some(AttentionParts {
            norm: norm.weight().clone(),
            qkv,
            qk_norms,
            o_proj,
            cache: cache.stored().clone(),
        })
    }

    /// Bytes of the matrices that one row meets.
    #[must_use]
    pub fn row_bytes(&self) -> usize {
        let feed_forward = match &self.mlp {
            FeedForward::Dense(mlp) => mlp.bytes(),
            FeedForward::Sparse(moe) => moe.row_bytes(),
        };
        self.self_attn.bytes() + feed_forward
    }

    /// # Shapes
    /// - x, output: `[rows, hidden]`, the rows that follow those in the cache
    #[must_use]
    pub fn forward(&self, x: Tensor<2>, rope: &RopeTable, cache: &mut KvCache) -> Tensor<2> {
        self.feed_forward(self.attend(x, rope, cache))
    }

    /// The first half of the layer.
    ///
    /// # Shapes
    /// - x, output: `[rows, hidden]`, the rows that follow those in the cache
    #[must_use]
    pub fn attend(&self, x: Tensor<2>, rope: &RopeTable, cache: &mut KvCache) -> Tensor<2> {
        if let Some(y) = self.attend_as_one(&x, rope, cache) {
            return y;
        }
        let normed = self.input_layernorm.forward(x.clone());
        self.self_attn.forward(normed, rope, cache) + x
    }

    /// The second half of the layer.
    ///
    /// # Shapes
    /// - x, output: `[rows, hidden]`
    #[must_use]
    pub fn feed_forward(&self, x: Tensor<2>) -> Tensor<2> {
        if let Some(y) = self.feed_forward_as_one(&x) {
            return y;
        }
        let normed = self.post_attention_layernorm.forward(x.clone());
        self.mlp.forward(normed) + x
    }

    /// The first half as few launches, where the device has them.
    fn attend_as_one(
        &self,
        x: &Tensor<2>,
        rope: &RopeTable,
        cache: &mut KvCache,
    ) -> Option<Tensor<2>> {
        prompt::suits(x).then_some(())?;
        let rows = x.dims()[0];
        let standing = Standing {
            heads: self.self_attn.heads(),
            angles: [rope.cos.clone(), rope.sin.clone()],
            at: cache.len(),
        };
        let parts = self.attention_parts(cache)?;
        let y = prompt::attend(x.clone(), parts, self.input_layernorm.eps(), standing)?;
        cache.advance(rows);
        Some(y)
    }

    /// The second half as few launches, where the device has them.
    fn feed_forward_as_one(&self, x: &Tensor<2>) -> Option<Tensor<2>> {
        prompt::suits(x).then_some(())?;
        let FeedForward::Sparse(moe) = &self.mlp else {
            return None;
        };
        let norm = &self.post_attention_layernorm;
        prompt::feed_forward(x.clone(), (norm.weight().clone(), norm.eps()), moe.parts()?)
    }
}
