//! What is said when CUDA or its card fail, and what is asked of a card, seen with a driver that fails on request.
#![cfg(unix)]

mod common;

use common::fake_cuda::with;
use common::{Run, demo};

/// Asks the demo model for a few words.
fn ask(variables: &[(&str, &str)]) -> Run {
    let model = demo();
    let model = model.to_str().expect("its path is text");
    let args = ["run", "-m", model, "--device", "cuda", "--max-tokens", "4"];
    with(variables, &[args.as_slice(), &["-p", "Hello."]].concat())
}

#[test]
fn a_card_that_computes_nothing_answers_all_the_same() {
    // What the other tests stand on: nothing else fails with this driver.
    ask(&[]).succeeds();
}

#[test]
fn no_step_is_taken_ahead_of_the_last_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("graphs");
    let name = file.to_str().expect("its path is text");
    ask(&[("FAKE_GRAPHS", name)]).succeeds();
    let launched = std::fs::read_to_string(&file).expect("the driver counts");
    // Four tokens: the first comes from the prompt's scores, and a step follows it and each of the next two.
    assert_eq!(launched, "3");
}

#[test]
fn a_machine_without_a_card_says_so() {
    ask(&[("FAKE_DEVICES", "0")])
        .fails(1, &["--device cuda:0", "found no cuda device"])
        .hints("doctor");
}

#[test]
fn a_driver_that_is_too_old_says_so() {
    for report in [ask(&[("FAKE_DRIVER", "12040")]), {
        let doctor = ["doctor", "--device", "cuda"];
        with(&[("FAKE_DRIVER", "12040")], &doctor)
    }] {
        report
            .fails(
                1,
                &["the driver is too old: it has CUDA 12.4", "NVRTC 13.0"],
            )
            .hints("an NVIDIA driver that has CUDA 13.0");
    }
    ask(&[("FAKE_DRIVER", "13010")]).succeeds();
}

#[test]
fn memory_that_others_have_is_told_from_a_card_that_is_too_small() {
    ask(&[("FAKE_FREE", "200000000")])
        .fails(1, &["the model takes", "may take 191 MiB"])
        .hints("of the 100 GB of cuda:0 200 MB are free");
    let model = demo();
    let model = model.to_str().expect("its path is text");
    let report = with(&[("FAKE_FREE", "200000000")], &["inspect", "-m", model]);
    let said = format!("{}{}", report.stdout, report.stderr);
    assert!(
        said.contains("of the 100 GB of cuda:0 200 MB are free"),
        "{report:#?}"
    );
    // A limit of one's own is nobody else's memory.
    let limited = ["--memory-limit", "200MB", "-p", "Hello."];
    let args = ["run", "-m", model, "--device", "cuda"];
    with(&[], &[args.as_slice(), &limited].concat())
        .fails(1, &["may take 191 MiB"])
        .hints("--");
}

#[test]
fn memory_that_ends_in_the_middle_of_a_load_is_said() {
    for room in ["100000", "3000000", "20000000"] {
        ask(&[("FAKE_ROOM", room)])
            .fails(1, &["loading the", "the device has no memory for", "more"])
            .hints("nvidia-smi");
    }
}

#[test]
fn a_card_that_is_lost_ends_the_process_cleanly() {
    // In the middle of the load, and behind it.
    for launches in ["0", "3", "100"] {
        ask(&[("FAKE_LAUNCHES", launches)])
            .fails(
                1,
                &[
                    "the thinker: the device failed",
                    "CUDA error 719, a kernel failed",
                ],
            )
            .hints("start the program again");
    }
}
