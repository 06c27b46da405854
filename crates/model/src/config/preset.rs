//! Geometries that are known by name, for benches without weights.

use std::path::Path;

use super::Config;

/// Each name with its `config.json`.
const PRESETS: [(&str, &str); 1] = [(
    "qwen3-omni-30b-a3b",
    include_str!("preset/qwen3-omni-30b-a3b.json"),
)];

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
