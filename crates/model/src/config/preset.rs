//! Geometries that are known by name: for benches without weights, and for checkpoints that came without a config.

use std::path::Path;
use std::sync::OnceLock;

use burn_omni_quant::checkpoint::{Component, TensorSet};
use serde_json::Value;

use super::{Config, ConfigError, Section};

/// Each name with its `config.json`.
const PRESETS: [(&str, &str); 2] = [
    (
        "qwen3-omni-30b-a3b",
        include_str!("preset/qwen3-omni-30b-a3b.json"),
    ),
    (
        "omni-demo",
        include_str!("../../../../assets/omni-demo/config.json"),
    ),
];

impl Config {
    /// Names that [`Config::preset`] knows.
    pub fn presets() -> impl Iterator<Item = &'static str> {
        PRESETS.iter().map(|(name, _)| *name)
    }

    /// The config of a model that is known by name; `None` for another name.
    #[must_use]
    pub fn preset(name: &str) -> Option<Self> {
        let (name, text) = PRESETS.iter().find(|(known, _)| *known == name)?;
        let json = serde_json::from_str(text).expect("a preset is JSON");
        Some(Self::from_json(Path::new(name), &json).expect("a preset is a valid config"))
    }
}

/// The config of a component without one, when its tensors are those of a release: so that folders whose `config.json`
/// was lost on the way can be used.
pub(super) fn of_tensors(tensors: &TensorSet) -> Option<Result<Section<'static>, ConfigError>> {
    static RELEASE: OnceLock<Value> = OnceLock::new();
    let (name, text) = PRESETS[0];
    let release = RELEASE.get_or_init(|| serde_json::from_str(text).expect("a preset is JSON"));
    let component = tensors.component();
    let key = component.config_key();
    let shape = |name: &str| tensors.get(name).map(|tensor| tensor.shape.to_vec());
    let has = |prefix: &str| tensors.names().any(|name| name.starts_with(prefix));
    is_of(component, &release[key], shape, has)
        .then(|| Section::new(Path::new(name), key, &release[key]))
}

/// Whether the table of embeddings and the number of layers are those of this config.
fn is_of(
    component: Component,
    config: &Value,
    shape: impl Fn(&str) -> Option<Vec<usize>>,
    has: impl Fn(&str) -> bool,
) -> bool {
    let (table, text, layers) = match component {
        Component::Thinker => (
            "model.embed_tokens.weight",
            &config["text_config"],
            "model.layers",
        ),
        Component::Talker => (
            "model.codec_embedding.weight",
            &config["text_config"],
            "model.layers",
        ),
        Component::Code2Wav => ("code_embedding.weight", config, "pre_transformer.layers"),
    };
    let size = |key: &str| {
        text[key]
            .as_u64()
            .and_then(|size| usize::try_from(size).ok())
    };
    let rows = match component {
        Component::Code2Wav => size("codebook_size")
            .zip(size("num_quantizers"))
            .map(|(a, b)| a * b),
        _ => size("vocab_size"),
    };
    let (Some(rows), Some(width), Some(count)) =
        (rows, size("hidden_size"), size("num_hidden_layers"))
    else {
        return false;
    };
    shape(table) == Some(vec![rows, width])
        && has(&format!("{layers}.{}.", count.saturating_sub(1)))
        && !has(&format!("{layers}.{count}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_known_by_its_tensors() {
        let release: Value = serde_json::from_str(PRESETS[0].1).unwrap();
        let cases = [
            (Component::Thinker, [152_064, 2048], "model.layers.47."),
            (Component::Talker, [3072, 1024], "model.layers.19."),
            (
                Component::Code2Wav,
                [16 * 2048, 1024],
                "pre_transformer.layers.7.",
            ),
        ];
        for (component, table, last) in cases {
            let config = &release[component.config_key()];
            let is = |table: [usize; 2], layer: &str| {
                let shape = |name: &str| name.contains("embed").then(|| table.to_vec());
                is_of(component, config, shape, |prefix| prefix == layer)
            };
            assert!(is(table, last), "{component}");
            assert!(!is([table[0], table[1] / 2], last), "{component}");
            assert!(!is(table, "model.layers.1."), "{component}");
        }
    }
}
