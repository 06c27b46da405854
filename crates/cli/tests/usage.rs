//! What is typed, and what the exit code says about it.

mod common;

use common::{demo, names, run, run_in, run_with_stdin};

#[test]
fn help_and_version_are_data() {
    for (args, part) in [
        (&["--help"][..], "Usage: burn-omni"),
        (&["run", "--help"], "--use-audio-in-video"),
        (&["run", "-h"], "Examples:"),
        (&["chat", "--help"], "--voice <NAME>"),
        (&["inspect", "--help"], "NaN"),
        (&["doctor", "--help"], "--kernels"),
        (&["bench", "--help"], "--synthetic <NAME>"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
    ] {
        let shown = run(args);
        assert!(shown.succeeds().stdout.contains(part), "{shown:#?}");
    }
}

#[test]
fn no_command_shows_the_help_and_is_wrong_usage() {
    let shown = run::<&str>([]);
    assert_eq!(shown.code, Some(2));
    assert!(shown.stderr.contains("Usage: burn-omni"), "{shown:#?}");
}

#[test]
fn wrong_flags_are_one_line_with_advice() {
    run(["run", "--promt", "x"])
        .fails(2, &["--promt"])
        .hints("--prompt");
    run(["rum"]).fails(2, &["rum"]).hints("run");
    run(["run", "-p"]).fails(2, &["--prompt <TEXT>"]);
    run(["run", "-p", "x", "-q", "-v"])
        .fails(2, &["--quiet", "--verbose"])
        .hints("usage: burn-omni run");
}

#[test]
fn flags_that_do_nothing_yet_are_unknown() {
    run(["bench", "--batch", "2"]).fails(2, &["unexpected argument", "--batch"]);
}

#[test]
fn numbers_out_of_range_say_what_is_expected() {
    for (flag, value, expected) in [
        ("--max-tokens", "0", "at least 1"),
        ("--max-context", "many", "at least 1"),
        ("--temperature", "-1", "at least 0"),
        ("--temperature", "NaN", "at least 0"),
        ("--top-p", "0", "above 0 and up to 1"),
        ("--top-p", "1.5", "above 0 and up to 1"),
        ("--repetition-penalty", "0", "above 0"),
        ("--seed", "-1", "invalid digit"),
        ("--device", "gpu", "expected auto, cpu, cuda[:N]"),
        ("--dtype", "int4", "int4"),
        ("--kv-dtype", "fp4", "fp8"),
        ("--on-overflow", "wrap", "drop-oldest"),
    ] {
        run(["run", "-p", "x", &format!("{flag}={value}")]).fails(2, &[flag, value, expected]);
    }
}

#[test]
fn settings_of_speech_need_speech() {
    for flag in [
        "--voice=ethan",
        "--talker-temperature=0",
        "--max-frames=9",
        "--first-chunk=1",
        "--chunk=9",
    ] {
        run(["run", "-p", "x", flag]).fails(2, &["--speak", "--output"]);
    }
    run(["run", "-p", "x", "--speak", "--dump-codes"]).fails(2, &["--json"]);
}

#[test]
fn stdout_is_for_one_thing() {
    run(["run", "-p", "x", "-o", "-", "--json"])
        .fails(2, &["--json", "-o -", "stdout"])
        .hints("-o answer.wav");
}

#[test]
fn nothing_asked_is_wrong_usage() {
    run(["run"])
        .fails(2, &["nothing is asked"])
        .hints("-p TEXT");
    run_with_stdin(["run"], " \n").fails(2, &["nothing is asked"]);
    run_with_stdin(["run", "--messages", "-"], "[]").fails(2, &["nothing is asked"]);
    run(["run", "-p", ""]).fails(2, &["nothing is asked"]);
}

#[test]
fn a_model_that_is_not_found_is_looked_for_where_the_hint_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = common::program();
    command
        .current_dir(folder.path())
        .env("HOME", folder.path())
        .args(["run", "-p", "x"]);
    let missing = common::Run::from(command.output().unwrap());
    missing.fails(1, &["no model"]).hints("./assets/omni-demo");
    missing
        .hints("BURN_OMNI_MODEL")
        .hints("burn-omni/omni-demo");
}

#[test]
fn the_environment_names_a_model() {
    let mut command = common::program();
    command
        .env("BURN_OMNI_MODEL", "/no/such/model")
        .args(["run", "-p", "x"]);
    common::Run::from(command.output().unwrap()).fails(1, &["/no/such/model", "no such folder"]);
}

#[test]
fn devices_that_cannot_be_had_are_refused_in_one_line() {
    if !cfg!(feature = "vulkan") {
        run(["run", "-p", "x", "--device", "vulkan:cpu"])
            .fails(1, &["--device vulkan:cpu", "built without vulkan"])
            .hints("--features vulkan");
    }
    if !cfg!(feature = "metal") {
        run(["run", "-p", "x", "--device", "metal"])
            .fails(1, &["--device metal", "built without metal"])
            .hints("--features metal");
    }
    if !cfg!(feature = "cuda") {
        run(["run", "-p", "x", "--device", "cuda:1"])
            .fails(1, &["--device cuda:1", "built without cuda"])
            .hints("--features cuda");
    }
    run(["run", "-p", "x", "--device", "cpu", "--dtype", "bf16"])
        .fails(1, &["--dtype bf16", "cpu", "f32"]);
    for command in [["run", "-p", "x"].as_slice(), &["bench"]] {
        let wanted = ["--device", "cpu", "--kv-dtype", "bf16"];
        run(command.iter().copied().chain(wanted))
            .fails(1, &["--kv-dtype bf16", "cpu", "f32 or FP8"])
            .hints("--kv-dtype fp8");
    }
    run(["run", "-p", "x", "--device", "cpu", "--w4a4"])
        .fails(1, &["--w4a4", "cpu", "4-bit operands"])
        .hints("12.0");
}

#[test]
fn keys_and_values_of_fp8_take_a_byte_a_number() {
    let answer = |dtype: &str| {
        let model = demo();
        let model = model.to_str().unwrap();
        let question = [
            "run",
            "-m",
            model,
            "-p",
            "What is three plus four?",
            "--json",
        ];
        let arguments = question
            .into_iter()
            .chain(["--device", "cpu", "--kv-dtype", dtype]);
        run(arguments).succeeds().json()
    };
    let (auto, fp8) = (answer("auto"), answer("fp8"));
    assert_eq!(fp8["text"], auto["text"]);
    let bytes = |answer: &serde_json::Value| answer["memory"]["kv_bytes"].as_u64().unwrap();
    assert_eq!(bytes(&auto), 4 * bytes(&fp8));
}

#[test]
fn a_refused_command_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    run_in(
        folder.path(),
        ["run", "-p", "x", "--speak", "-m", "/no/such/model"],
    )
    .fails(1, &["no such folder"]);
    assert_eq!(names(folder.path()), [""; 0]);
}
