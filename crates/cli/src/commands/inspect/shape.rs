//! Layers, widths and experts of every part.

use burn_omni::Config;
use serde::Serialize;

/// One part of the model in a few words.
#[derive(Debug, Serialize)]
pub(super) struct Shape {
    pub(super) part: &'static str,
    pub(super) summary: String,
}

/// The parts that the config describes.
#[expect(
    clippy::too_many_lines,
    reason = "a list, one line of output after another"
)]
pub(super) fn of(config: &Config) -> Vec<Shape> {
    let mut parts = Vec::new();
    let mut add = |part, summary| parts.push(Shape { part, summary });
    let (text, audio) = (&config.thinker.text_config, &config.thinker.audio_config);
    let vision = &config.thinker.vision_config;
    add(
        "text",
        format!(
            "{} layers of {}, {} heads on {} of {}, {} experts of {}, {} at a time, vocabulary {}",
            text.num_hidden_layers,
            text.hidden_size,
            text.num_attention_heads,
            text.num_key_value_heads,
            text.head_dim,
            text.num_experts,
            text.moe_intermediate_size,
            text.num_experts_per_tok,
            text.vocab_size,
        ),
    );
    add(
        "audio",
        format!(
            "{} layers of {}, {} heads, {} mel bins",
            audio.encoder_layers, audio.d_model, audio.encoder_attention_heads, audio.num_mel_bins,
        ),
    );
    add(
        "vision",
        format!(
            "{} layers of {}, {} heads, patches of {}×{}",
            vision.depth,
            vision.hidden_size,
            vision.num_heads,
            vision.patch_size,
            vision.patch_size,
        ),
    );
    if let Some(talker) = &config.talker {
        let (text, predictor) = (&talker.text_config, &talker.code_predictor_config);
        add(
            "speech",
            format!(
                "{} layers of {}, {} heads on {} of {}, {} experts of {}, {} at a time, and a shared one of {}",
                text.num_hidden_layers,
                text.hidden_size,
                text.num_attention_heads,
                text.num_key_value_heads,
                text.head_dim,
                text.num_experts,
                text.moe_intermediate_size,
                text.num_experts_per_tok,
                text.shared_expert_intermediate_size,
            ),
        );
        add(
            "codes",
            format!(
                "{} layers of {}, {} heads on {} of {}, {} codes of {} a frame",
                predictor.num_hidden_layers,
                predictor.hidden_size,
                predictor.num_attention_heads,
                predictor.num_key_value_heads,
                predictor.head_dim,
                talker.num_code_groups,
                predictor.vocab_size,
            ),
        );
    }
    if let Some(sound) = &config.code2wav {
        add(
            "sound",
            format!(
                "{} layers of {}, then {} channels, {} samples a frame, {:.1} frames a second",
                sound.num_hidden_layers,
                sound.hidden_size,
                sound.decoder_dim,
                sound.total_upsample(),
                sound.frame_rate(),
            ),
        );
    }
    parts
}
