//! The names of the tensors that belong to a weight.

/// Tensors beside a module's own `weight` and `bias`, by the end of their name.
pub(super) const PARTS: [&str; 29] = [
    // ModelOpt
    "weight_scale",
    "weight_scale_2",
    "input_scale",
    "output_scale",
    "pre_quant_scale",
    "svdquant_lora_a",
    "svdquant_lora_b",
    // compressed-tensors
    "weight_packed",
    "weight_global_scale",
    "weight_shape",
    "weight_zero_point",
    "weight_g_idx",
    "input_global_scale",
    "input_zero_point",
    // FP8
    "weight_scale_inv",
    "input_scale_inv",
    "activation_scale",
    // MXFP4 of gpt-oss
    "blocks",
    "scales",
    // AWQ and GPTQ, whose `scales` are above
    "qweight",
    "qzeros",
    "g_idx",
    // bitsandbytes
    "weight.absmax",
    "weight.quant_map",
    "weight.nested_absmax",
    "weight.nested_quant_map",
    "weight.quant_state.bitsandbytes__nf4",
    "weight.quant_state.bitsandbytes__fp4",
    "weight_format",
];

/// Names of the factor on a module's input.
pub(super) const INPUT_FACTORS: [&str; 2] = ["pre_quant_scale", "input_quantizer._pre_quant_scale"];

/// Scales of a quantized cache of keys and values, by the last part of their name.
const CACHE: [&str; 7] = [
    "k_scale",
    "v_scale",
    "q_scale",
    "kv_scale",
    "prob_output_scale",
    "k_zero_point",
    "v_zero_point",
];

/// Whether the tensor `name` is the weight of one of these modules, belongs to it, or is what a quantizer left there.
pub(crate) fn belongs(name: &str, mut is_module: impl FnMut(&str) -> bool) -> bool {
    if name.split('.').any(|part| part.ends_with("_quantizer")) || is_module(name) {
        return true;
    }
    PARTS.iter().chain(&["weight"]).any(|part| {
        let module = name.strip_suffix(part).and_then(|rest| {
            let dotted = rest.strip_suffix('.');
            dotted.or_else(|| rest.strip_suffix('_'))
        });
        module.is_some_and(&mut is_module)
    })
}

/// Whether the tensor `name` is a scale of a quantized cache, which this engine does not have.
pub(crate) fn is_cache_scale(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    CACHE.contains(&last)
}
