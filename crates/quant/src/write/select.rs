//! Which modules are quantized, and which of them share a tensor scale.

use crate::checkpoint::Component;

use super::WriteOptions;

/// Whether a module of a component is quantized, by its local name, if nothing ignores it: the projections of decoder
/// layers and, when they are wanted, the heads. Routers, embeddings, norms and encoders never are.
pub(super) fn is_wanted(component: Component, module: &str, options: &WriteOptions) -> bool {
    let head = match component {
        Component::Thinker => "lm_head",
        Component::Talker if options.talker => "codec_head",
        Component::Talker | Component::Code2Wav => return false,
    };
    let is_projection = module.starts_with("model.layers.") && module.ends_with("_proj");
    is_projection || options.head && module == head
}

/// The name that all modules have in common whose tensor scale is one: those that engines run as one matrix.
pub(super) fn group(module: &str) -> String {
    let (parent, last) = module.rsplit_once('.').unwrap_or(("", module));
    match last {
        "q_proj" | "k_proj" | "v_proj" => format!("{parent}.qkv"),
        "gate_proj" | "up_proj" => format!("{parent}.gate_up"),
        _ => module.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write::Form;

    #[test]
    fn layers_and_what_is_asked_for() {
        let plain = WriteOptions::new(Form::ModelOpt);
        let talker = WriteOptions {
            talker: true,
            ..plain.clone()
        };
        let head = WriteOptions {
            head: true,
            ..plain.clone()
        };
        let all = WriteOptions {
            talker: true,
            head: true,
            ..plain.clone()
        };
        let cases = [
            (Component::Thinker, "model.layers.0.self_attn.q_proj", 15),
            (
                Component::Thinker,
                "model.layers.9.mlp.experts.3.down_proj",
                15,
            ),
            (Component::Thinker, "model.layers.0.mlp.gate", 0),
            (Component::Thinker, "model.embed_tokens", 0),
            (
                Component::Thinker,
                "audio_tower.layers.0.self_attn.q_proj",
                0,
            ),
            (Component::Thinker, "visual.blocks.0.attn.proj", 0),
            (Component::Thinker, "lm_head", 12),
            (
                Component::Talker,
                "model.layers.0.mlp.shared_expert.up_proj",
                10,
            ),
            (
                Component::Talker,
                "model.layers.0.mlp.shared_expert_gate",
                0,
            ),
            (
                Component::Talker,
                "code_predictor.model.layers.0.self_attn.q_proj",
                0,
            ),
            (Component::Talker, "codec_head", 8),
            (
                Component::Code2Wav,
                "pre_transformer.layers.0.self_attn.q_proj",
                0,
            ),
        ];
        for (component, module, expected) in cases {
            let wanted = [&plain, &talker, &head, &all].map(|o| is_wanted(component, module, o));
            let bits = wanted
                .iter()
                .rev()
                .fold(0, |bits, &is| bits << 1 | i32::from(is));
            assert_eq!(bits, expected, "{component} {module}: {wanted:?}");
        }
    }

    #[test]
    fn what_runs_as_one_matrix_shares_a_scale() {
        let groups = ["q_proj", "k_proj", "v_proj"].map(|name| group(&format!("l.0.attn.{name}")));
        assert!(groups.iter().all(|name| name == "l.0.attn.qkv"));
        assert_eq!(group("e.0.gate_proj"), group("e.0.up_proj"));
        assert_ne!(group("e.0.gate_proj"), group("e.1.gate_proj"));
        assert_eq!(group("e.0.down_proj"), "e.0.down_proj");
        assert_eq!(group("lm_head"), "lm_head");
    }
}
