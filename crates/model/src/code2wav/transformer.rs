//! The transformer over frames, each of which sees a window of the last.

use burn::tensor::{DType, Device, Tensor};
use burn_omni_ops as ops;
use burn_omni_quant::Weights;

use crate::config::Code2WavConfig;
use crate::layers::{AttentionSize, KvCache, Mlp, RmsNorm, Rope, RopeTable, SelfAttention};

/// Pushes of the most frames that a cache has room for behind a window, before the rows of the window move to its front.
const ROOM: usize = 2;

/// A stack of layers with a window.
#[derive(Clone, Debug)]
pub(super) struct Transformer {
    layers: Vec<Layer>,
    norm: RmsNorm,
    rope: Rope,
    size: AttentionSize,
    window: usize,
}

/// Attention and feed-forward, each scaled by channel before it is added to its input.
#[derive(Clone, Debug)]
struct Layer {
    input_layernorm: RmsNorm,
    self_attn: SelfAttention,
    self_attn_layer_scale: Tensor<1>,
    post_attention_layernorm: RmsNorm,
    mlp: Mlp,
    mlp_layer_scale: Tensor<1>,
}

/// Keys and values of the frames that the next one sees, and its position.
#[derive(Clone, Debug)]
pub(super) struct TransformerState {
    caches: Vec<KvCache>,
    position: usize,
}

impl Transformer {
    /// Loads `layers` and `norm`.
    pub(super) fn load(weights: &Weights<'_>, config: &Code2WavConfig) -> Self {
        let window = config.sliding_window.min(config.max_position_embeddings);
        let size = AttentionSize {
            window: Some(window),
            ..config.attention().into()
        };
        Self {
            layers: weights
                .at("layers")
                .list(config.num_hidden_layers, |layer| {
                    Layer::load(layer, size, config)
                }),
            norm: RmsNorm::load(&weights.at("norm"), config.hidden_size, config.rms_norm_eps),
            rope: Rope::new(config.head_dim, config.rope.rope_theta, None),
            size,
            window,
        }
    }

    /// The state of a new stream that is passed at most `frames` at a time.
    pub(super) fn state(
        &self,
        frames: usize,
        (device, dtype): (&Device, DType),
    ) -> TransformerState {
        let size = [self.size.kv_heads, self.size.head_dim];
        let cache = || KvCache::new(self.window - 1 + ROOM * frames, size, dtype, device);
        TransformerState {
            caches: self.layers.iter().map(|_| cache()).collect(),
            position: 0,
        }
    }

    /// # Shapes
    /// - x, output: `[frames, hidden]`, the frames that follow those in the state
    pub(super) fn forward(&self, mut x: Tensor<2>, state: &mut TransformerState) -> Tensor<2> {
        let [frames, _] = x.dims();
        let rope = self.rope.sequence(state.position, frames, &x.device());
        for (layer, cache) in self.layers.iter().zip(&mut state.caches) {
            if cache.len() + frames > cache.capacity() {
                cache.keep_last(self.window - 1);
            }
            x = layer.forward(x, &rope, cache);
        }
        state.position += frames;
        self.norm.forward(x)
    }
}

impl Layer {
    fn load(weights: &Weights<'_>, size: AttentionSize, config: &Code2WavConfig) -> Self {
        let norm = |name| RmsNorm::load(&weights.at(name), size.hidden, config.rms_norm_eps);
        let scale = |name| weights.at(name).tensor("scale", [size.hidden]);
        Self {
            input_layernorm: norm("input_layernorm"),
            self_attn: SelfAttention::load(&weights.at("self_attn"), size),
            self_attn_layer_scale: scale("self_attn_layer_scale"),
            post_attention_layernorm: norm("post_attention_layernorm"),
            mlp: Mlp::load(&weights.at("mlp"), size.hidden, config.intermediate_size),
            mlp_layer_scale: scale("mlp_layer_scale"),
        }
    }

    /// # Shapes
    /// - x, output: `[frames, hidden]`
    fn forward(&self, x: Tensor<2>, rope: &RopeTable, cache: &mut KvCache) -> Tensor<2> {
        let norm = &self.input_layernorm;
        let attended = self.self_attn.forward_normed(x.clone(), norm, rope, cache);
        let x = ops::add_scaled(x, attended, self.self_attn_layer_scale.clone());
        let norm = &self.post_attention_layernorm;
        let fed = self.mlp.forward_normed(x.clone(), norm);
        ops::add_scaled(x, fed, self.mlp_layer_scale.clone())
    }
}
