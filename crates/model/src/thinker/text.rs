//! The text decoder.

use burn::tensor::{DType, Device, Tensor};
use burn_omni_ops::KvFormat;
use burn_omni_ops::decode::{DecoderParts, Matrices};
use burn_omni_quant::Weights;

use super::Rows;
use crate::config::TextConfig;
use crate::layers::{
    AttentionSize, DecoderLayer, FeedForward, KvCache, MoeSize, RmsNorm, Rope, RopeTable, SparseMoe,
};

/// Sparse decoder layers; vision rows are added to the outputs of the first ones (deepstack).
#[derive(Debug)]
pub struct TextDecoder {
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    rope: Rope,
    accept_hidden_layer: Option<usize>,
    /// Rows and width of a key or value, for caches.
    kv_shape: [usize; 2],
    dtype: DType,
    device: Device,
}

/// Keys and values of every layer.
#[derive(Clone, Debug)]
pub struct TextState {
    caches: Vec<KvCache>,
}

impl TextState {
    /// Rows in use.
    #[must_use]
    pub fn len(&self) -> usize {
        self.caches.first().map_or(0, KvCache::len)
    }

    /// Whether no row is in use.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows there is room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.caches.first().map_or(0, KvCache::capacity)
    }

    /// Makes room for `capacity` rows; those in use stay. Not for a state whose step is captured.
    pub fn reserve(&mut self, capacity: usize) {
        let caches = self.caches.iter_mut();
        caches.for_each(|cache| cache.reserve(capacity));
    }

    /// Counts rows that a captured step wrote behind the last.
    ///
    /// # Panics
    /// When there is no room for them.
    pub fn advance(&mut self, rows: usize) {
        self.caches.iter_mut().for_each(|cache| cache.advance(rows));
    }

    /// Forgets all rows but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.caches.iter_mut().for_each(|cache| cache.truncate(len));
    }
}

/// The residual stream behind the last layer, and the one that the talker accepts.
pub(super) struct Decoded {
    pub(super) hidden: Tensor<2>,
    pub(super) accepted: Option<Tensor<2>>,
}

impl TextDecoder {
    /// Loads `layers` and `norm` at the place `model`.
    #[must_use]
    pub fn load(
        weights: &Weights<'_>,
        config: &TextConfig,
        accept_hidden_layer: Option<usize>,
    ) -> Self {
        let attention = AttentionSize {
            hidden: config.hidden_size,
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            qk_norm_eps: Some(config.rms_norm_eps),
            window: None,
        };
        let moe = MoeSize {
            hidden: config.hidden_size,
            experts: config.num_experts,
            top_k: config.num_experts_per_tok,
            intermediate: config.moe_intermediate_size,
            shared_intermediate: None,
            normalize: config.norm_topk_prob,
        };
        let layer = |weights: &Weights<'_>| {
            DecoderLayer::load(weights, attention, config.rms_norm_eps, |mlp| {
                FeedForward::Sparse(Box::new(SparseMoe::load(mlp, moe)))
            })
        };
        Self {
            layers: weights.at("layers").list(config.num_hidden_layers, layer),
            norm: RmsNorm::load(&weights.at("norm"), config.hidden_size, config.rms_norm_eps),
            rope: Rope::new(
                config.head_dim,
                config.rope.rope_theta,
                config.rope.mrope_section,
            ),
            accept_hidden_layer,
            kv_shape: [config.num_key_value_heads, config.head_dim],
            dtype: weights.dtype(),
            device: weights.device().clone(),
        }
    }

    pub(super) fn state(&self, capacity: usize, format: KvFormat) -> TextState {
        let cache = || KvCache::new(capacity, self.kv_shape, format, &self.device);
        TextState {
            caches: self.layers.iter().map(|_| cache()).collect(),
        }
    }

    /// Bytes of the matrices that one row meets.
    pub(super) fn row_bytes(&self) -> usize {
        self.layers.iter().map(DecoderLayer::row_bytes).sum()
    }

    /// Where the weights are.
    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// The dtype of activations.
    pub(super) fn dtype(&self) -> DType {
        self.dtype
    }

    /// The weights and the state's memory, where a captured step can use them.
    pub(super) fn parts(
        &self,
        state: &TextState,
        embedding: Tensor<2>,
        head: Matrices,
    ) -> Option<DecoderParts> {
        Some(DecoderParts {
            stack: DecoderLayer::stack(&self.layers, &state.caches, &self.norm, &self.rope)?,
            embedding,
            head,
        })
    }

    pub(super) fn rope(&self, positions: [&[f32]; 3]) -> RopeTable {
        self.rope.table(positions, &self.device)
    }

    pub(super) fn norm(&self, x: Tensor<2>) -> Tensor<2> {
        self.norm.forward(x)
    }

    pub(super) fn forward(
        &self,
        rows: &Rows,
        rope: &RopeTable,
        state: &mut TextState,
        tap: &mut dyn FnMut(&str, &Tensor<2>),
    ) -> Decoded {
        let mut x = rows.embeds.clone();
        let mut accepted = None;
        for (i, (layer, cache)) in self.layers.iter().zip(&mut state.caches).enumerate() {
            if self.accept_hidden_layer == Some(i) {
                accepted = Some(x.clone());
            }
            x = layer.forward(x, rope, cache);
            if let Some(rows) = rows.deepstack.get(i) {
                x = x + rows.clone();
            }
            tap(&format!("layers.{i}"), &x);
        }
        if self.accept_hidden_layer == Some(self.layers.len()) {
            accepted = Some(x.clone());
        }
        Decoded {
            hidden: x,
            accepted,
        }
    }
}
