//! The layers of a decoder, and what lies between their halves.

use burn::tensor::{DType, Device, Int, Tensor};
use burn_omni_model::config::{AttentionConfig, MoeConfig};
use burn_omni_model::layers::{
    AttentionSize, DecoderLayer, FeedForward, KvCache, Mlp, RmsNorm, Rope, SparseMoe,
};
use burn_omni_ops::{self as ops, KvFormat};
use burn_omni_quant::checkpoint::Component;
use burn_omni_quant::{Bias, Linear, Weights};

use super::{Drawn, Rounding};
use crate::compare::values;

/// Which decoder of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Thinker,
    Talker,
    CodePredictor,
}

/// A decoder's sizes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    attention: AttentionConfig,
    feed_forward: Block,
    layers: usize,
}

/// What follows attention.
#[derive(Clone, Copy, Debug)]
enum Block {
    /// Its inner width.
    Dense(usize),
    Sparse(MoeConfig),
}

/// A decoder on a device.
pub(super) struct Stack {
    pub(super) layers: Vec<DecoderLayer>,
    /// What chooses the experts of each layer that has some.
    pub(super) routers: Vec<Option<Router>>,
    pub(super) norm: RmsNorm,
    pub(super) rope: Rope,
    pub(super) device: Device,
    kv_shape: [usize; 2],
    hidden: usize,
}

/// The choice of experts, which a layer keeps to itself.
pub(super) struct Router {
    norm: RmsNorm,
    gate: Linear,
    top_k: usize,
    normalize: bool,
}

/// What a layer did to some rows.
pub(super) struct Passed {
    pub(super) input: Tensor<2>,
    pub(super) attended: Tensor<2>,
    /// Where there are experts.
    pub(super) choice: Option<Choice>,
    pub(super) output: Tensor<2>,
}

/// The experts of some rows.
pub(super) struct Choice {
    /// `[rows, experts]`
    pub(super) scores: Tensor<2>,
    /// Of each row, in ascending order.
    pub(super) experts: Vec<Vec<i64>>,
    /// By how much the last that was chosen scores more than the first that was not, as a share of what scores are.
    pub(super) margins: Vec<f64>,
}

impl Which {
    pub(super) const ALL: [Self; 3] = [Self::Thinker, Self::Talker, Self::CodePredictor];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Thinker => "thinker",
            Self::Talker => "talker",
            Self::CodePredictor => "predictor",
        }
    }

    const fn component(self) -> Component {
        match self {
            Self::Thinker => Component::Thinker,
            Self::Talker | Self::CodePredictor => Component::Talker,
        }
    }

    /// The place of its layers in the component.
    pub(super) const fn place(self) -> &'static str {
        match self {
            Self::Thinker | Self::Talker => "model",
            Self::CodePredictor => "code_predictor.model",
        }
    }

    /// Its sizes.
    ///
    /// # Panics
    /// When the model has none.
    pub(super) fn sizes(self, model: &Drawn) -> Sizes {
        let talker = model.config.talker.as_ref();
        let talker = || talker.expect("the model speaks");
        match self {
            Self::Thinker => {
                let config = &model.config.thinker.text_config;
                Sizes {
                    attention: config.attention(),
                    feed_forward: Block::Sparse(config.moe()),
                    layers: config.num_hidden_layers,
                }
            }
            Self::Talker => {
                let config = &talker().text_config;
                Sizes {
                    attention: config.attention(),
                    feed_forward: Block::Sparse(config.moe()),
                    layers: config.num_hidden_layers,
                }
            }
            Self::CodePredictor => {
                let config = &talker().code_predictor_config;
                Sizes {
                    attention: config.attention(),
                    feed_forward: Block::Dense(config.intermediate_size),
                    layers: config.num_hidden_layers,
                }
            }
        }
    }

    /// Draws it.
    pub(super) fn on(self, device: &Device, model: &Drawn) -> Stack {
        let sizes = self.sizes(model);
        model.on(device, self.component(), |weights| {
            Stack::load(&weights.at(self.place()), sizes)
        })
    }

    /// What a device rounds in it.
    pub(super) fn rounding(self, device: &Device, model: &Drawn) -> Rounding {
        let packed = self == Self::Thinker && model.quantize.is_some();
        Rounding::on(device, packed)
    }
}

impl Stack {
    /// The layers at the place of a decoder.
    pub(super) fn load(weights: &Weights<'_>, sizes: Sizes) -> Self {
        let Sizes {
            attention,
            feed_forward,
            layers,
        } = sizes;
        let (hidden, eps) = (attention.hidden_size, attention.rms_norm_eps);
        let size = AttentionSize {
            qk_norm_eps: Some(eps),
            ..attention.into()
        };
        let places = weights.at("layers");
        let layer = |layer: &Weights<'_>| {
            DecoderLayer::load(layer, size, eps, |mlp| match feed_forward {
                Block::Dense(inner) => FeedForward::Dense(Box::new(Mlp::load(mlp, hidden, inner))),
                Block::Sparse(moe) => {
                    FeedForward::Sparse(Box::new(SparseMoe::load(mlp, moe.into())))
                }
            })
        };
        let router = |layer: &Weights<'_>| match feed_forward {
            Block::Dense(_) => None,
            Block::Sparse(moe) => Some(Router {
                norm: RmsNorm::load(&layer.at("post_attention_layernorm"), hidden, eps),
                gate: layer
                    .at("mlp")
                    .linear("gate", [moe.num_experts, hidden], Bias::No),
                top_k: moe.num_experts_per_tok,
                normalize: moe.norm_topk_prob,
            }),
        };
        let rope = attention.rope;
        Self {
            layers: places.list(layers, layer),
            routers: places.list(layers, router),
            norm: RmsNorm::load(&weights.at("norm"), hidden, eps),
            rope: Rope::new(attention.head_dim, rope.rope_theta, rope.mrope_section),
            device: weights.device().clone(),
            kv_shape: [attention.num_key_value_heads, attention.head_dim],
            hidden,
        }
    }

    pub(super) const fn hidden(&self) -> usize {
        self.hidden
    }

    /// Keys and values of one layer. Where floats are asked for, the device has those that it has in captured steps.
    pub(super) fn cache(&self, capacity: usize, format: KvFormat) -> KvCache {
        let format = match format {
            KvFormat::Float(_) => Rounding::on(&self.device, false).cache(),
            KvFormat::E4m3 => format,
        };
        KvCache::new(capacity, self.kv_shape, format, &self.device)
    }

    /// A layer over rows that nothing stands before.
    pub(super) fn pass(&self, layer: usize, input: Tensor<2>, format: KvFormat) -> Passed {
        let [rows, _] = input.dims();
        let rope = self.rope.sequence(0, rows, &self.device);
        let mut cache = self.cache(rows, format);
        let attended = self.layers[layer].attend(input.clone(), &rope, &mut cache);
        let router = self.routers[layer].as_ref();
        Passed {
            choice: router.map(|router| router.choose(attended.clone())),
            output: self.layers[layer].feed_forward(attended.clone()),
            attended,
            input,
        }
    }
}

impl Router {
    /// The experts of rows that attention is added to.
    ///
    /// # Panics
    /// When an expert's number is none.
    pub(super) fn choose(&self, attended: Tensor<2>) -> Choice {
        let scores = self.gate.forward(self.norm.forward(attended));
        let routes = ops::route(scores.clone(), self.top_k, self.normalize);
        let [_, experts] = scores.dims();
        let sorted = values(scores.clone());
        let margins = sorted.chunks(experts).map(|scores| {
            let mut scores: Vec<f64> = scores.iter().map(|score| f64::from(*score)).collect();
            let square = scores.iter().map(|score| score * score).sum::<f64>() / experts as f64;
            scores.sort_by(|a, b| b.total_cmp(a));
            match scores.get(self.top_k) {
                Some(first_left) => (scores[self.top_k - 1] - first_left) / square.sqrt(),
                None => f64::INFINITY,
            }
        });
        Choice {
            margins: margins.collect(),
            experts: sets(routes.ids, self.top_k),
            scores,
        }
    }
}

fn sets(ids: Tensor<2, Int>, top_k: usize) -> Vec<Vec<i64>> {
    let ids = ids.cast(DType::I64).into_data();
    let ids: Vec<i64> = ids.try_to_vec().expect("the tensor was cast to i64");
    let set = |ids: &[i64]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    ids.chunks(top_k).map(set).collect()
}
