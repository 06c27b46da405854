//! A model run on a device that computes nothing, so that its kernels are compiled beside one another before it is loaded.
//!
//! A model is loaded, captured and asked as it will be: what launches kernels here is what launches them there. The weights are
//! not read for it where they are copied as they are; what the device gives are zeros, which no kernel depends on. Media are
//! not among what is asked, nor are long prompts: kernels for these are compiled when they are met.

use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use burn::tensor::StreamId;
use burn_omni_model::processor::Prompt;
use burn_omni_ops::rehearsal::{Kernels, Rehearsal, Rehearsed};
use burn_omni_quant::Warnings;

use crate::budget::Captures;
use crate::engine::{Loader, capture};
use crate::kept::Kept;
use crate::loading::Opened;
use crate::pipeline::{Job, Question};
use crate::progress::Progress;
use crate::stages::Stages;
use crate::stream::{self, Sink, Stopped};
use crate::{Content, EngineConfig, Error, Request, SpeechRequest};

/// What is asked, as often as a prompt needs it.
const QUESTION: &str = "Hello. ";
/// Rows that prompts have at least: products of more than 16, 32 and 64 rows have kernels of their own. The first is spoken.
const ROWS: [usize; 4] = [1, 17, 33, 65];
/// Room in which every one of them fits, and its answer.
const LONGEST: usize = 128;
/// Tokens of the answer: from the second on they come from a captured step.
const TOKENS: usize = 3;
/// Frames of the answer: packets of 4, 8, 16 and 25 frames, which is what code2wav is given unless a speech ends, and a rest.
const FRAMES: usize = 64;

/// Kernels that are compiled beside one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compiling {
    /// How many there are.
    pub kernels: usize,
    /// Threads that compile them.
    pub threads: usize,
}

/// Compiles the kernels of a model that was never loaded on a device of this kind. Whatever fails here costs nothing but the
/// time: a kernel that was not compiled ahead is compiled when it is launched, and the next start tries again.
pub(crate) fn compile_ahead(engine: &EngineConfig, opened: &Opened, speech: bool, context: usize) {
    let Some(description) = describe(engine, opened, speech, context) else {
        return;
    };
    let Some(rehearsal) = Rehearsal::of(&engine.device, &description) else {
        return;
    };
    let began = Instant::now();
    let config = engine.rehearsed(rehearsal.device());
    let launch = || rehearse(config, opened, speech, context);
    let outcome = catch_unwind(AssertUnwindSafe(launch)).unwrap_or_else(|panic| {
        let cause = stream::describe(panic.as_ref());
        Err(Error::stage("rehearsal", cause))
    });
    if let Err(cause) = &outcome {
        tracing::warn!(target: "burn_omni", %cause, "not all was compiled ahead");
    }
    let kernels = match rehearsal.finish() {
        Ok(kernels) => kernels,
        Err(cause) => {
            tracing::warn!(target: "burn_omni", %cause, "nothing was compiled ahead");
            return;
        }
    };
    let seconds = began.elapsed().as_secs_f64();
    tracing::debug!(target: "burn_omni", kernels = kernels.len(), seconds, "rehearsed");
    let rehearsed = compile(engine, kernels);
    let seconds = began.elapsed().as_secs_f64();
    tracing::info!(target: "burn_omni", seconds, all = rehearsed.is_some(), "compiled ahead");
    if outcome.is_ok()
        && let Some(rehearsed) = rehearsed
    {
        rehearsed.mark();
    }
    engine.compiled();
}

/// Compiles kernels on all cores, and says so where there are any.
fn compile(engine: &EngineConfig, kernels: Kernels) -> Option<Rehearsed> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = threads.min(kernels.len());
    if !kernels.is_empty() {
        engine.compiling(Compiling {
            kernels: kernels.len(),
            threads,
        });
    }
    kernels.compile(threads)
}

/// Everything that the kernels of a model depend on, the device and the program excepted; `None` where it has no text.
fn describe(
    engine: &EngineConfig,
    opened: &Opened,
    speech: bool,
    context: usize,
) -> Option<String> {
    let mut text = serde_json::to_string(&opened.config).ok()?;
    // No kernel depends on how many tokens there is room for, but prompts that have none are not rehearsed.
    let room = context.min(LONGEST);
    text += &format!(
        "{speech} {room} {:?} {} {:?}",
        engine.kv_dtype,
        engine.w4a4,
        engine.at_load()
    );
    for set in opened.checkpoint.components() {
        for (name, tensor) in set.iter() {
            text += &format!("\n{name} {:?} {:?}", tensor.dtype, tensor.shape);
        }
    }
    Some(text)
}

/// Loads the model to the device of `engine` and has it answer.
fn rehearse(
    engine: EngineConfig,
    opened: &Opened,
    speech: bool,
    context: usize,
) -> Result<(), Error> {
    let warnings = Warnings::new();
    let loader = Loader::new(&opened.checkpoint, &engine, speech, &warnings);
    let stream = StreamId::allocate();
    let (mut thinker, mut speech) = stream.executes(|| opened.components(&loader, speech))?;
    drop(loader);
    thinker.store_kv(engine.kv_dtype.format());
    let captured = stream.executes(|| capture(&thinker, speech.as_mut(), context));
    let stages = Stages {
        config: opened.config.clone(),
        ids: opened.ids,
        captured,
        thinker,
        speech,
        context,
        kv: engine.kv_dtype,
        device: engine.device,
        stream,
    };
    let mut outcome = Ok(());
    for rows in ROWS {
        let spoken = stages.speech.is_some() && rows == ROWS[0];
        let prompt = prompt(opened, rows)?;
        if prompt.ids.len() + TOKENS <= context {
            // Where one fails, the next ones launch what they do all the same.
            outcome = outcome.and(answer(&stages, prompt, spoken));
        }
    }
    outcome
}

/// The shortest prompt of so many rows.
fn prompt(opened: &Opened, rows: usize) -> Result<Prompt, Error> {
    let mut question = QUESTION.to_owned();
    loop {
        let request = Request::new().user([Content::text(question.as_str())]);
        let prompt = opened.processor.lay_out(&request.conversation, [])?;
        if prompt.ids.len() >= rows {
            return Ok(prompt);
        }
        question += QUESTION;
    }
}

/// Has a model answer.
fn answer(stages: &Stages, prompt: Prompt, spoken: bool) -> Result<(), Error> {
    let mut request = Request::new().max_tokens(TOKENS);
    request.endless = true;
    if spoken {
        request = request.speech(SpeechRequest {
            max_frames: Some(FRAMES),
            ..SpeechRequest::default()
        });
    }
    let question = Question {
        prompt: Arc::new(prompt),
        text: None,
    };
    let (sink, events) = Sink::channel();
    let turns = stages.turns();
    thread::scope(|scope| {
        let (request, turns) = (&request, &turns);
        let answering = scope.spawn(move || {
            let captured = Captures {
                thinker: stages.captured.is_some(),
                speech: spoken,
            };
            let job = Job {
                stages,
                turns,
                request,
                sink: &sink,
                progress: &Progress::default(),
                started: Instant::now(),
                captured,
            };
            job.run(question, &mut Kept::default())
        });
        events.into_iter().for_each(drop);
        match answering.join() {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(Stopped::Failed(error))) => Err(error),
            Ok(Err(Stopped::Cancelled)) => Err(Error::stage("rehearsal", "cancelled".into())),
            Err(panic) => Err(Error::stage("rehearsal", stream::describe(panic.as_ref()))),
        }
    })
}
