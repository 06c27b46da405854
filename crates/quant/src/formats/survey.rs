//! What a component's tensors are stored as, from their headers alone.

use std::collections::BTreeMap;

use burn_omni_ops::{PackedFormat, PackedSpec};

use crate::Warnings;
use crate::checkpoint::{Dtype, FirstBad, RawTensor, TensorSet};

use super::bytes::{spec, words};
use super::{AtLoad, Module, Quantized, Stored, belongs};

/// Tensors of one stored form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoredForm {
    /// Tensors in the file.
    pub tensors: usize,
    /// Weights that they stand for.
    pub parameters: u64,
    /// Bytes in the file.
    pub bytes: u64,
    /// Bytes in memory.
    pub memory: u64,
}

/// The forms of a component by name: `NVFP4` and so on for what is quantized, dtypes for the rest.
///
/// With `quantize`, matrices that are quantized on loading count as what they become.
#[must_use]
pub fn survey(tensors: &TensorSet, quantize: Option<AtLoad>) -> BTreeMap<String, StoredForm> {
    let mut forms = BTreeMap::<String, StoredForm>::new();
    let mut modules = BTreeMap::<String, &'static str>::new();
    let silent = Warnings::new();
    for (name, tensor) in tensors.iter() {
        let Some(module) = quantized_module(tensors, name, &tensor) else {
            continue;
        };
        let (name, rows, width) = (module.name().to_owned(), module.rows(), module.width());
        let Ok(stored) = Stored::find(module, &silent) else {
            continue; // loading it says why
        };
        let super::Form::Packed(form) = &stored.form else {
            continue;
        };
        let entry = forms.entry(form.name().to_owned()).or_default();
        entry.parameters += (rows * width) as u64;
        entry.memory += in_memory(&**form, rows, width);
        modules.insert(name, form.name());
    }
    for (name, tensor) in tensors.iter() {
        let bytes = tensor.bytes.len() as u64;
        let form = owner(name, &modules);
        let label = form.map_or_else(|| format!("{:?}", tensor.dtype), str::to_owned);
        let entry = forms.entry(label).or_default();
        entry.tensors += 1;
        entry.bytes += bytes;
        if form.is_none() {
            entry.parameters += tensor.elements() as u64;
            entry.memory += bytes;
        }
    }
    if let Some(quantize) = quantize {
        become_quantized(tensors, &mut forms, quantize);
    }
    forms
}

/// The form of the module that a tensor belongs to.
fn owner(name: &str, modules: &BTreeMap<String, &'static str>) -> Option<&'static str> {
    let mut found = None;
    belongs(name, |module| {
        found = found.or(modules.get(module).copied());
        found.is_some()
    });
    found
}

/// Bytes of a quantized matrix in memory.
fn in_memory(form: &dyn Quantized, rows: usize, width: usize) -> u64 {
    let bytes = match form.format() {
        Some(format) => packed_bytes(&spec(format, rows, width)),
        None => rows * width * size_of::<f32>(),
    };
    bytes as u64
}

/// Bytes of codes, scales and gains.
fn packed_bytes(spec: &PackedSpec) -> usize {
    spec.matrices * spec.rows * (spec.row_bytes() + spec.scale_bytes() + size_of::<f32>())
}

/// Moves what is quantized on loading from its dtype to its format.
fn become_quantized(
    tensors: &TensorSet,
    forms: &mut BTreeMap<String, StoredForm>,
    quantize: AtLoad,
) {
    let format = quantize.format;
    for (name, tensor) in tensors.iter() {
        let Some(module) = name.strip_suffix(".weight") else {
            continue;
        };
        let label = format!("{:?}", tensor.dtype);
        let ([rows, width], true) = (
            <[usize; 2]>::try_from(tensor.shape).unwrap_or_default(),
            quantize.covers(tensors.component(), module) && crate::raw::dtype(&tensor).is_some(),
        ) else {
            continue;
        };
        let (parameters, bytes) = (tensor.elements() as u64, tensor.bytes.len() as u64);
        let Some(before) = forms.get_mut(&label) else {
            continue;
        };
        before.tensors -= 1;
        before.parameters -= parameters;
        before.bytes -= bytes;
        before.memory -= bytes;
        let name = if format == PackedFormat::NVFP4 {
            "NVFP4"
        } else {
            "MXFP4"
        };
        let after = forms.entry(name.to_owned()).or_default();
        after.tensors += 1;
        after.parameters += parameters;
        after.bytes += bytes;
        after.memory += packed_bytes(&spec(format, rows, width)) as u64;
    }
    forms.retain(|_, form| form.tensors > 0);
}

/// The module whose codes this tensor holds, with the shape that they imply.
fn quantized_module<'a>(
    tensors: &'a TensorSet,
    name: &str,
    tensor: &RawTensor<'_>,
) -> Option<Module<'a>> {
    let get = |module: &str, part: &str| tensors.get(&format!("{module}.{part}"));
    let (last, lead) = tensor.shape.split_last()?;
    let module = |name: &str, lead: &[usize], width| Some(Module::new(tensors, name, lead, width));
    if let Some(name) = name.strip_suffix(".qweight") {
        let rows = *get(name, "scales")?.shape.last()?;
        return module(name, &[rows], (tensor.elements() * 8).checked_div(rows)?);
    }
    if let Some(name) = name.strip_suffix("_blocks") {
        let (blocks, lead) = lead.split_last()?;
        return module(name, lead, blocks * last * 2);
    }
    if let Some(name) = name.strip_suffix(".weight_packed") {
        if tensor.dtype == Dtype::I32 {
            let width = get(name, "weight_shape").and_then(|shape| words(&shape).get(2).copied());
            return module(name, lead, width.map_or(last * 8, |width| width as usize));
        }
        return module(name, lead, last * 2);
    }
    let name = name.strip_suffix(".weight").unwrap_or(name);
    if get(name, "weight.absmax").is_some() {
        let kinds = ["nf4", "fp4"].map(|kind| format!("weight.quant_state.bitsandbytes__{kind}"));
        let state = kinds.iter().find_map(|part| get(name, part))?;
        let state: serde_json::Value = serde_json::from_slice(state.bytes).ok()?;
        let sizes = state.get("shape")?.as_array()?;
        let sizes: Vec<usize> = sizes
            .iter()
            .filter_map(|size| Some(size.as_u64()? as usize))
            .collect();
        let (width, lead) = sizes.split_last()?;
        return module(name, lead, *width);
    }
    match tensor.dtype {
        Dtype::U8 | Dtype::I8 => module(name, lead, last * 2),
        Dtype::F4 | Dtype::F8_E4M3 => module(name, lead, *last),
        _ => None,
    }
}

/// The tensors that hold the scales of quantized weights, and the codes of FP8: by name, how a value of theirs is bad.
#[must_use]
pub fn bad_scale(name: &str, tensor: &RawTensor<'_>) -> Option<FirstBad> {
    let last = name.rsplit(['.', '_']).next();
    let is_scale = name.ends_with("weight_scale") || last == Some("scales");
    match tensor.dtype {
        Dtype::F8_E4M3 if is_scale => {
            let index = tensor.bytes.iter().position(|byte| *byte >= 0x7F)?;
            let value = f64::from(burn_omni_ops::packed::e4m3(tensor.bytes[index]));
            Some(FirstBad { index, value })
        }
        Dtype::U8 if is_scale => {
            let index = tensor.bytes.iter().position(|byte| *byte == 0xFF)?;
            let value = f64::NAN;
            Some(FirstBad { index, value })
        }
        Dtype::F32
            if ["weight_scale_2", "weight_global_scale"]
                .iter()
                .any(|part| name.ends_with(part)) =>
        {
            let values = tensor.to_f32().ok()?;
            let index = values
                .iter()
                .position(|value| !super::bytes::is_factor(*value))?;
            let value = f64::from(values[index]);
            Some(FirstBad { index, value })
        }
        _ => tensor.check_finite(),
    }
}
