//! How the tensors are stored, in the words of those who read it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::checkpoint::Component;
use crate::write::ignored::{Ignored, summarize};
use crate::write::{Form, Plan};

/// The version of compressed-tensors whose layout this is.
const COMPRESSED_TENSORS: &str = "0.20.0";
const GROUP_SIZE: usize = 16;

/// What ModelOpt says of one folder.
pub(super) struct ModelOpt {
    ignored: Vec<String>,
}

/// What is said of the folder of a component; `None` when nothing in it is quantized.
pub(super) fn modelopt(plan: &Plan<'_>, component: Component) -> Option<ModelOpt> {
    let (ignored, any) = ignored(plan, Some(component));
    any.then(|| ModelOpt {
        ignored: ignored.iter().map(Ignored::glob).collect(),
    })
}

impl ModelOpt {
    /// Weights alone are quantized, which this name says.
    const ALGORITHM: &str = "W4A16_NVFP4";

    fn producer() -> Value {
        json!({ "name": "burn-omni", "version": env!("CARGO_PKG_VERSION") })
    }

    /// As part of a `config.json`.
    pub(super) fn in_config(&self) -> Value {
        json!({
            "config_groups": { "group_0": {
                "input_activations": null,
                "weights": {
                    "dynamic": false, "num_bits": 4, "type": "float", "group_size": GROUP_SIZE,
                },
                "targets": ["Linear"],
            } },
            "ignore": self.ignored,
            "quant_algo": Self::ALGORITHM,
            "producer": Self::producer(),
            "quant_method": "modelopt",
        })
    }

    /// As a file of its own.
    pub(super) fn of_its_own(&self) -> Value {
        json!({
            "producer": Self::producer(),
            "quantization": {
                "quant_algo": Self::ALGORITHM,
                "kv_cache_quant_algo": null,
                "group_size": GROUP_SIZE,
                "exclude_modules": self.ignored,
            },
        })
    }
}

/// What compressed-tensors says of the whole checkpoint: its presets `NVFP4A16` and `MXFP4A16`; `None` when nothing in it is
/// quantized.
pub(super) fn compressed_tensors(plan: &Plan<'_>) -> Option<Value> {
    let form = plan.options.form;
    let (format, strategy, scale) = match form {
        Form::Mxfp4 => ("mxfp4-pack-quantized", "group", "torch.uint8"),
        _ => (
            "nvfp4-pack-quantized",
            "tensor_group",
            "torch.float8_e4m3fn",
        ),
    };
    let (ignored, any) = ignored(plan, None);
    any.then(|| {
        json!({
            "config_groups": { "group_0": {
                "format": format,
                "input_activations": null,
                "output_activations": null,
                "targets": ["Linear"],
                "weights": {
                    "dynamic": false,
                    "group_size": form.format().block,
                    "num_bits": 4,
                    "scale_dtype": scale,
                    "strategy": strategy,
                    "symmetric": true,
                    "type": "float",
                },
            } },
            "format": format,
            "global_compression_ratio": null,
            "ignore": ignored.iter().map(Ignored::regex).collect::<Vec<_>>(),
            "kv_cache_scheme": null,
            "quant_method": "compressed-tensors",
            "quantization_status": "compressed",
            "version": COMPRESSED_TENSORS,
        })
    })
}

/// The modules of a folder that stay as they are, and whether any does not.
fn ignored(plan: &Plan<'_>, component: Option<Component>) -> (Vec<Ignored>, bool) {
    let mut ignored = BTreeSet::new();
    let mut quantized = BTreeSet::new();
    for unit in plan.units() {
        let is_here = component.is_none_or(|component| component == unit.part.component);
        let Some(module) = unit.name.strip_suffix(".weight").filter(|_| is_here) else {
            continue;
        };
        match unit.group {
            Some(_) => quantized.insert(module),
            None => unit.part.module().is_some() && ignored.insert(module),
        };
    }
    (summarize(&ignored, &quantized), !quantized.is_empty())
}
