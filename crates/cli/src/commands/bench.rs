//! `burn-omni bench`: the speed of each stage.

mod write;

use std::env;
use std::path::Path;

use anyhow::Context;
use burn_omni::bench::{Bench, Figure, Sizes, Synthetic};
use burn_omni::{Config, EngineConfig, Quantize};

use super::load::{check_kv_dtype, check_w4a4};
use crate::args::BenchArgs;
use crate::device::{self, Found};
use crate::failure::Failure;
use crate::kernels;
use crate::model_dir::{self, VARIABLE};
use crate::output::{self, Bar, Output, size};

/// Measures every stage.
pub(crate) fn bench(args: BenchArgs, output: &Output) -> Result<(), Failure> {
    let output = output.without_progress(args.json);
    let sizes = Sizes {
        prompt_tokens: args.prompt_tokens,
        decode_tokens: args.decode_tokens,
        frames: args.frames,
        repeat: args.repeat,
        only: args.only.map(Into::into),
    };
    let (json, timeline) = (args.json, args.timeline.clone());
    let give = |figure: Figure| match json {
        true => output::json(&figure),
        false => Ok(output::data(&line(&figure))?),
    };
    let header = || match json {
        true => Ok(()),
        false => output::data(&HEADER.concat()),
    };
    if let (Some(name), Some(dir)) = (&args.synthetic, &args.write) {
        let written = write::checkpoint(&args, (name, dir), &output)?;
        header()?;
        give(written)?;
        return give_peak(give);
    }
    let bench = prepare(args, &output)?;
    header()?;
    bench.run(&sizes, give)?;
    if let Some(path) = timeline {
        draw(&bench, &sizes, &path)?;
    }
    give_peak(give)
}

/// `memory.host`, where the system says it.
fn give_peak(give: impl Fn(Figure) -> Result<(), Failure>) -> Result<(), Failure> {
    output::peak_bytes().map_or(Ok(()), |bytes| {
        give(Figure {
            what: "memory.host".into(),
            value: bytes as f64,
            unit: "bytes",
            spread: [bytes as f64; 2],
            fraction: None,
            detail: "largest resident set".into(),
        })
    })
}

/// Draws the time line of an answer.
fn draw(bench: &Bench, sizes: &Sizes, path: &Path) -> Result<(), Failure> {
    let timeline = bench.timeline(sizes)?;
    let timeline = timeline.context("--timeline: this checkpoint cannot speak")?;
    std::fs::write(path, timeline.svg())
        .with_context(|| format!("{}: cannot be written", path.display()))?;
    Ok(())
}

/// Loads or makes what is measured.
fn prepare(args: BenchArgs, output: &Output) -> Result<Bench, Failure> {
    let Some(name) = &args.synthetic else {
        return load(args, output);
    };
    if args.context.memory_limit.is_some() {
        return Err(Failure::usage(
            "--memory-limit: with --synthetic there is no plan to keep",
            "set the context with --max-context",
        ));
    }
    let (quantize, quantize_head) = format(&args)?;
    let found = args.device.device.open(output)?;
    check_w4a4(args.w4a4, &found.device, &found.name)?;
    check_kv_dtype(args.context.kv_dtype, &found.device, &found.name)?;
    say(&found, &format!("random weights of {name}"), output);
    Ok(Bench::synthetic(Synthetic {
        config: Config::preset(name).expect("the command line knows the names"),
        device: found.device,
        quantize,
        quantize_head,
        w4a4: args.w4a4,
        max_context: args.context.max_context,
        kv_dtype: args.context.kv_dtype.into(),
        speech: !args.no_speech,
    })?)
}

/// The format of random weights, and whether the head has it.
fn format(args: &BenchArgs) -> Result<(Option<Quantize>, bool), Failure> {
    let head = args.quantize.head_of_drawn()?;
    let quantize = args.format.quantize();
    if head && quantize.is_none() {
        return Err(Failure::usage(
            "--quantize-head: --format bf16 quantizes nothing",
            "use --format nvfp4 or --format mxfp4",
        ));
    }
    Ok((quantize, head))
}

fn load(args: BenchArgs, output: &Output) -> Result<Bench, Failure> {
    let quantize = args.quantize.checked()?;
    let found = args.device.device.open(output)?;
    check_w4a4(args.w4a4, &found.device, &found.name)?;
    check_kv_dtype(args.context.kv_dtype, &found.device, &found.name)?;
    let limit = args.context.memory_limit;
    let limit = limit.or_else(|| device::free_memory(&found));
    let dir = args.dir.or_else(|| env::var_os(VARIABLE).map(Into::into));
    let dir = model_dir::resolve(dir.as_deref())?;
    say(&found, &dir.display().to_string(), output);
    let bar: Bar = output.bar("Loading");
    let mut config = EngineConfig::new(dir)
        .device(found.device)
        .speech(!args.no_speech)
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
    if let Some(tokens) = args.context.max_context {
        config = config.max_context(tokens);
    }
    let bench = Bench::load(config)?;
    kernels::loaded(&found.name, output);
    Ok(bench)
}

/// What is measured, on stderr.
fn say(found: &Found, model: &str, output: &Output) {
    let product = device::product(found).map_or_else(String::new, |name| format!(" ({name})"));
    output.note(format_args!("{model} on {}{product}", found.name));
}

const HEADER: [&str; 2] = [
    "figure                        median      smallest       largest           of copies\n",
    "----------------------  ------------  ------------  ------------  --------  --------\n",
];

/// A row of the table.
fn line(figure: &Figure) -> String {
    let number = |value: f64| match figure.unit {
        "bytes" => size(value as u64),
        _ => digits(value),
    };
    let [smallest, largest] = figure.spread.map(number);
    let unit = match figure.unit {
        "bytes" => "",
        unit => unit,
    };
    let fraction = figure
        .fraction
        .map_or_else(String::new, |fraction| format!("{:.1} %", fraction * 100.0));
    let Figure {
        what,
        value,
        detail,
        ..
    } = figure;
    let row = format!(
        "{what:24}  {:>12}  {smallest:>12}  {largest:>12}  {unit:8}  {fraction:>8}  {detail}",
        number(*value)
    );
    row.trim_end().to_owned() + "\n"
}

/// Four digits that say something.
fn digits(value: f64) -> String {
    let whole = value.abs().max(1e-6).log10().floor() as i32;
    let behind = usize::try_from(3 - whole).unwrap_or(0);
    format!("{value:.behind$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_below_one_another() {
        let figure = |value, unit, fraction| Figure {
            what: "thinker.decode".into(),
            value,
            unit,
            spread: [value, value],
            fraction,
            detail: "64 tokens".into(),
        };
        let rows = [
            figure(613.254, "tokens/s", Some(0.456)),
            figure(0.001_234_6, "s/s", None),
            figure(25_650_000_000.0, "bytes", None),
        ];
        let rows = rows.map(|figure| line(&figure));
        assert!(rows[0].contains(" 613.3 ") && rows[0].contains("45.6 %"));
        assert!(rows[1].contains(" 0.001235 "));
        assert!(rows[2].contains(" 25.6 GB ") || rows[2].contains(" 25.7 GB "));
        let places = rows.map(|row| row.find("64 tokens"));
        assert!(places.iter().all(|place| *place == places[0]), "{places:?}");
        assert_eq!(digits(12_345.6), "12346");
    }
}
