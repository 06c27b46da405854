//! From arguments to a loaded model, for the commands that answer.

use std::time::{Duration, Instant};

use burn_omni::{Device, Engine, EngineConfig, Error, Sampling};
use burn_omni_ops::decode::multiplies_bf16;
use burn_omni_ops::has_w4a4;

use crate::args::{Dtype, KvDtype, ModelArgs, TextArgs};
use crate::device::{self, Found, Memory};
use crate::failure::Failure;
use crate::kernels;
use crate::model_dir;
use crate::output::{Bar, Output, size};

/// What has to be loaded for the speech that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Voice {
    /// Text alone.
    None,
    /// Speech where the checkpoint has it.
    Possible,
    /// Speech in this voice, or in the checkpoint's own.
    Wanted(Option<String>),
}

/// A loaded model.
pub(crate) struct Loaded {
    pub(crate) engine: Engine,
    /// As `--device` names it.
    pub(crate) device: String,
    pub(crate) took: Duration,
}

/// Loads the model that the arguments name.
pub(crate) fn load(args: &ModelArgs, voice: Voice, output: &Output) -> Result<Loaded, Failure> {
    let quantize = args.quantize.checked()?;
    let found = args.device.device.open(output)?;
    let memory = device::memory(&found);
    let limit = args.context.memory_limit;
    let limit = limit.or(memory.map(|memory| memory.free));
    let Found { device, name } = found;
    check_dtype(args.dtype, &name)?;
    check_w4a4(args.w4a4, &device, &name)?;
    check_kv_dtype(args.context.kv_dtype, &device, &name)?;
    let dir = model_dir::resolve(args.model.dir.as_deref())?;
    let started = Instant::now();
    let bar: Bar = output.bar("Loading");
    let mut config = EngineConfig::new(&dir)
        .device(device)
        .speech(voice != Voice::None)
        .quantize(quantize.format)
        .quantize_head(quantize.head)
        .w4a4(args.w4a4)
        .kv_dtype(args.context.kv_dtype.into())
        .memory_limit(limit)
        .warn({
            let output = *output;
            move |warning| output.warning(warning)
        })
        .on_compiling({
            let output = *output;
            move |compiling| kernels::announce_compiling(compiling, &output)
        })
        .on_compiled({
            let output = *output;
            move || kernels::save(&output)
        })
        .progress(move |progress| bar.set(progress.loaded, progress.total));
    if let Voice::Wanted(voice) = voice {
        config = config.voice(voice);
    }
    if let Some(tokens) = args.context.max_context {
        config = config.max_context(tokens);
    }
    let engine = Engine::load(config).map_err(|error| match memory {
        Some(memory) if args.context.memory_limit.is_none() => held_by_others(error, memory, &name),
        _ => error.into(),
    })?;
    kernels::loaded(&name, output);
    let took = started.elapsed();
    tracing::info!(target: "burn_omni", model = %dir.display(), device = %name, seconds = took.as_secs_f64(), "loaded");
    if engine.template_is_fallback() {
        output.note(format!(
            "note: {} has no chat template, the usual one of Qwen3-Omni is used",
            dir.display()
        ));
    }
    Ok(Loaded {
        engine,
        device: name,
        took,
    })
}

/// Says how much memory is left where a model would fit the device if nobody else were there.
fn held_by_others(error: Error, memory: Memory, name: &str) -> Failure {
    match others_hint(&error, memory, name) {
        Some(hint) => Failure::advised(error.to_string(), hint),
        None => error.into(),
    }
}

/// The same as a hint. What this program's own start has taken is not free either, so nobody is said to have all of it.
pub(super) fn others_hint(error: &Error, memory: Memory, name: &str) -> Option<String> {
    let Memory { free, total } = memory;
    let Error::DoesNotFit { needed, .. } = error else {
        return None;
    };
    (*needed > free && *needed <= total).then(|| {
        format!(
            "of the {} of {name} {} are free: `nvidia-smi` shows which other programs have the rest; or see --max-context and \
             --quantize",
            size(total),
            size(free)
        )
    })
}

pub(super) fn check_w4a4(wanted: bool, device: &Device, name: &str) -> Result<(), Failure> {
    if wanted && !has_w4a4(device) {
        return Err(Failure::advised(
            format!("--w4a4: {name} has no products of 4-bit operands"),
            "leave it out; NVIDIA GPUs of compute capability 12.0 and 12.1 have them",
        ));
    }
    Ok(())
}

pub(super) fn check_kv_dtype(wanted: KvDtype, device: &Device, name: &str) -> Result<(), Failure> {
    if wanted == KvDtype::Bf16 && !multiplies_bf16(device) {
        return Err(Failure::advised(
            format!("--kv-dtype bf16: keys and values on {name} are f32 or FP8"),
            "use --kv-dtype auto or --kv-dtype fp8",
        ));
    }
    Ok(())
}

fn check_dtype(dtype: Dtype, device: &str) -> Result<(), Failure> {
    let name = match dtype {
        Dtype::Auto | Dtype::F32 => return Ok(()),
        Dtype::Bf16 => "bf16",
        Dtype::F16 => "f16",
    };
    Err(Failure::advised(
        format!("--dtype {name}: activations on {device} are f32"),
        "use --dtype auto; weights stay in the format they are stored in either way",
    ))
}

/// The checkpoint's sampling with what was typed in its place; `None` when nothing was typed.
pub(crate) fn sampling(args: &TextArgs, engine: &Engine) -> Option<Sampling> {
    let typed = (
        args.temperature,
        args.top_k,
        args.top_p,
        args.repetition_penalty,
    );
    if typed == (None, None, None, None) {
        return None;
    }
    let own = engine.sampling();
    let draws = args.top_k.is_some() || args.top_p.is_some();
    let temperature = if draws && own.temperature == 0.0 {
        1.0
    } else {
        own.temperature
    };
    Some(Sampling {
        temperature: args.temperature.unwrap_or(temperature),
        top_k: args.top_k.unwrap_or(own.top_k),
        top_p: args.top_p.unwrap_or(own.top_p),
        repetition_penalty: args.repetition_penalty.unwrap_or(own.repetition_penalty),
    })
}
