//! `burn-omni bench`.

mod common;

use common::{Run, demo, program, run};
use serde_json::Value;

/// Small enough for a test.
const SMALL: [&str; 8] = [
    "--prompt-tokens=20",
    "--decode-tokens=4",
    "--frames=30",
    "--repeat=2",
    "--max-context=64",
    "--device=cpu",
    "--json",
    "--no-progress",
];
const TEXT: [&str; 6] = [
    "load",
    "copy_bandwidth",
    "thinker.prefill",
    "thinker.decode",
    "thinker.decode.sampled",
    "memory.weights",
];
const SPEECH: [&str; 6] = [
    "talker.frame",
    "code2wav.rtf",
    "code2wav.rtf_at_once",
    "first_audio",
    "answer.rtf",
    MARGIN,
];
/// What a busy machine may make less than nothing.
const MARGIN: &str = "answer.margin";
/// Those that the bytes of weights limit.
const READING: [&str; 3] = ["thinker.decode", "thinker.decode.sampled", "talker.frame"];

fn small(args: &[&str]) -> Run {
    run(["bench"].iter().chain(args).chain(&SMALL))
}

/// The figures of a run, each a sound number.
#[track_caller]
fn figures(run: &Run) -> Vec<Value> {
    let lines = run.succeeds().stdout.lines();
    let figures: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for figure in &figures {
        let any = figure["what"] == MARGIN;
        let sound = |x: &f64| x.is_finite() && (any || *x > 0.0);
        let number = |value: &Value| value.as_f64().filter(sound);
        let value = number(&figure["value"]).unwrap_or_else(|| panic!("{figure}"));
        let [smallest, largest] = [0, 1].map(|i| number(&figure["spread"][i]).unwrap_or(f64::NAN));
        assert!(smallest <= value && value <= largest, "{figure}");
        assert!(figure["unit"].is_string(), "{figure}");
        let what = figure["what"].as_str().unwrap_or_default();
        let fraction = number(&figure["fraction"]);
        assert_eq!(fraction.is_some(), READING.contains(&what), "{figure}");
    }
    figures
}

fn value(figures: &[Value], what: &str) -> Option<f64> {
    let figure = figures.iter().find(|figure| figure["what"] == what);
    figure.and_then(|figure| figure["value"].as_f64())
}

#[test]
fn every_stage_of_a_checkpoint_has_its_figure() {
    let path = demo().display().to_string();
    let figures = figures(&small(&["-m", &path]));
    for what in TEXT.iter().chain(&SPEECH) {
        assert!(value(&figures, what).is_some(), "{what}");
    }
}

#[test]
fn without_a_checkpoint_every_format_has_its_figures() {
    let weights = |args: &[&str]| {
        let all = [&["--synthetic", "omni-demo"], args].concat();
        let figures = figures(&small(&all));
        for what in TEXT.iter().chain(&SPEECH) {
            let silent = args.contains(&"--no-speech") && SPEECH.contains(what);
            assert_eq!(value(&figures, what).is_none(), silent, "{what}");
        }
        value(&figures, "memory.weights").unwrap()
    };
    let nvfp4 = weights(&["--no-speech"]);
    let head = weights(&["--no-speech", "--quantize-head"]);
    let bf16 = weights(&["--format=bf16", "--no-speech"]);
    assert!(head < nvfp4 && nvfp4 < bf16, "{head} {nvfp4} {bf16}");
    assert!(weights(&["--format=mxfp4"]) > nvfp4);
}

#[test]
fn an_answer_is_drawn_and_has_a_speed_of_thinking_while_it_speaks() {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("timeline.svg");
    let run = run([
        "bench",
        "--synthetic=omni-demo",
        "--device=cpu",
        "--prompt-tokens=150",
        "--decode-tokens=1200",
        "--frames=12",
        "--repeat=1",
        "--json",
        "--timeline",
        picture.to_str().unwrap(),
    ]);
    let figures = figures(&run);
    assert!(value(&figures, "thinker.speaking").is_some(), "{run:#?}");
    let first = figures
        .iter()
        .find(|figure| figure["what"] == "first_audio");
    let detail = first.and_then(|figure| figure["detail"].as_str());
    let detail = detail.expect("a figure");
    assert_eq!(
        detail,
        "150 tokens before it, 1200 tokens and 12 frames in it"
    );
    let svg = std::fs::read_to_string(picture).unwrap();
    assert!(svg.contains("first sound"), "{svg}");
    // A bar a token and a frame at least.
    assert!(svg.matches("<rect").count() > 1200, "{svg}");
}

#[test]
fn one_part_is_measured_alone_and_silence_has_no_figure() {
    let path = demo().display().to_string();
    let spoken = figures(&small(&["-m", &path, "--only", "answer"]));
    assert!(value(&spoken, "first_audio").is_some_and(|ms| ms > 0.0));
    assert!(value(&spoken, "thinker.decode").is_none() && value(&spoken, "talker.frame").is_none());
    let short = [
        "--decode-tokens",
        "1",
        "--frames",
        "1",
        "--repeat",
        "1",
        "--json",
    ];
    let silent = figures(&run(["bench", "-m", &path, "--only", "answer"]
        .into_iter()
        .chain(short)));
    assert!(value(&silent, "first_audio").is_none());
    assert!(value(&silent, "copy_bandwidth").is_some());
}

#[test]
fn people_get_a_table() {
    let shown = run([
        "bench",
        "--synthetic=omni-demo",
        "--device=cpu",
        "--prompt-tokens=8",
        "--decode-tokens=2",
        "--repeat=1",
        "--no-speech",
    ]);
    let lines: Vec<_> = shown.succeeds().stdout.lines().collect();
    assert!(lines[0].starts_with("figure "), "{shown:#?}");
    let row = lines.iter().find(|line| line.starts_with("thinker.decode"));
    let row = row.unwrap_or_else(|| panic!("{shown:#?}"));
    for part in ["tokens/s", " %", "2 tokens behind 8, pass by pass"] {
        assert!(row.contains(part), "{row}");
    }
    assert!(shown.stderr.contains("random weights of omni-demo on cpu"));
}

#[test]
fn the_environment_does_not_keep_from_random_weights() {
    let mut command = program();
    command.env("BURN_OMNI_MODEL", "/no/such/model");
    command.args(["bench", "--synthetic=omni-demo", "--no-speech"]);
    command.args(SMALL);
    Run::from(command.output().unwrap()).succeeds();
    let mut command = program();
    command.env("BURN_OMNI_MODEL", "/no/such/model");
    command.arg("bench").args(SMALL);
    Run::from(command.output().unwrap()).fails(1, &["/no/such/model", "no such folder"]);
}

#[test]
fn random_weights_are_written_and_answer() {
    let folder = tempfile::tempdir().unwrap();
    for (format, form) in [
        ("nvfp4", "336 NVFP4"),
        ("mxfp4", "224 MXFP4"),
        ("bf16", "BF16"),
    ] {
        let dir = folder.path().join(format);
        let dir = dir.to_str().unwrap();
        let write = [
            "bench",
            "--synthetic=omni-demo",
            "--format",
            format,
            "--write",
            dir,
        ];
        let written = run(write.iter().chain(&["--json"]));
        let lines = written.succeeds().stdout.lines();
        let figures: Vec<Value> = lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert!(value(&figures, "write").is_some(), "{written:#?}");
        let inspected = run(["inspect", "-m", dir, "--check"]);
        assert!(inspected.succeeds().stdout.contains(form), "{inspected:#?}");
        let answer = run([
            "run",
            "-m",
            dir,
            "--device=cpu",
            "--max-tokens=3",
            "-p",
            "Hello.",
        ]);
        assert!(!answer.succeeds().stdout.trim().is_empty(), "{answer:#?}");
        figures_of(dir);
        run(write)
            .fails(1, &[dir, "not empty"])
            .hints("does not exist");
    }
}

#[track_caller]
fn figures_of(dir: &str) {
    let figures = figures(&small(&["-m", dir, "--no-speech"]));
    assert!(value(&figures, "load").is_some());
}

#[test]
fn what_cannot_be_written_is_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("new");
    let dir = dir.to_str().unwrap();
    run(["bench", "--write", dir]).fails(2, &["--synthetic"]);
    let write = |more: &str| run(["bench", "--synthetic=omni-demo", "--write", dir, more]);
    for more in [
        "--device=cpu",
        "--w4a4",
        "--max-context=64",
        "--repeat=2",
        "--timeline=x.svg",
    ] {
        let flag = more.split('=').next().unwrap();
        write(more).fails(2, &["--write", flag]);
    }
    write("--quantize=nvfp4").fails(2, &["--quantize", "--synthetic"]);
    let bad = [
        "bench",
        "--synthetic=omni-demo",
        "--format=bf16",
        "--quantize-head",
        "--write",
        dir,
    ];
    run(bad).fails(2, &["--quantize-head", "bf16"]);
    assert!(!folder.path().join("new").exists());
    let file = folder.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    let file = file.to_str().unwrap();
    run(["bench", "--synthetic=omni-demo", "--write", file]).fails(1, &[file, "found a file"]);
}

#[test]
fn what_cannot_be_measured_is_said_in_one_line() {
    run(["bench", "--synthetic=qwen4"]).fails(2, &["qwen4", "qwen3-omni-30b-a3b", "omni-demo"]);
    run(["bench", "--synthetic=omni-demo", "-m", "x"]).fails(2, &["--synthetic", "--model"]);
    run(["bench", "--format=bf16"]).fails(2, &["--synthetic"]);
    run(["bench", "--synthetic=omni-demo", "--format=int3"]).fails(2, &["int3", "nvfp4"]);
    run(["bench", "--synthetic=omni-demo", "--quantize=nvfp4"])
        .fails(2, &["--quantize", "--synthetic"])
        .hints("--format");
    run([
        "bench",
        "--synthetic=omni-demo",
        "--format=bf16",
        "--quantize-head",
    ])
    .fails(2, &["--quantize-head", "bf16"])
    .hints("--format nvfp4");
    run(["bench", "--timeline=x.svg", "--no-speech"]).fails(2, &["--timeline", "--no-speech"]);
    run(["bench", "--quantize-head"]).fails(2, &["--quantize-head"]);
    run(["bench", "--repeat=0"]).fails(2, &["--repeat", "at least 1"]);
    run(["bench", "-m", "/no/such/model"]).fails(1, &["/no/such/model"]);
    run([
        "bench",
        "--synthetic=omni-demo",
        "--device=cpu",
        "--max-context=100",
    ])
    .fails(1, &["100", "576"])
    .hints("--prompt-tokens");
    run([
        "bench",
        "--synthetic=omni-demo",
        "--device=cpu",
        "--max-context=9000",
    ])
    .fails(1, &["max_context", "8192", "9000"]);
}
