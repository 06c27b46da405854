//! The choice of experts within a layer.

use burn::tensor::{DType, Int, Tensor};
use burn_omni_model::config::{AttentionConfig, MoeConfig};
use burn_omni_model::layers::{AttentionSize, KvCache, RmsNorm, RopeTable, SelfAttention};
use burn_omni_ops as ops;
use burn_omni_quant::{Bias, Linear, Weights};

use crate::compare::values;

/// What leads from the input of a sparse decoder layer to its choice of experts: the layer gives its output alone, so
/// its first half is put together here from the same parts.
#[derive(Debug)]
pub struct Route {
    input_layernorm: RmsNorm,
    self_attn: SelfAttention,
    post_attention_layernorm: RmsNorm,
    gate: Linear,
    kv_shape: [usize; 2],
    top_k: usize,
}

impl Route {
    /// Loads the parts of the decoder layer at this place.
    pub(crate) fn load(layer: &Weights<'_>, attention: AttentionConfig, moe: MoeConfig) -> Self {
        let (hidden, eps) = (attention.hidden_size, attention.rms_norm_eps);
        let size = AttentionSize {
            hidden,
            heads: attention.num_attention_heads,
            kv_heads: attention.num_key_value_heads,
            head_dim: attention.head_dim,
            qk_norm_eps: Some(eps),
            window: None,
        };
        let norm = |name| RmsNorm::load(&layer.at(name), hidden, eps);
        let mlp = layer.at("mlp");
        Self {
            input_layernorm: norm("input_layernorm"),
            self_attn: SelfAttention::load(&layer.at("self_attn"), size),
            post_attention_layernorm: norm("post_attention_layernorm"),
            gate: mlp.linear("gate", [moe.num_experts, hidden], Bias::No),
            kv_shape: [size.kv_heads, size.head_dim],
            top_k: moe.num_experts_per_tok,
        }
    }

    /// The experts of each row and their weights.
    ///
    /// # Panics
    /// When an expert's number is not one.
    #[must_use]
    pub fn choose(&self, x: Tensor<2>, rope: &RopeTable) -> Chosen {
        let [rows, _] = x.dims();
        let mut cache = KvCache::new(rows, self.kv_shape, DType::F32, &x.device());
        let normed = self.input_layernorm.forward(x.clone());
        let heard = self.self_attn.forward(normed, rope, &mut cache);
        let normed = self.post_attention_layernorm.forward(heard + x);
        let routes = ops::route(self.gate.forward(normed), self.top_k, true);
        let ids = integers(routes.ids);
        let mut pairs: Vec<(u32, f32)> = ids.into_iter().zip(values(routes.weights)).collect();
        for row in pairs.chunks_mut(self.top_k) {
            row.sort_by_key(|(id, _)| *id);
        }
        let (experts, weights) = pairs.into_iter().unzip();
        Chosen {
            experts,
            weights,
            top_k: self.top_k,
        }
    }
}

/// The choice of every row.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// Numbers in ascending order, `[rows, top_k]`.
    pub experts: Vec<u32>,
    /// Their weights, `[rows, top_k]`.
    pub weights: Vec<f32>,
    /// Experts of a row.
    pub top_k: usize,
}

impl Chosen {
    /// The experts of some rows.
    #[must_use]
    pub fn experts_of(&self, rows: &[usize]) -> Vec<u32> {
        let width = self.top_k;
        let experts = rows.iter().map(|row| &self.experts[row * width..][..width]);
        experts.flatten().copied().collect()
    }
}

fn integers(tensor: Tensor<2, Int>) -> Vec<u32> {
    let numbers: Vec<i64> = tensor
        .cast(DType::I64)
        .into_data()
        .try_to_vec()
        .expect("the tensor was cast to i64");
    let narrow = |x: i64| u32::try_from(x).expect("experts are counted from 0");
    numbers.into_iter().map(narrow).collect()
}
