//! `burn-omni`: Qwen3-Omni from a terminal.

mod answer;
mod args;
mod commands;
mod cuda;
mod device;
mod failure;
mod interrupt;
mod kernels;
mod layers;
mod model_dir;
mod output;
mod panics;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use crate::args::{Cli, Command};
use crate::failure::Failure;
use crate::output::Output;

fn main() -> ExitCode {
    layers::silence();
    let matches = match Cli::command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => return failure::report_usage(&error),
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => return failure::report_usage(&error),
    };
    let output = Output::new(&cli.messages);
    panics::install(output.verbosity());
    output.start_log();
    let outcome = interrupt::install().and_then(|()| panics::guard(|| dispatch(cli, &output)));
    kernels::save(&output);
    failure::report(outcome)
}

fn dispatch(cli: Cli, output: &Output) -> Result<(), Failure> {
    match cli.command {
        Command::Run(args) => commands::run::run(*args, output),
        Command::Chat(args) => commands::chat::chat(args, output),
        Command::Bench(args) => commands::bench::bench(args, output),
        Command::Quantize(args) => commands::quantize::quantize(&args, output),
        Command::Inspect(args) => commands::inspect::inspect(&args, output),
        Command::Doctor(args) => commands::doctor::doctor(&args, output),
    }
}
