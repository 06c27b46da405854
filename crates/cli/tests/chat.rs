//! `burn-omni chat`, typed into a pipe.

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use common::{Run, demo, names, program};
use serde_json::Value;

fn chat(folder: &Path, args: &[&str], lines: &[&str]) -> Run {
    let mut command = program();
    command
        .current_dir(folder)
        .arg("chat")
        .arg("-m")
        .arg(demo().canonicalize().expect("the demo checkpoint"));
    command.args(args).stdin(Stdio::piped());
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    writeln!(stdin, "{}", lines.join("\n")).expect("it reads");
    drop(stdin);
    child.wait_with_output().expect("the program ends").into()
}

fn saved(folder: &Path, name: &str) -> Vec<(String, Value)> {
    let text = fs::read_to_string(folder.join(name)).expect("it was saved");
    let messages: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let message = |message: Value| {
        (
            message["role"].as_str().expect("a role").into(),
            message["content"].clone(),
        )
    };
    messages.into_iter().map(message).collect()
}

#[test]
fn turns_media_and_voices_are_one_conversation() {
    let folder = tempfile::tempdir().unwrap();
    let media = demo()
        .join("../../tests/eval/media")
        .canonicalize()
        .unwrap();
    let image = format!("/image {}", media.join("image-002.png").display());
    let lines = [
        "What is three plus four?",
        "/voice ethan",
        "Count from 2 to 6.",
        "/voice off",
        &image,
        "What is this?",
        "/save all.json",
        "/reset",
        "What is three plus four?",
        "/save anew.json",
        "/quit",
        "never said",
    ];
    let run = chat(folder.path(), &["--system", "Be brief."], &lines);
    let answers = [
        "Seven.",
        "two three four five six.",
        "a green triangle.",
        "Seven.",
    ];
    let said: Vec<_> = run.succeeds().stdout.lines().collect();
    assert_eq!(said, answers);
    assert_eq!(
        names(folder.path()),
        ["all.json", "anew.json", "answer-001.wav"]
    );

    let all = saved(folder.path(), "all.json");
    assert_eq!(all.len(), 7);
    assert_eq!(all[0], ("system".into(), "Be brief.".into()));
    let answered = all
        .iter()
        .filter(|(role, _)| role == "assistant")
        .map(|(_, text)| text);
    assert!(answered.eq(&answers[..3]), "{all:?}");
    assert_eq!(all[5].1[0]["type"], "image");
    assert_eq!(saved(folder.path(), "anew.json").len(), 3);

    // What was saved is what was said: asked anew, the last question has the same answer.
    let question = folder.path().join("question.json");
    let text = fs::read_to_string(folder.path().join("all.json")).unwrap();
    let mut messages: Vec<Value> = serde_json::from_str(&text).unwrap();
    messages.pop();
    fs::write(&question, Value::from(messages).to_string()).unwrap();
    let mut command = program();
    command
        .args(["run", "--messages", question.to_str().unwrap(), "-m"])
        .arg(demo());
    let again = Run::from(command.output().unwrap());
    assert_eq!(again.succeeds().stdout, "a green triangle.\n");
}

#[test]
fn a_conversation_that_gets_too_long_is_refused_or_forgets_its_begin() {
    let folder = tempfile::tempdir().unwrap();
    let lines = ["What is three plus four?"; 6];
    let refused = chat(folder.path(), &["--max-context=64"], &lines);
    refused.is_tidy();
    let answers = refused.stdout.lines().count();
    assert!((1..6).contains(&answers), "{refused:#?}");
    assert_eq!(
        refused.stderr.matches("the context holds 64").count(),
        6 - answers
    );
    let forgets = chat(
        folder.path(),
        &[
            "--max-context=64",
            "--on-overflow=drop-oldest",
            "--max-tokens=8",
        ],
        &lines,
    );
    assert_eq!(forgets.succeeds().stdout, "Seven.\n".repeat(6));
}

#[test]
fn what_cannot_be_done_is_said_and_the_conversation_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let lines = [
        "/voice nobody",
        "/image none.png",
        "/sing",
        "What is three plus four?",
    ];
    let run = chat(folder.path(), &[], &lines);
    assert_eq!(run.code, Some(0));
    run.is_tidy();
    assert_eq!(run.stdout, "Seven.\n");
    for part in [
        "unknown voice `nobody`",
        "`none.png` cannot be read",
        "unknown command /sing",
    ] {
        assert!(run.stderr.contains(part), "{part}: {run:#?}");
    }
}
