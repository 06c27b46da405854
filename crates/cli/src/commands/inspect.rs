//! `burn-omni inspect`: what a checkpoint holds, whether it is complete, and the memory it takes.

mod finite;
mod shape;

use std::cell::RefCell;
use std::fmt::Write;
use std::path::Path;
use std::rc::Rc;

use burn_omni::{Config, Engine, EngineConfig, Error, MemoryPlan, Room};
use burn_omni_model::config::ConfigError;
use burn_omni_ops::decode::multiplies_bf16;
use burn_omni_quant::checkpoint::{Checkpoint, CheckpointError, Component};
use serde::Serialize;
use serde_json::Value;

use self::finite::BadTensor;
use self::shape::Shape;
use super::load::{check_kv_dtype, others_hint};
use crate::args::{ContextArg, InspectArgs, OnLoad};
use crate::device::{self, Choice, Found, Memory};
use crate::failure::{self, Failure};
use crate::model_dir;
use crate::output::{self, Output, size};

/// Everything that is known of a checkpoint.
#[derive(Debug, Serialize)]
struct Report {
    dir: String,
    model_type: Option<String>,
    #[serde(flatten)]
    plan: MemoryPlan,
    shape: Vec<Shape>,
    voices: Vec<String>,
    files: Files,
    /// Tensors that no component owns.
    ignored: Vec<String>,
    problems: Vec<Problem>,
    /// What is read although it is not as it should be.
    warnings: Vec<String>,
    /// Tensors with weights that are not finite; absent when they were not looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    bad_tensors: Option<Vec<BadTensor>>,
}

/// The small files beside the weights.
#[derive(Debug, Serialize)]
struct Files {
    found: Vec<&'static str>,
    missing: Vec<&'static str>,
}

/// What would keep the checkpoint from being loaded.
#[derive(Debug, Serialize)]
struct Problem {
    error: String,
    hint: Option<String>,
}

/// Each small file by its names, any of which would do.
const SIDE_FILES: [&[&str]; 6] = [
    &["config.json", "thinker/config.json"],
    &["generation_config.json"],
    &["preprocessor_config.json"],
    &["tokenizer.json", "vocab.json"],
    &["tokenizer_config.json"],
    &["chat_template.json", "chat_template.jinja"],
];

/// Shows a checkpoint.
pub(crate) fn inspect(args: &InspectArgs, output: &Output) -> Result<(), Failure> {
    let output = output.without_progress(args.json);
    let quantize = args.quantize.checked()?;
    let dir = model_dir::resolve(args.model.dir.as_deref())?;
    let checkpoint = Checkpoint::open(&dir).map_err(|error: CheckpointError| Error::from(error))?;
    let config =
        Config::from_checkpoint(&checkpoint).map_err(|error: ConfigError| Error::from(error))?;
    let found = Choice::Auto.open(&output)?;
    check_kv_dtype(args.context.kv_dtype, &found.device, &found.name)?;
    let room = room(&config, &args.context, &found);
    let plan = MemoryPlan::new(&checkpoint, &config, room, quantize.at_load());
    let memory = device::memory(&found).filter(|_| args.context.memory_limit.is_none());
    let limit = args.context.memory_limit;
    let limit = limit.or(memory.map(|memory| memory.free));
    let plan = match limit {
        Some(limit) => plan.fitted(limit, args.context.max_context.is_none()),
        None => plan,
    };
    let mut report = Report::new(&dir, &checkpoint, &config, plan);
    (report.problems, report.warnings) =
        problems(&dir, (&args.context, limit, memory), quantize, found)?;
    if args.check {
        report.bad_tensors = Some(finite::check(&checkpoint, &output));
    }
    if args.json {
        output::json(&report)?;
    } else {
        output::data(&report.text())?;
    }
    report
        .warnings
        .iter()
        .for_each(|warning| output.warning(warning));
    report.verdict()
}

/// What would keep the checkpoint from being loaded, and what would only be told.
fn problems(
    dir: &Path,
    (context, limit, memory): (&ContextArg, Option<u64>, Option<Memory>),
    quantize: OnLoad,
    found: Found,
) -> Result<(Vec<Problem>, Vec<String>), Failure> {
    let warnings = Rc::new(RefCell::new(Vec::new()));
    let told = Rc::clone(&warnings);
    let Found { device, name } = found;
    let mut engine = EngineConfig::new(dir)
        .device(device)
        .memory_limit(limit)
        .kv_dtype(context.kv_dtype.into())
        .quantize(quantize.format)
        .quantize_head(quantize.head)
        .warn(move |warning| told.borrow_mut().push(warning.to_owned()));
    if let Some(tokens) = context.max_context {
        engine = engine.max_context(tokens);
    }
    let problem = |error: Error| {
        let others = memory.and_then(|memory| others_hint(&error, memory, &name));
        Problem {
            error: error.to_string(),
            hint: others.or_else(|| failure::hint(&error)),
        }
    };
    let problems = Engine::check(engine).into_iter().map(problem).collect();
    Ok((problems, warnings.take()))
}

/// What the model will be loaded for.
fn room(config: &Config, args: &ContextArg, found: &Found) -> Room {
    let longest = config.thinker.text_config.max_position_embeddings;
    let usual = burn_omni::usual_context(config, &found.device);
    Room {
        context: args.max_context.unwrap_or(usual).min(longest),
        captured: multiplies_bf16(&found.device),
        speech: config.can_speak(),
        kv: args.kv_dtype.into(),
    }
}

impl Report {
    fn new(dir: &Path, checkpoint: &Checkpoint, config: &Config, plan: MemoryPlan) -> Self {
        let configs = checkpoint.configs();
        let document = configs
            .root()
            .or_else(|| configs.component(Component::Thinker));
        let model_type = document.and_then(|config| config.document.get("model_type"));
        let talker = config.talker.iter();
        let ignored = checkpoint.ignored().iter();
        Self {
            dir: dir.display().to_string(),
            model_type: model_type.and_then(Value::as_str).map(str::to_owned),
            plan,
            shape: shape::of(config),
            voices: talker
                .flat_map(|talker| talker.speaker_id.keys().cloned())
                .collect(),
            files: Files::look(checkpoint),
            ignored: ignored.map(|tensor| tensor.name.clone()).collect(),
            problems: Vec::new(),
            warnings: Vec::new(),
            bad_tensors: None,
        }
    }

    /// The report as people read it.
    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            // Writing to a text cannot fail.
            let _ = writeln!(text, "{name:<14}{value}");
        };
        line("checkpoint", self.dir.clone());
        line(
            "model type",
            self.model_type.clone().unwrap_or_else(|| "unknown".into()),
        );
        let voices = self.voices.join(", ");
        line(
            "voices",
            if voices.is_empty() {
                "none, it answers in text only".into()
            } else {
                voices
            },
        );
        line("files", self.files.found.join(", "));
        if !self.files.missing.is_empty() {
            line("not there", self.files.missing.join(", "));
        }
        if !self.ignored.is_empty() {
            line("ignored", listed(&self.ignored));
        }
        line("", String::new());
        for part in &self.plan.components {
            let stored = part
                .stored
                .iter()
                .map(|(dtype, tensors, bytes)| format!("{tensors} {dtype} ({})", size(*bytes)));
            let stored = stored.collect::<Vec<_>>().join(", ");
            line(
                part.component,
                format!("{} parameters in {stored}", count(part.parameters)),
            );
        }
        line("", String::new());
        for part in &self.shape {
            line(part.part, part.summary.clone());
        }
        line("", String::new());
        let plan = &self.plan;
        let per_token = size(plan.kv_bytes_per_token);
        line("weights", size(plan.weights_bytes));
        line(
            "context",
            format!(
                "{} tokens, {per_token} each: {}",
                plan.context,
                size(plan.kv_bytes)
            ),
        );
        if plan.talker_kv_bytes > 0 {
            line("speech", size(plan.talker_kv_bytes));
        }
        line("workspace", format!("about {}", size(plan.workspace_bytes)));
        line("memory", size(plan.total_bytes));
        text
    }

    /// Says on stderr what is wrong.
    fn verdict(&self) -> Result<(), Failure> {
        for Problem { error, hint } in &self.problems {
            failure::print(error, hint.as_deref());
        }
        let bad = self.bad_tensors.as_deref().unwrap_or_default();
        finite::print(bad);
        if self.problems.is_empty() && bad.is_empty() {
            Ok(())
        } else {
            Err(Failure::Reported)
        }
    }
}

impl Files {
    fn look(checkpoint: &Checkpoint) -> Self {
        let mut files = Self {
            found: Vec::new(),
            missing: Vec::new(),
        };
        for names in SIDE_FILES {
            match names.iter().find(|name| checkpoint.file(name).is_some()) {
                Some(name) => files.found.push(name),
                None => files.missing.push(names[0]),
            }
        }
        files
    }
}

/// The first few names and how many there are.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = names
        .iter()
        .take(SHOWN)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    let rest = names.len().saturating_sub(SHOWN);
    if rest == 0 {
        shown
    } else {
        format!("{shown} and {rest} more")
    }
}

/// A number of parameters as people read it.
fn count(parameters: u64) -> String {
    let millions = parameters as f64 / 1e6;
    if millions < 1000.0 {
        format!("{millions:.2} M")
    } else {
        format!("{:.2} B", millions / 1e3)
    }
}
