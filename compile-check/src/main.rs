//! Compiles every CUDA kernel that the models use, for every architecture, without a GPU or a driver.

mod architecture;
mod attentions;
mod cache;
mod check;
mod dense;
mod device;
mod model;
mod nvrtc;
mod products;
mod recorder;
mod report;
mod rows;
mod scaled;
mod steps;
mod usage;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Parser;

use architecture::{ALL, Architecture};
use cache::Cache;
use check::Check;
use model::Model;
use nvrtc::Nvrtc;

/// Compiles every CUDA kernel that the models use and checks registers, spills and shared memory.
#[derive(Parser)]
struct Arguments {
    /// Folder with `lib/libnvrtc.so.13` and `include`.
    #[arg(long)]
    toolkit: PathBuf,
    /// Folder for what earlier runs with this toolkit found.
    #[arg(long)]
    cache: Option<PathBuf>,
    /// All nine architectures instead of sm_80, sm_90a, sm_100a and sm_120a.
    #[arg(long)]
    all: bool,
    /// Only these architectures.
    #[arg(long = "arch", value_name = "NAME", value_parser = Architecture::parse)]
    only: Vec<Architecture>,
    /// Only kernels whose name contains this.
    #[arg(long, default_value = "")]
    kernel: String,
    /// Every kernel on a line of its own.
    #[arg(long)]
    list: bool,
    /// Folder to write the CUDA C++ to.
    #[arg(long)]
    texts: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let nvrtc = Nvrtc::open(&arguments.toolkit)?;
    let models = model::models()?;
    let mut faulty = 0;
    for architecture in architectures(&arguments) {
        faulty += check(&arguments, &nvrtc, architecture, &models)?;
    }
    Ok(if faulty == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Returns how many kernels are at fault.
fn check(
    arguments: &Arguments,
    nvrtc: &Nvrtc,
    architecture: Architecture,
    models: &[Model],
) -> Result<usize> {
    let start = Instant::now();
    let name = architecture.name();
    let cache = match &arguments.cache {
        Some(folder) => Cache::open(folder, &name)?,
        None => Cache::default(),
    };
    let texts = arguments.texts.as_ref().map(|folder| folder.join(&name));
    if let Some(folder) = &texts {
        fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
    }
    let check = Check {
        nvrtc,
        architecture,
        cache: &cache,
        texts: texts.as_deref(),
    };
    let kernels = check::collect(architecture, models, &arguments.kernel)?;
    let results = check.run(&kernels);
    report::print_totals(architecture, &results, start.elapsed());
    Ok(report::print(
        architecture,
        &kernels,
        &results,
        arguments.list,
    ))
}

fn architectures(arguments: &Arguments) -> Vec<Architecture> {
    if arguments.only.is_empty() {
        let wanted = |known: &Architecture| arguments.all || known.usual;
        ALL.into_iter().filter(wanted).collect()
    } else {
        arguments.only.clone()
    }
}
