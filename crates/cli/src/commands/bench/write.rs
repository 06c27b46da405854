//! `bench --write`: a checkpoint of random weights.

use std::path::Path;
use std::time::Instant;

use burn_omni::Config;
use burn_omni::bench::{Figure, Untrained};
use burn_omni_quant::write::{Replace, WriteError};

use super::super::quantize::{failure, write};
use super::format;
use crate::args::BenchArgs;
use crate::device::{Backend, devices};
use crate::failure::Failure;
use crate::output::{Output, size};

/// Writes the checkpoint and says how long it took.
pub(super) fn checkpoint(
    args: &BenchArgs,
    (name, dir): (&str, &Path),
    output: &Output,
) -> Result<Figure, Failure> {
    let (quantize, quantize_head) = format(args)?;
    let cpu = devices(Backend::Cpu).into_iter().next().ok_or_else(|| {
        Failure::advised(
            "--write: this executable was built without cpu",
            "build it with `cargo build --release --features flex`",
        )
    })?;
    let started = Instant::now();
    let untrained = Untrained {
        config: Config::preset(name).expect("the command line knows the names"),
        quantize,
        quantize_head,
        speech: !args.no_speech,
    };
    let checkpoint = untrained.checkpoint(&cpu.device)?;
    let plan = checkpoint.plan();
    for warning in plan.warnings() {
        output.note(format!("note: {warning}"));
    }
    let summary = plan.summary();
    output.note(format!(
        "random weights of {name} to {}: {}",
        dir.display(),
        size(summary.bytes_out)
    ));
    let bar = output.bar("Writing");
    write(&plan, (dir, Replace::Nothing), bar).map_err(|error| failed(error, output))?;
    let seconds = started.elapsed().as_secs_f64();
    let rate = summary.bytes_out as f64 / seconds / 1e9;
    Ok(Figure {
        what: "write".into(),
        value: seconds,
        unit: "s",
        spread: [seconds; 2],
        fraction: None,
        detail: format!(
            "{} in {} tensors, {rate:.2} GB/s",
            size(summary.bytes_out),
            summary.tensors
        ),
    })
}

/// The error with advice that this command can keep to.
fn failed(error: WriteError, output: &Output) -> Failure {
    match error {
        WriteError::NotEmpty { .. } | WriteError::OtherRun { .. } => {
            Failure::advised(error.to_string(), "name a folder that does not exist yet")
        }
        error => failure(error, output),
    }
}
