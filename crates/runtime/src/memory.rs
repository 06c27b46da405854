//! The memory that a model takes, computed from the checkpoint's headers.

use std::path::Path;

use burn_omni_model::config::{Config, TalkerConfig};
use burn_omni_quant::checkpoint::{Checkpoint, Component};
use burn_omni_quant::formats::{AtLoad, survey};
use serde::Serialize;

use crate::speech::CAPTURED_ROWS;
use crate::{Error, KvDtype, loading};

/// Bytes of an activation, and of a cached key or value of the talker's passes that are not captured: f32.
pub(crate) const ELEMENT: u64 = 4;
/// Tokens that a context is rounded down to.
const STEP: usize = 256;
/// Context that is worth loading a model for, unless it was asked for less.
const LEAST: usize = 1024;
/// Frames that a packet of speech has at most, as far as this plan goes.
const FRAMES: u64 = 25;

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

/// What decides how much a model takes beside its weights.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Tokens of the longest sequence.
    pub context: usize,
    /// Whether the device has captured passes: see [`burn_omni_ops::decode::multiplies_bf16`].
    pub captured: bool,
    /// Whether talker and code2wav are loaded.
    pub speech: bool,
    /// How keys and values of the thinker are stored.
    pub kv: KvDtype,
}

/// What a model takes on its device.
#[derive(Clone, Debug, Serialize)]
pub struct MemoryPlan {
    /// Weights by component.
    pub components: Vec<ComponentMemory>,
    /// All weights.
    pub weights_bytes: u64,
    /// Tokens that the thinker's caches hold.
    pub context: usize,
    /// Keys and values of the thinker for one token.
    pub kv_bytes_per_token: u64,
    /// Keys and values of the thinker for the whole context.
    pub kv_bytes: u64,
    /// Keys and values of the talker for its longest answer.
    pub talker_kv_bytes: u64,
    /// What is in use while a chunk of a prompt or a packet of speech is computed, and what the device's driver keeps; an
    /// estimate.
    pub workspace_bytes: u64,
    /// All of it, for one answer at a time.
    pub total_bytes: u64,
    /// What [`MemoryPlan::workspace_bytes`] is made of.
    #[serde(skip)]
    pub(crate) workspace: Workspace,
}

/// What is in use for a while, by what it depends on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Workspace {
    /// A chunk of a prompt, without the keys and values that it sees.
    pub(crate) prompt: u64,
    /// Keys and values of a layer as a prompt's products read them, for one token, where they are stored in FP8.
    pub(crate) decoded_per_token: u64,
    /// A packet of speech, which is never computed together with a chunk of a prompt.
    pub(crate) packet: u64,
    /// What the driver keeps.
    pub(crate) overhead: u64,
}

impl Workspace {
    fn bytes(&self, context: usize) -> u64 {
        let prompt = self.prompt + self.decoded_per_token * context as u64;
        prompt.max(self.packet) + self.overhead
    }
}

impl MemoryPlan {
    /// The plan of a checkpoint folder, from its headers alone, on a device that has no captured passes.
    ///
    /// # Errors
    /// When the checkpoint or its config cannot be used.
    pub fn of(dir: &Path, max_context: Option<usize>) -> Result<(Self, Config), Error> {
        let (checkpoint, config) = loading::open(dir)?;
        let longest = config.thinker.text_config.max_position_embeddings;
        let room = Room {
            context: max_context.unwrap_or(longest).min(longest),
            captured: false,
            speech: config.can_speak(),
            kv: KvDtype::Auto,
        };
        Ok((Self::new(&checkpoint, &config, room, None), config))
    }

    /// The plan of an open checkpoint, some of it quantized on loading.
    #[must_use]
    pub fn new(
        checkpoint: &Checkpoint,
        config: &Config,
        room: Room,
        quantize: Option<AtLoad>,
    ) -> Self {
        let components: Vec<_> = Component::ALL
            .into_iter()
            .filter(|component| room.speech || *component == Component::Thinker)
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
        let talker = config.talker.as_ref().filter(|_| room.speech);
        let plan = Self {
            weights_bytes: components.iter().map(|component| component.bytes).sum(),
            components,
            context: 0,
            kv_bytes_per_token: thinker_row(config) * room.kv.bytes(room.captured),
            kv_bytes: 0,
            talker_kv_bytes: talker.map_or(0, talker_row)
                * CAPTURED_ROWS as u64
                * KvDtype::Auto.bytes(room.captured),
            workspace_bytes: 0,
            total_bytes: 0,
            workspace: Workspace {
                prompt: prompt_bytes(config, room),
                decoded_per_token: decoded_per_token(config, room),
                packet: packet_bytes(config, room.speech),
                overhead: 0,
            },
        };
        let workspace = Workspace {
            overhead: overhead(&plan, room),
            ..plan.workspace
        };
        Self { workspace, ..plan }.holding(room.context)
    }

    /// The same with caches for another context.
    fn holding(self, context: usize) -> Self {
        let kv_bytes = self.kv_bytes_per_token * context as u64;
        let workspace_bytes = self.workspace.bytes(context);
        Self {
            context,
            kv_bytes,
            workspace_bytes,
            total_bytes: self.weights_bytes + kv_bytes + self.talker_kv_bytes + workspace_bytes,
            ..self
        }
    }

    /// The longest context with which all of it takes no more than `limit` bytes.
    #[must_use]
    pub fn longest_within(&self, limit: u64) -> usize {
        let Workspace {
            prompt,
            decoded_per_token,
            packet,
            overhead,
        } = self.workspace;
        let rest = limit.saturating_sub(self.weights_bytes + self.talker_kv_bytes + overhead);
        // While a prompt is computed, and while a packet is.
        let (token, kv) = (self.kv_bytes_per_token.max(1), decoded_per_token);
        let prompts = rest.saturating_sub(prompt) / (token + kv);
        let tokens = prompts.min(rest.saturating_sub(packet) / token);
        usize::try_from(tokens).unwrap_or(usize::MAX) / STEP * STEP
    }

    /// The plan with the longest context that keeps it within `limit` bytes, where it `may_shorten` and there is one.
    #[must_use]
    pub fn fitted(self, limit: u64, may_shorten: bool) -> Self {
        match self.clone().within(limit, may_shorten) {
            Ok(plan) => plan,
            Err(_) => self,
        }
    }

    /// The plan, with a shorter context if that is needed to keep within `limit` bytes and `may_shorten`.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn within(self, limit: u64, may_shorten: bool) -> Result<Self, Error> {
        if self.total_bytes <= limit {
            return Ok(self);
        }
        let longest = self.longest_within(limit);
        if may_shorten && longest >= LEAST {
            return Ok(self.holding(longest));
        }
        Err(Error::DoesNotFit {
            needed: self.total_bytes,
            limit,
            context: self.context,
            longest,
        })
    }
}

/// Numbers of a token in the thinker's caches.
pub(crate) fn thinker_row(config: &Config) -> u64 {
    let text = &config.thinker.text_config;
    (2 * text.num_key_value_heads * text.head_dim * text.num_hidden_layers) as u64
}

/// Numbers of a row in the talker's caches.
pub(crate) fn talker_row(talker: &TalkerConfig) -> u64 {
    let text = &talker.text_config;
    (2 * text.num_key_value_heads * text.head_dim * text.num_hidden_layers) as u64
}

/// Prompt rows that pass the decoder at a time, so that memory is bounded and a long prompt can be cancelled. Where matrix
/// units multiply, only many rows keep them busy.
pub(crate) const fn prefill_rows(many: bool) -> usize {
    if many { 4096 } else { 1024 }
}

/// What a chunk of a prompt takes while it passes a layer: the residual rows and their norms, queries, keys and values
/// before and after their rotation, the heads' output, and what lies between the experts' matrices.
fn prompt_bytes(config: &Config, room: Room) -> u64 {
    let text = &config.thinker.text_config;
    let heads = (text.num_attention_heads + 2 * text.num_key_value_heads) * text.head_dim;
    let choices = text.num_experts_per_tok.max(1);
    let numbers = 4 * text.hidden_size
        + 3 * heads
        + choices * (text.moe_intermediate_size + text.hidden_size / 2);
    (prefill_rows(room.captured).min(room.context) * numbers) as u64 * ELEMENT
}

/// Keys and values of a layer for one token in the form that a prompt's products read, where they are stored in FP8.
fn decoded_per_token(config: &Config, room: Room) -> u64 {
    if room.kv == KvDtype::Fp8 {
        let layer = thinker_row(config) / config.thinker.text_config.num_hidden_layers as u64;
        layer * KvDtype::Auto.bytes(room.captured)
    } else {
        0
    }
}

/// What the driver keeps for contexts, kernels and graphs, and what pools of memory cannot use, on devices with captured
/// passes: as measured on an H200, where a model of 27.8 GB takes 3.3 GB more than its parts.
fn overhead(plan: &MemoryPlan, room: Room) -> u64 {
    if room.captured {
        1_000_000_000 + plan.weights_bytes / 12
    } else {
        0
    }
}

/// What a packet of speech takes in the widest of code2wav's blocks: what comes in, what comes out, and two halves of either.
fn packet_bytes(config: &Config, speech: bool) -> u64 {
    let Some(code2wav) = config.code2wav.as_ref().filter(|_| speech) else {
        return 0;
    };
    let samples = code2wav.total_upsample() as u64;
    let narrowest = code2wav.block_channels(code2wav.upsample_rates.len() - 1) as u64;
    FRAMES * samples * narrowest * ELEMENT * 6
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
