//! What a config says about the quantization: `quantization_config` in `config.json`, or `hf_quant_config.json`.
//!
//! The tensors decide what they are. What is read here names the tool in messages, tells one version of GPTQ from the
//! other, and is compared with the tensors: where they disagree the user is told.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::Warnings;
use crate::checkpoint::{Checkpoint, Component};

use super::pattern::Pattern;

/// Values of `quant_method`, in small letters and with `-` for `_`.
const METHODS: [&str; 14] = [
    "modelopt",
    "modelopt-fp4",
    "modelopt-mixed",
    "modelopt-mxfp8",
    "compressed-tensors",
    "mxfp4",
    "fp8",
    "fbgemm-fp8",
    "bitsandbytes",
    "awq",
    "gptq",
    "auto-round",
    "intel/auto-round",
    "autoround",
];

/// Values of `quant_algo`.
const ALGORITHMS: [&str; 16] = [
    "NVFP4",
    "W4A16_NVFP4",
    "NVFP4_AWQ",
    "W4A8_NVFP4_FP8",
    "W4A8_MXFP4_FP8",
    "W4A16_MXFP4",
    "MXFP4",
    "NVFP4_SVD",
    "MXFP8",
    "FP8",
    "FP8_PER_CHANNEL_PER_TOKEN",
    "FP8_PB_WO",
    "FP8_BLOCK_SCALES",
    "W4A16_AWQ",
    "W4A8_AWQ",
    "MIXED_PRECISION",
];

/// What a config says about the quantization of a component.
#[derive(Clone, Debug, Default)]
pub struct QuantConfig {
    /// The file that says it.
    file: PathBuf,
    /// `quant_method`, `quant_algo` or `format`, as written: the name for messages.
    name: String,
    /// The name when it is none that is known.
    unknown: Option<String>,
    /// Modules that it leaves as they are.
    ignored: Vec<Pattern>,
    /// Modules that it quantizes: all, or those of these names.
    targets: Targets,
    /// Whether zero points of GPTQ are stored as they are.
    gptq_v2: bool,
}

/// Which modules are said to be quantized.
#[derive(Clone, Debug, Default)]
enum Targets {
    /// It does not say for which modules.
    #[default]
    Unsaid,
    /// Every matrix that is not ignored.
    All,
    /// Those that match.
    Listed(Vec<Pattern>),
}

impl QuantConfig {
    /// What the configs of a checkpoint say about a component; `None` when they say nothing.
    #[must_use]
    pub fn of(checkpoint: &Checkpoint, component: Component, warnings: &Warnings) -> Option<Self> {
        let configs = checkpoint.configs();
        let own = configs.component(component);
        let documents = own.into_iter().chain(configs.root());
        let inside = documents.into_iter().find_map(|config| {
            let places = [
                Some(config.json),
                config.json.get("text_config"),
                Some(config.document),
            ];
            let mut places = places.into_iter().flatten();
            let said = places.find_map(|json| {
                json.get("quantization_config")
                    .filter(|said| said.is_object())
            })?;
            Some(Self::read(config.file, said, warnings))
        });
        let beside = || {
            let (file, json) = hf_quant_config(checkpoint, component, warnings)?;
            let said = json.get("quantization").unwrap_or(&json);
            Some(Self::read(&file, said, warnings))
        };
        inside.or_else(beside)
    }

    /// Reads the object that says it; `file` is its name in messages.
    #[must_use]
    pub fn read(file: &Path, json: &Value, warnings: &Warnings) -> Self {
        let text = |key: &str| json.get(key).and_then(Value::as_str);
        let method = text("quant_method");
        let algorithm = text("quant_algo");
        let name = algorithm
            .or_else(|| text("format"))
            .or(method)
            .unwrap_or("quantized");
        let unknown_method = method.filter(|method| {
            let method = method.to_lowercase().replace('_', "-");
            !METHODS.contains(&method.as_str())
        });
        let unknown_algorithm =
            algorithm.filter(|algorithm| !ALGORITHMS.contains(&algorithm.to_uppercase().as_str()));
        let pattern = |text: &str| match Pattern::new(text) {
            Ok(pattern) => Some(pattern),
            Err(cause) => {
                warnings.say(format!("{}: `{text}`: {cause}, left aside", file.display()));
                None
            }
        };
        let listed = |key: &str| {
            let names = json
                .get(key)
                .and_then(Value::as_array)
                .into_iter()
                .flatten();
            names
                .filter_map(Value::as_str)
                .filter_map(pattern)
                .collect::<Vec<_>>()
        };
        let ignored = [
            "ignore",
            "exclude_modules",
            "modules_to_not_convert",
            "ignored_layers",
            "llm_int8_skip_modules",
        ];
        Self {
            file: file.into(),
            name: name.to_owned(),
            unknown: unknown_algorithm.or(unknown_method).map(str::to_owned),
            ignored: ignored.into_iter().flat_map(listed).collect(),
            targets: targets(json, pattern),
            gptq_v2: text("checkpoint_format") == Some("gptq_v2"),
        }
    }

    /// The file that says it.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The name of the format for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A format that nobody knows.
    #[must_use]
    pub fn unknown(&self) -> Option<&str> {
        self.unknown.as_deref()
    }

    /// Whether zero points of GPTQ are stored as they are.
    pub(crate) fn gptq_v2(&self) -> bool {
        self.gptq_v2
    }

    /// Whether the matrix of this name in the checkpoint is said to be quantized; `None` when nothing is said about it.
    #[must_use]
    pub fn says_quantized(&self, module: &str) -> Option<bool> {
        let names = shortened(module);
        let matches = |patterns: &[Pattern]| {
            names
                .iter()
                .any(|name| patterns.iter().any(|pattern| pattern.matches(name)))
        };
        match &self.targets {
            _ if matches(&self.ignored) => Some(false),
            Targets::Unsaid => None,
            Targets::All => Some(true),
            Targets::Listed(patterns) => Some(matches(patterns)),
        }
    }
}

/// Says that files of a checkpoint are not opened because opening them would run what is in them; everything that they
/// could tell is in the tensors.
pub fn notice_pickles(dir: &Path, warnings: &Warnings) {
    const NAMES: [&str; 2] = ["modelopt_state.pth", "vllm_fq_modelopt_state.pth"];
    let folders = Component::ALL.map(|component| dir.join(component.name()));
    for folder in folders.iter().map(PathBuf::as_path).chain([dir]) {
        for file in NAMES.map(|name| folder.join(name)) {
            if file.exists() {
                warnings.say(format!(
                    "{}: not opened, pickles never are; the tensors say everything that is needed",
                    file.display()
                ));
            }
        }
    }
}

/// `hf_quant_config.json` of a component's folder, else of the checkpoint.
fn hf_quant_config(
    checkpoint: &Checkpoint,
    component: Component,
    warnings: &Warnings,
) -> Option<(PathBuf, Value)> {
    let folders = [
        checkpoint.dir().join(component.name()),
        checkpoint.dir().into(),
    ];
    let files = folders
        .into_iter()
        .map(|folder| folder.join("hf_quant_config.json"));
    files
        .filter(|file| file.exists())
        .find_map(|file| match crate::checkpoint::read_json(&file) {
            Ok(json) => Some((file, json)),
            Err(error) => {
                warnings.say(format!("{error}; left aside"));
                None
            }
        })
}

/// The modules that a config quantizes.
fn targets(json: &Value, pattern: impl Fn(&str) -> Option<Pattern>) -> Targets {
    if let Some(layers) = json.get("quantized_layers").and_then(Value::as_object) {
        return Targets::Listed(layers.keys().filter_map(|name| pattern(name)).collect());
    }
    let Some(groups) = json.get("config_groups").and_then(Value::as_object) else {
        let all = json.get("exclude_modules").is_some();
        return if all { Targets::All } else { Targets::Unsaid };
    };
    let names = groups
        .values()
        .filter_map(|group| group.get("targets")?.as_array());
    let names: Vec<&str> = names.flatten().filter_map(Value::as_str).collect();
    // A class stands for all its modules.
    let is_class =
        |name: &&str| !name.contains(['.', ':', '*']) && name.starts_with(char::is_uppercase);
    if names.iter().any(is_class) {
        return Targets::All;
    }
    Targets::Listed(names.into_iter().filter_map(pattern).collect())
}

/// The name as it is, and without what some tools add or remove at its front.
fn shortened(module: &str) -> Vec<&str> {
    const FRONTS: [&str; 6] = [
        "thinker.",
        "talker.",
        "code2wav.",
        "model.",
        "language_model.",
        "model.",
    ];
    let mut names = vec![module];
    let mut rest = module;
    for front in FRONTS {
        if let Some(shorter) = rest.strip_prefix(front) {
            rest = shorter;
            names.push(rest);
        }
    }
    names
}
