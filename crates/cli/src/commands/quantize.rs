//! `burn-omni quantize`: a dense checkpoint in, a quantized one out.

use std::path::Path;
use std::time::Instant;

use burn_omni_quant::checkpoint::{Checkpoint, CheckpointError};
use burn_omni_quant::write::{Plan, Replace, Summary, Watcher, WriteError};
use serde::Serialize;

use crate::args::QuantizeArgs;
use crate::failure::Failure;
use crate::interrupt::Watch;
use crate::output::{self, Bar, Output, size};

/// The JSON result.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    summary: Summary,
    seconds: f64,
}

/// Writes a quantized checkpoint.
pub(crate) fn quantize(args: &QuantizeArgs, output: &Output) -> Result<(), Failure> {
    let output = output.without_progress(args.json);
    let started = Instant::now();
    let checkpoint = Checkpoint::open(&args.source)
        .map_err(|error: CheckpointError| failure(WriteError::from(error), &output))?;
    let fails = |error| failure(error, &output);
    let plan = Plan::new(&checkpoint, args.options()).map_err(fails)?;
    for warning in plan.warnings() {
        output.note(format!("note: {warning}"));
    }
    let replace = match args.force {
        true => Replace::Checkpoint,
        false => Replace::Nothing,
    };
    let bar = output.bar("Quantizing");
    write(&plan, (&args.destination, replace), bar).map_err(fails)?;
    let report = Report {
        summary: plan.summary(),
        seconds: started.elapsed().as_secs_f64(),
    };
    if args.json {
        return output::json(&report);
    }
    output.note(report.text(args));
    Ok(())
}

/// Writes a checkpoint until it is whole or Ctrl-C comes.
pub(super) fn write(
    plan: &Plan<'_>,
    (dir, replace): (&Path, Replace),
    bar: Bar,
) -> Result<(), WriteError> {
    let watch = Watch::start();
    let watcher = Watcher {
        progress: &|done, total| bar.set(done, total),
        stops: &|| watch.was_requested(),
    };
    plan.write(dir, replace, watcher)
}

impl Report {
    fn text(&self, args: &QuantizeArgs) -> String {
        let Summary {
            tensors,
            quantized,
            bytes_in,
            bytes_out,
        } = self.summary;
        format!(
            "{}: {quantized} of {tensors} tensors quantized, {} became {} in {:.1} s",
            args.destination.display(),
            size(bytes_in),
            size(bytes_out),
            self.seconds
        )
    }
}

/// The error with its advice.
pub(super) fn failure(error: WriteError, output: &Output) -> Failure {
    match (error.hint(), &error) {
        (Some(hint), WriteError::Interrupted) => {
            output.note(format!("stopped; {hint}"));
            Failure::Interrupted
        }
        (Some(hint), _) => Failure::advised(error.to_string(), hint),
        (None, _) => Failure::Run(error.into()),
    }
}
