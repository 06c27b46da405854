//! Where speech goes: files, pipes and stdout.

mod common;

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{Run, demo, names, program};

const QUESTION: [&str; 2] = ["-p", "Count from 2 to 6."];
const GREEDY: &str = "--talker-temperature=0";

fn ask(args: &[&str]) -> Command {
    let mut command = program();
    command
        .arg("run")
        .arg("-m")
        .arg(demo())
        .args(QUESTION)
        .args(args);
    command
}

/// The samples of a wav file, or of a stream of one.
fn samples(wave: &[u8]) -> &[u8] {
    assert_eq!((&wave[..4], &wave[8..16]), (&b"RIFF"[..], &b"WAVEfmt "[..]));
    &wave[44..]
}

#[test]
fn a_file_a_pipe_and_stdout_get_the_same_samples() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let output = ask(&[GREEDY, "-o", path("a.wav").to_str().unwrap()])
        .output()
        .unwrap();
    Run::from(output).succeeds();
    let file = fs::read(path("a.wav")).unwrap();
    let size = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
    assert_eq!([size(4) + 8, size(40) + 44], [file.len(); 2]);

    let raw = ask(&[GREEDY, "-o", "-"]).output().unwrap();
    assert_eq!(raw.status.code(), Some(0));
    assert!(raw.stdout == samples(&file), "raw samples");
    let text = String::from_utf8(raw.stderr).unwrap();
    assert!(text.contains("two three four five six."), "{text}");

    let made = Command::new("mkfifo").arg(path("pipe")).status().unwrap();
    assert!(made.success());
    let mut command = ask(&[GREEDY, "-o", path("pipe").to_str().unwrap()]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let piped = fs::read(path("pipe")).unwrap();
    Run::from(child.wait_with_output().unwrap()).succeeds();
    assert!(samples(&piped) == samples(&file), "samples through a pipe");
    // Nobody knew the length when it began.
    assert_eq!([&piped[4..8], &piped[40..44]], [[0xff; 4]; 2]);
    assert_eq!(names(folder.path()), ["a.wav", "pipe"]);
}

#[test]
fn packets_of_any_size_make_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let wave = |name: &str, args: &[&str]| {
        let path = folder.path().join(name);
        let all = [&[GREEDY, "-o", path.to_str().unwrap()], args].concat();
        Run::from(ask(&all).output().unwrap()).succeeds();
        fs::read(path).unwrap()
    };
    let whole = wave("whole.wav", &["--first-chunk=500", "--chunk=500"]);
    let cut = wave("cut.wav", &["--first-chunk=1", "--chunk=3"]);
    assert_eq!(whole.len(), cut.len());
    let steps = samples(&whole).chunks(2).zip(samples(&cut).chunks(2));
    let value = |bytes: &[u8]| i16::from_le_bytes([bytes[0], bytes[1]]);
    let furthest = steps.map(|(a, b)| value(a).abs_diff(value(b))).max();
    assert!(furthest.is_some_and(|steps| steps <= 1), "{furthest:?}");
}

#[test]
fn ctrl_c_twice_ends_a_program_whose_reader_stalls() {
    let mut command = ask(&["-o", "-", "--talker-temperature=9", "--max-frames=4000"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut first = [0];
    let mut sound = child.stdout.take().unwrap();
    sound.read_exact(&mut first).unwrap();
    // A pipe holds 64 KiB, which this voice fills in much less time; nobody reads on.
    sleep(Duration::from_secs(4));
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < Duration::from_secs(60), "it ends");
        let kill = Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .stderr(Stdio::null())
            .status();
        assert!(kill.is_ok());
        sleep(Duration::from_millis(500));
    }
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
