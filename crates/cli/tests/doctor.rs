//! What the doctor says.

mod common;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use common::{demo, program, run};

#[test]
fn the_processor_can_run_a_model() {
    for device in ["auto", "cpu"] {
        let healthy = run(["doctor", "--device", device]);
        let stdout = &healthy.succeeds().stdout;
        for part in [
            env!("CARGO_PKG_VERSION"),
            "processor",
            "threads",
            "flex",
            "ffmpeg",
        ] {
            assert!(stdout.contains(part), "{part}: {healthy:#?}");
        }
        assert!(healthy.stderr.contains("can run a model"), "{healthy:#?}");
    }
}

#[test]
fn the_report_is_json_too() {
    let model = demo();
    let healthy = run(["doctor", "--json", "-m", model.to_str().unwrap()]);
    let json = healthy.succeeds().json();
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(json["ok"], true);
    assert_eq!(json["model"], model.to_str().unwrap());
    assert_eq!(json["backends"][0]["name"], "cpu");
    assert!(json["processor"]["threads"].as_u64().unwrap() > 0);
    assert_eq!(healthy.stderr, "");
}

#[test]
fn every_kernel_is_checked() {
    let healthy = run(["doctor", "--kernels", "--json"]);
    let json = healthy.succeeds().json();
    let kernels = json["kernels"].as_array().unwrap();
    assert!(kernels.iter().any(|kernel| kernel["name"] == "attention"));
    assert!(
        kernels.iter().all(|kernel| kernel["ok"] == true),
        "{kernels:#?}"
    );
}

#[test]
fn a_kernel_has_its_line_before_the_others_are_checked() {
    let whole = run(["doctor", "--kernels", "--device", "cpu", "--json"]);
    let all = whole.succeeds().json()["kernels"].as_array().unwrap().len();
    let mut doctor = program()
        .args(["doctor", "--kernels", "--device", "cpu"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(doctor.stdout.take().unwrap()).lines();
    let mut kernels = lines
        .map(Result::unwrap)
        .filter(|line| line.starts_with("kernel"));
    let first = kernels.next().unwrap();
    assert!(first.contains("right, largest error"), "{first}");
    // What it has said when it is stopped here is all that is left to read.
    doctor.kill().unwrap();
    doctor.wait().unwrap();
    let said = 1 + kernels.count();
    assert!(said < all, "all {all} kernels were said at once");
}

#[test]
fn a_device_that_is_not_there_is_a_failure() {
    run(["doctor", "--device", "cuda:99"]).fails(1, &["cuda:99"]);
    if !cfg!(feature = "cuda") {
        let sick = run(["doctor", "--device", "cuda"]);
        sick.fails(1, &["built without cuda"])
            .hints("--features cuda");
        assert!(
            sick.stdout.contains("headers"),
            "what CUDA needs is shown all the same: {sick:#?}"
        );
        assert_eq!(
            run(["doctor", "--device", "cuda", "--json"]).json()["ok"],
            false
        );
    }
}
