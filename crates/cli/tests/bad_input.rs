//! Requests that cannot be answered: one line that says why, the exit code, and no file left behind.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::checkpoint::Broken;
use common::media::{file, png, wav};
use common::{Run, demo, names, program, run_in, run_with_stdin};

/// Runs `run` on the demo in a folder of its own and looks that nothing but `kept` is left there.
fn ask(folder: &Path, args: &[&str]) -> Run {
    let before = names(folder);
    let demo = demo();
    let all = [&["run", "-m", demo.to_str().expect("a plain path")], args].concat();
    let outcome = run_in(folder, all);
    if outcome.code != Some(0) {
        assert_eq!(
            names(folder),
            before,
            "no file is left behind: {outcome:#?}"
        );
    }
    outcome
}

#[test]
fn a_checkpoint_that_does_not_load() {
    let cut = Broken::new().bytes(|bytes| bytes.truncate(bytes.len() / 2));
    let folder = tempfile::tempdir().unwrap();
    run_in(
        folder.path(),
        ["run", "-m", cut.text(), "-p", "x", "-o", "a.wav"],
    )
    .fails(1, &["model.safetensors", "truncated"])
    .hints("incomplete");
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn side_files_that_are_damaged() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [
        ("config.json", &b"{\"thinker_config\": "[..]),
        ("tokenizer.json", b"{\"\xFF\": 0}"),
    ] {
        let broken = Broken::new().write(name, bytes);
        run_in(folder.path(), ["run", "-m", broken.text(), "-p", "x"])
            .fails(1, &[name])
            .hints("copy it from the original release");
    }
}

#[test]
fn audio_that_cannot_be_heard() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    file(dir, "empty.wav", "");
    file(dir, "silent.wav", wav(&[]));
    file(dir, "text.wav", "this is not audio at all, only some text");
    file(dir, "cut.wav", &wav(&[0; 100])[..30]);
    file(dir, "picture.wav", png(1, 1));
    for (name, parts) in [
        ("none.wav", &["cannot be read", "No such file"][..]),
        ("empty.wav", &["expected", "found an empty file"]),
        ("silent.wav", &["at least one sample"]),
        ("text.wav", &["expected wav, flac", "found text"]),
        ("cut.wav", &["cut.wav"]),
        ("picture.wav", &["found a png image"]),
        (".", &["found a folder"]),
    ] {
        ask(dir, &["--audio", name, "-o", "a.wav"]).fails(1, &[&[name], parts].concat());
    }
}

#[test]
fn images_that_cannot_be_seen() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let mut corrupt = png(1, 1);
    let middle = corrupt.len() - 20;
    corrupt[middle] ^= 0xff;
    file(dir, "corrupt.png", corrupt);
    file(dir, "long.png", png(30_000, 10));
    file(dir, "huge.png", png(20_000, 20_000));
    file(dir, "nothing.png", png(0, 0));
    file(dir, "text.png", "a picture says more than these words");
    file(dir, "empty.png", "");
    for (name, parts) in [
        ("corrupt.png", &["damaged", "png image"][..]),
        ("long.png", &["30000", "10"]),
        (
            "huge.png",
            &["20000×20000 pixels", "the limit is 100 megapixels"],
        ),
        ("nothing.png", &["nothing.png"]),
        (
            "text.png",
            &["expected a png, jpeg, webp or gif image", "found text"],
        ),
        ("empty.png", &["found an empty file"]),
        ("none.png", &["cannot be read"]),
    ] {
        ask(dir, &["--image", name, "-p", "What is this?"]).fails(1, &[&[name], parts].concat());
    }
    ask(dir, &["--image", "text.png"]).hints("is it the right file?");
}

#[test]
fn the_smallest_image_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    file(folder.path(), "dot.png", png(1, 1));
    let outcome = ask(
        folder.path(),
        &["--image", "dot.png", "-p", "What is this?"],
    );
    assert!(!outcome.succeeds().stdout.trim().is_empty(), "{outcome:#?}");
}

#[test]
fn conversations_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    file(dir, "broken.json", "[{\"role\": ");
    file(dir, "number.json", "7");
    file(
        dir,
        "role.json",
        r#"[{"role": "narrator", "content": "x"}]"#,
    );
    file(
        dir,
        "part.json",
        r#"[{"role": "user", "content": [{"type": "smell", "smell": "x"}]}]"#,
    );
    file(
        dir,
        "path.json",
        r#"[{"role": "user", "content": [{"type": "audio", "audio": "gone.wav"}]}]"#,
    );
    for (name, parts) in [
        ("none.json", &["none.json", "cannot be read"][..]),
        ("broken.json", &["broken.json", "expected JSON"]),
        (
            "number.json",
            &["number.json", "a list of messages", "a number"],
        ),
        (
            "role.json",
            &["role.json", "message 0", "`role`", "`narrator`"],
        ),
        ("part.json", &["part.json", "content[0].type", "`smell`"]),
        ("path.json", &["gone.wav", "cannot be read"]),
    ] {
        ask(dir, &["--messages", name]).fails(1, parts);
    }
    ask(dir, &["--messages", "part.json"]).hints("content is a text, or a list of parts");
    run_with_stdin(["run", "--messages", "-"], "{}").fails(1, &["stdin", "`messages`"]);
}

#[test]
fn a_prompt_that_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let long = "Say: red green blue ".repeat(20);
    ask(folder.path(), &["-p", &long, "--max-context", "30"])
        .fails(1, &["the prompt has", "the context holds 30"])
        .hints("--max-context");
    ask(folder.path(), &["-p", "x", "--max-context", "9999999"])
        .fails(1, &["max_context", "8192", "9999999"]);
}

#[test]
fn a_model_that_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let ask = |flags: &[&str]| ask(folder.path(), &[&["-p", "x"], flags].concat());
    ask(&["--memory-limit", "20MB"])
        .fails(1, &["8192 tokens", "may take 19 MiB"])
        .hints("--quantize nvfp4");
    ask(&["--memory-limit=60MB", "--max-context=4096"])
        .fails(1, &["4096 tokens", "may take 57 MiB"])
        .hints("--max-context 3");
    ask(&["--memory-limit", "much"]).fails(2, &["--memory-limit", "such as 5GB"]);
}

#[test]
fn voices_that_nobody_has() {
    let folder = tempfile::tempdir().unwrap();
    ask(folder.path(), &["-p", "x", "--speak", "--voice", "nobody"])
        .fails(1, &["unknown voice `nobody`", "aiden", "chelsie", "ethan"]);
    let mute = Broken::new()
        .tensors(|tensors| tensors.retain(|tensor| tensor.name.starts_with("thinker.")));
    run_in(
        folder.path(),
        ["run", "-m", mute.text(), "-p", "x", "--speak"],
    )
    .fails(1, &[mute.text(), "cannot speak", "talker"])
    .hints("ask for text only");
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn places_that_cannot_be_written_to() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("taken")).unwrap();
    for (path, part) in [
        ("gone/a.wav", "No such file"),
        ("taken", "it is a folder"),
        ("..", "it is a folder"),
    ] {
        ask(folder.path(), &["-p", "x", "-o", path]).fails(1, &[path, "cannot be written", part]);
    }
}

/// A limit on the size of files stands in for a full disk.
#[test]
fn a_disk_that_is_full() {
    let folder = tempfile::tempdir().unwrap();
    let demo = demo();
    let script = "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args([
        "-c",
        script,
        env!("CARGO_BIN_EXE_burn-omni"),
        "run",
        "-m",
        demo.to_str().expect("a plain path"),
    ]);
    command
        .args(["-p", "Count from 2 to 6.", "-o", "a.wav"])
        .current_dir(folder.path());
    let outcome = Run::from(command.stdin(Stdio::null()).output().unwrap());
    outcome.fails(1, &["a.wav", "cannot be written", "File too large"]);
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let demo = demo();
    let script = "\"$0\" run -m \"$1\" -p 'Count from 2 to 6.' -q | true; echo ${PIPESTATUS[0]}";
    let mut command = Command::new("bash");
    command.args([
        "-c",
        script,
        env!("CARGO_BIN_EXE_burn-omni"),
        demo.to_str().expect("a plain path"),
    ]);
    let outcome = Run::from(command.stdin(Stdio::null()).output().unwrap());
    assert_eq!((outcome.stdout.trim(), outcome.stderr.as_str()), ("0", ""));
}

#[test]
fn ctrl_c_ends_an_answer_and_leaves_the_speech_so_far() {
    let folder = tempfile::tempdir().unwrap();
    let demo = demo();
    let mut command = program();
    command.args([
        "run",
        "-m",
        demo.to_str().expect("a plain path"),
        "-o",
        "a.wav",
        "--max-frames",
        "4000",
    ]);
    // A voice that never finds its end speaks for minutes.
    command.args(["--talker-temperature", "9", "-p", "Count from 2 to 6."]);
    command
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let started = Instant::now();
    let spoken = || {
        let part = names(folder.path())
            .into_iter()
            .find(|name| name.ends_with(".part"));
        let part = part.and_then(|name| fs::metadata(folder.path().join(name)).ok());
        part.is_some_and(|part| part.len() > 100_000)
    };
    while !spoken() {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "the answer starts"
        );
        sleep(Duration::from_millis(5));
    }
    let kill = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(kill.success());
    let outcome = Run::from(child.wait_with_output().unwrap());
    assert_eq!(outcome.code, Some(130), "{outcome:#?}");
    outcome.is_tidy();
    assert!(!outcome.stderr.contains("error"), "{outcome:#?}");
    assert_eq!(names(folder.path()), ["a.wav"]);
    let wave = fs::read(folder.path().join("a.wav")).unwrap();
    let size = |at: usize| u32::from_le_bytes(wave[at..at + 4].try_into().unwrap());
    let length = u32::try_from(wave.len()).unwrap();
    assert_eq!([size(4), size(40)], [length - 8, length - 44]);
}
