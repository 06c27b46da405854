//! The memory that a model takes, computed from the checkpoint's headers.

use std::path::Path;

use burn_omni_model::config::Config;
use burn_omni_quant::checkpoint::{Checkpoint, Component};
use burn_omni_quant::formats::{AtLoad, survey};
use serde::Serialize;

use crate::{Error, loading};

/// Bytes of an activation and of a cached key or value: f32.
const ELEMENT: u64 = 4;

/// The weights of one component.
#[derive(Clone, Debug, Serialize)]
pub struct ComponentMemory {
    /// `thinker`, `talker` or `code2wav`.
    pub component: &'static str,
    /// Number of tensors.
    pub tensors: usize,
    /// Number of weights.
    pub parameters: u64,
    /// Bytes in memory.
    pub bytes: u64,
    /// Tensors and bytes in memory by stored form: a dtype, or a quantized format such as NVFP4.
    pub stored: Vec<(String, usize, u64)>,
}

/// What a model takes on its device.
#[derive(Clone, Debug, Serialize)]
pub struct MemoryPlan {
    /// Weights by component.
    pub components: Vec<ComponentMemory>,
    /// All weights.
    pub weights_bytes: u64,
    /// Tokens that the caches below hold.
    pub context: usize,
    /// Keys and values of the thinker for one token.
    pub kv_bytes_per_token: u64,
    /// Keys and values of the thinker for the whole context.
    pub kv_bytes: u64,
    /// Weights and caches.
    pub total_bytes: u64,
}

impl MemoryPlan {
    /// The plan of a checkpoint folder, from its headers alone.
    ///
    /// # Errors
    /// When the checkpoint or its config cannot be used.
    pub fn of(dir: &Path, max_context: Option<usize>) -> Result<(Self, Config), Error> {
        let (checkpoint, config) = loading::open(dir)?;
        let longest = config.thinker.text_config.max_position_embeddings;
        Ok((
            Self::new(
                &checkpoint,
                &config,
                max_context.unwrap_or(longest).min(longest),
                None,
            ),
            config,
        ))
    }

    /// The plan of an open checkpoint with room for `context` tokens, some of it quantized on loading.
    #[must_use]
    pub fn new(
        checkpoint: &Checkpoint,
        config: &Config,
        context: usize,
        quantize: Option<AtLoad>,
    ) -> Self {
        let components: Vec<_> = Component::ALL
            .into_iter()
            .filter_map(|component| checkpoint.component(component))
            .map(|set| {
                let forms = survey(set, quantize);
                ComponentMemory {
                    component: set.component().name(),
                    tensors: set.len(),
                    parameters: forms.values().map(|form| form.parameters).sum(),
                    bytes: forms.values().map(|form| form.memory).sum(),
                    stored: forms
                        .into_iter()
                        .map(|(name, form)| (name, form.tensors, form.memory))
                        .collect(),
                }
            })
            .collect();
        let text = &config.thinker.text_config;
        let row = text.num_key_value_heads * text.head_dim * text.num_hidden_layers;
        let kv_bytes_per_token = 2 * row as u64 * ELEMENT;
        let kv_bytes = kv_bytes_per_token * context as u64;
        let weights_bytes = components.iter().map(|component| component.bytes).sum();
        Self {
            components,
            weights_bytes,
            context,
            kv_bytes_per_token,
            kv_bytes,
            total_bytes: weights_bytes + kv_bytes,
        }
    }

    /// The same without talker and code2wav.
    pub(crate) fn thinker(mut self) -> Self {
        self.components
            .retain(|part| part.component == Component::Thinker.name());
        self.weights_bytes = self.components.iter().map(|part| part.bytes).sum();
        self.total_bytes = self.weights_bytes + self.kv_bytes;
        self
    }
}
