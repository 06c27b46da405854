//! The tiny model as parts, and as an engine.

use std::sync::LazyLock;

use burn::tensor::{DType, Device, Int, Tensor};
use burn_omni::{Engine, EngineConfig};
use burn_omni_model::config::{Config, TextConfig};
use burn_omni_model::layers::{AttentionSize, KvCache, RmsNorm, RopeTable, SelfAttention};
use burn_omni_model::processor::Processor;
use burn_omni_model::thinker::Thinker;
use burn_omni_ops as ops;
use burn_omni_quant::checkpoint::{Checkpoint, Component};
use burn_omni_quant::{Bias, Linear, LoadOptions, Weights, load};

use super::folder;

/// The thinker, with what its layers do not tell.
#[derive(Debug)]
pub struct Thinking {
    /// Prompt to text.
    pub thinker: Thinker,
    /// The way from each layer's input to its routes.
    pub routes: Vec<Route>,
}

/// The device of the golden tests.
#[must_use]
pub fn device() -> Device {
    Device::flex()
}

/// Makes something of the tiny model's checkpoint and config.
fn opened<T>(build: impl FnOnce(&Checkpoint, &Config) -> T) -> T {
    let dir = folder();
    let checkpoint = Checkpoint::open(dir.path()).expect("the folder is a checkpoint");
    let config = Config::from_checkpoint(&checkpoint).expect("its config is whole");
    build(&checkpoint, &config)
}

/// Loads a component in f32.
fn component<T>(
    checkpoint: &Checkpoint,
    component: Component,
    build: impl Fn(&Weights<'_>) -> T,
) -> T {
    let tensors = checkpoint.component(component).expect("the model is whole");
    let options = LoadOptions {
        device: &device(),
        dtype: DType::F32,
        progress: &|_| {},
    };
    load(tensors, options, build).unwrap_or_else(|error| panic!("{error}"))
}

/// The tiny model's processor, loaded once.
#[must_use]
pub fn processor() -> &'static Processor {
    static PROCESSOR: LazyLock<Processor> = LazyLock::new(|| {
        opened(|checkpoint, config| {
            Processor::load(checkpoint, &config.thinker).expect("its side files are whole")
        })
    });
    &PROCESSOR
}

/// The tiny model's thinker, loaded once.
#[must_use]
pub fn thinking() -> &'static Thinking {
    static THINKING: LazyLock<Thinking> = LazyLock::new(|| {
        opened(|checkpoint, config| {
            let accept = config
                .talker
                .as_ref()
                .map(|talker| talker.accept_hidden_layer);
            let text = &config.thinker.text_config;
            component(checkpoint, Component::Thinker, |weights| Thinking {
                thinker: Thinker::load(weights, &config.thinker, accept),
                routes: weights
                    .at("model")
                    .at("layers")
                    .list(text.num_hidden_layers, |layer| Route::thinker(layer, text)),
            })
        })
    });
    &THINKING
}

/// The tiny model as an engine, loaded once.
///
/// # Panics
/// When it cannot be loaded.
#[must_use]
pub fn engine() -> &'static Engine {
    static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
        let dir = folder();
        Engine::load(EngineConfig::new(dir.path()).device(device())).expect("the engine loads")
    });
    &ENGINE
}

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
    fn thinker(layer: &Weights<'_>, config: &TextConfig) -> Self {
        let attention = AttentionSize {
            hidden: config.hidden_size,
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            qk_norm_eps: Some(config.rms_norm_eps),
            window: None,
        };
        Self::load(
            layer,
            attention,
            [config.num_experts, config.num_experts_per_tok],
            config.rms_norm_eps,
        )
    }

    fn load(
        layer: &Weights<'_>,
        size: AttentionSize,
        [experts, top_k]: [usize; 2],
        eps: f64,
    ) -> Self {
        let norm = |name| RmsNorm::load(&layer.at(name), size.hidden, eps);
        Self {
            input_layernorm: norm("input_layernorm"),
            self_attn: SelfAttention::load(&layer.at("self_attn"), size),
            post_attention_layernorm: norm("post_attention_layernorm"),
            gate: layer
                .at("mlp")
                .linear("gate", [experts, size.hidden], Bias::No),
            kv_shape: [size.kv_heads, size.head_dim],
            top_k,
        }
    }

    /// The experts of each row in ascending order, and their weights, `[rows, top_k]` each.
    ///
    /// # Panics
    /// When an expert's number is not one.
    #[must_use]
    pub fn choose(&self, x: Tensor<2>, rope: &RopeTable) -> (Vec<u32>, Vec<f32>) {
        let [rows, _] = x.dims();
        let mut cache = KvCache::new(rows, self.kv_shape, DType::F32, &x.device());
        let heard =
            self.self_attn
                .forward(self.input_layernorm.forward(x.clone()), rope, &mut cache);
        let logits = self
            .gate
            .forward(self.post_attention_layernorm.forward(heard + x));
        let routes = ops::route(logits, self.top_k, true);
        let ids = integers(routes.ids);
        let weights = crate::compare::values(routes.weights);
        let mut pairs: Vec<(u32, f32)> = ids.into_iter().zip(weights).collect();
        for row in pairs.chunks_mut(self.top_k) {
            row.sort_by_key(|(id, _)| *id);
        }
        pairs.into_iter().unzip()
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
