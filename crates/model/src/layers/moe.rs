//! The sparse feed-forward block.

use burn::tensor::{Tensor, activation};
use burn_omni_ops as ops;
use burn_omni_ops::decode::{FeedForwardParts, Matrices, SharedParts};
use burn_omni_quant::{Bias, Experts, Linear, Weights};

use super::Mlp;
use crate::config::MoeConfig;

/// The sizes of a sparse block.
#[derive(Clone, Copy, Debug)]
pub struct MoeSize {
    /// `hidden_size`
    pub hidden: usize,
    /// `num_experts`
    pub experts: usize,
    /// `num_experts_per_tok`
    pub top_k: usize,
    /// `moe_intermediate_size`
    pub intermediate: usize,
    /// `shared_expert_intermediate_size`, where there is a shared expert.
    pub shared_intermediate: Option<usize>,
    /// `norm_topk_prob`
    pub normalize: bool,
}

impl From<MoeConfig> for MoeSize {
    fn from(config: MoeConfig) -> Self {
        Self {
            hidden: config.hidden_size,
            experts: config.num_experts,
            top_k: config.num_experts_per_tok,
            intermediate: config.moe_intermediate_size,
            shared_intermediate: config.shared_expert_intermediate_size,
            normalize: config.norm_topk_prob,
        }
    }
}

/// A router, its experts, and an expert that every row passes where the model has one.
#[derive(Clone, Debug)]
pub struct SparseMoe {
    gate: Linear,
    experts: Experts,
    shared: Option<Shared>,
    size: MoeSize,
}

/// The shared expert and the gate on its output.
#[derive(Clone, Debug)]
struct Shared {
    shared_expert: Mlp,
    shared_expert_gate: Linear,
}

impl SparseMoe {
    /// Loads `gate`, `experts` and, where the size names one, `shared_expert` with `shared_expert_gate`.
    #[must_use]
    pub fn load(weights: &Weights<'_>, size: MoeSize) -> Self {
        let shared = size.shared_intermediate.map(|intermediate| Shared {
            shared_expert: Mlp::load(&weights.at("shared_expert"), size.hidden, intermediate),
            shared_expert_gate: weights.linear("shared_expert_gate", [1, size.hidden], Bias::No),
        });
        Self {
            gate: weights.linear("gate", [size.experts, size.hidden], Bias::No),
            experts: weights
                .at("experts")
                .experts(size.experts, size.hidden, size.intermediate),
            shared,
            size,
        }
    }

    /// The weights, where kernels of whole layers can use them.
    #[must_use]
    pub fn parts(&self) -> Option<FeedForwardParts> {
        let shared = match &self.shared {
            None => None,
            Some(shared) => Some(SharedParts {
                gate: dense(&shared.shared_expert_gate)?,
                matrices: shared.shared_expert.matrices()?,
            }),
        };
        Some(FeedForwardParts::Sparse {
            router: dense(&self.gate)?,
            top_k: self.size.top_k,
            normalize: self.size.normalize,
            experts: self.experts.matrices()?,
            shared,
        })
    }

    /// Bytes of the matrices that one row meets.
    #[must_use]
    pub fn row_bytes(&self) -> usize {
        let shared = self.shared.as_ref().map_or(0, |shared| {
            shared.shared_expert.bytes() + shared.shared_expert_gate.bytes()
        });
        let chosen = self.experts.bytes() / self.size.experts * self.size.top_k;
        self.gate.bytes() + chosen + shared
    }

    /// # Shapes
    /// - x, output: `[rows, hidden]`
    #[must_use]
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let routes = ops::route(
            self.gate.forward(x.clone()),
            self.size.top_k,
            self.size.normalize,
        );
        let routed = self.experts.forward(x.clone(), routes);
        match &self.shared {
            Some(Shared {
                shared_expert,
                shared_expert_gate,
            }) => {
                let gate = activation::sigmoid(shared_expert_gate.forward(x.clone())); // [rows, 1]
                routed + shared_expert.forward(x) * gate
            }
            None => routed,
        }
    }
}

/// A matrix that is not packed, where there is nothing else.
fn dense(linear: &Linear) -> Option<Tensor<2>> {
    match linear.matrices()? {
        Matrices::Dense(matrix) => Some(matrix.squeeze_dim(0)),
        Matrices::Packed(_) => None,
    }
}
