//! What is printed.
#![expect(clippy::print_stdout, reason = "a report")]

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;

use crate::architecture::Architecture;
use crate::check::{Checked, Kernel};

/// Prints the kernels of an architecture, with `list` each for itself, and returns how many are at fault.
pub(crate) fn print(
    architecture: Architecture,
    kernels: &[Kernel],
    results: &[Result<Checked>],
    list: bool,
) -> usize {
    let mut faulty = 0;
    let mut names: BTreeMap<&str, Vec<&Checked>> = BTreeMap::new();
    for (kernel, result) in kernels.iter().zip(results) {
        let Kernel { name, part, .. } = kernel;
        let faults = match result {
            Ok(checked) => {
                names.entry(name).or_default().push(checked);
                if list {
                    println!("  {name} [{part}]: {}", summary(&[checked]));
                }
                faults(architecture, checked)
            }
            Err(error) => vec![format!("{error:#}")],
        };
        if !faults.is_empty() {
            faulty += 1;
            println!("  FAULT {name} [{part}]: {}", faults.join("; "));
        }
    }
    for (name, checked) in names {
        println!(
            "  {name}, {} variants: {}",
            checked.len(),
            summary(&checked)
        );
    }
    faulty
}

/// Prints what an architecture took.
pub(crate) fn print_totals(
    architecture: Architecture,
    results: &[Result<Checked>],
    time: Duration,
) {
    let cached = results.iter().flatten().filter(|checked| checked.cached);
    println!(
        "{}: {} kernels, {} of them known from an earlier run, {:.1} s",
        architecture.name(),
        results.len(),
        cached.count(),
        time.as_secs_f64()
    );
}

fn faults(architecture: Architecture, checked: &Checked) -> Vec<String> {
    let Checked { launch, usage, .. } = checked;
    usage.faults(architecture, launch.threads, launch.shared)
}

/// The range over variants of a kernel.
fn summary(variants: &[&Checked]) -> String {
    let range = |number: fn(&Checked) -> usize| {
        let numbers = variants.iter().map(|checked| number(checked));
        match (numbers.clone().min(), numbers.max()) {
            (Some(least), Some(most)) if least < most => format!("{least}-{most}"),
            (_, most) => most.unwrap_or(0).to_string(),
        }
    };
    format!(
        "{} threads, {} registers, {} B spilled, {} B of stack, {} B shared",
        range(|checked| checked.launch.threads),
        range(|checked| checked.usage.registers),
        range(|checked| checked.usage.spills),
        range(|checked| checked.usage.stack),
        range(|checked| checked.usage.shared + checked.launch.shared),
    )
}
