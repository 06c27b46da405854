//! What is compiled when, seen with an NVRTC that keeps count.
#![cfg(unix)]

mod common;

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use common::Run;
use common::fake_cuda::with;
use tempfile::TempDir;

/// What NVRTC was given.
struct Texts {
    /// By threads that compile nothing else.
    ahead: usize,
    /// By the thread of the device, where it met them.
    late: usize,
    /// Other ones among all.
    different: usize,
}

/// A model, and a cache's folder.
struct Starts {
    folder: TempDir,
    model: PathBuf,
}

impl Starts {
    /// Of the demo model.
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let model = common::demo();
        Self { folder, model }
    }

    /// Of the demo model in NVFP4.
    fn of_packed() -> Self {
        let mut starts = Self::new();
        let packed = starts.folder.path().join("packed");
        let args = [Path::new("quantize"), &starts.model, &packed];
        let format = ["--format", "nvfp4"].map(Path::new);
        common::run(args.iter().chain(&format)).succeeds();
        starts.model = packed;
        starts
    }

    /// Asks the demo model for a few words, or for a few that are spoken.
    fn start(&self, variables: &[(&str, &str)], spoken: bool) -> (Run, Texts) {
        self.start_with(variables, spoken, &[])
    }

    /// The same with more arguments.
    fn start_with(&self, variables: &[(&str, &str)], spoken: bool, more: &[&str]) -> (Run, Texts) {
        let path = |path: &Path| path.to_str().expect("its path is text").to_owned();
        let [model, log] = [path(&self.model), path(&self.folder.path().join("log"))];
        let [cache, wav] = ["cache", "answer.wav"].map(|name| path(&self.folder.path().join(name)));
        let mut args = vec!["run", "-m", &model, "--device", "cuda", "--max-tokens", "4"];
        args.extend(["-p", "What is three plus four?"]);
        if spoken {
            args.extend(["--speak", "--max-frames", "8", "-o", &wav]);
        }
        args.extend(more);
        let own = [
            ("FAKE_NVRTC_LOG", log.as_str()),
            ("BURN_OMNI_CACHE", &cache),
        ];
        let report = with(&[&own, variables].concat(), &args);
        let lines = std::fs::read_to_string(&log).unwrap_or_default();
        let _ = std::fs::remove_file(&log);
        let lines: Vec<_> = lines
            .lines()
            .filter_map(|line| line.rsplit_once(' '))
            .collect();
        let ahead = lines
            .iter()
            .filter(|(thread, _)| *thread == "kernels")
            .count();
        let different: HashSet<_> = lines.iter().map(|(_, text)| text).collect();
        let texts = Texts {
            ahead,
            late: lines.len() - ahead,
            different: different.len(),
        };
        (report, texts)
    }
}

#[test]
fn a_first_start_compiles_ahead_what_is_launched() {
    for (starts, spoken) in [
        (Starts::new(), false),
        (Starts::new(), true),
        (Starts::of_packed(), true),
    ] {
        let (report, texts) = starts.start(&[], spoken);
        report.succeeds();
        let Texts {
            ahead,
            late,
            different,
        } = texts;
        assert_eq!(different, ahead + late, "no text is compiled twice");
        assert!(ahead >= 30, "{ahead} texts ahead");
        assert!(late * 20 <= ahead, "{ahead} texts ahead, and {late} late");
        let said = format!("first start of this model: compiling {ahead} CUDA kernels on ");
        assert!(report.stderr.contains(&said), "{report:#?}");

        let (report, texts) = starts.start(&[], spoken);
        report.succeeds();
        assert_eq!(
            texts.ahead + texts.late,
            0,
            "a second start compiles nothing"
        );
        assert!(!report.stderr.contains("compiling"), "{report:#?}");
    }
}

#[test]
fn what_the_first_start_did_not_load_is_compiled_ahead_by_the_next() {
    let starts = Starts::new();
    let (_, text) = starts.start(&[], false);
    let (report, speech) = starts.start(&[], true);
    report.succeeds();
    assert!(speech.ahead > 0, "speech has kernels of its own");
    assert_eq!(speech.different, speech.ahead + speech.late);
    assert!(
        speech.late * 20 <= text.ahead + speech.ahead,
        "{} late",
        speech.late
    );
}

#[test]
fn what_is_there_is_not_announced() {
    let starts = Starts::new();
    starts.start(&[], false).0.succeeds();
    for context in ["300", "60"] {
        let (report, texts) = starts.start_with(&[], false, &["--max-context", context]);
        report.succeeds();
        assert_eq!(texts.ahead + texts.late, 0, "--max-context {context}");
        assert!(!report.stderr.contains("compiling"), "{report:#?}");
    }
}

#[test]
fn a_start_that_compiled_nothing_leaves_its_kernels_to_the_next() {
    let starts = Starts::new();
    let (report, _) = starts.start(&[("FAKE_NVRTC_FAILS", "1")], false);
    report.fails(1, &[]);
    let (report, texts) = starts.start(&[], false);
    report.succeeds();
    assert!(texts.ahead >= 30, "{} texts ahead", texts.ahead);
    assert!(report.stderr.contains("compiling"), "{report:#?}");
}

#[test]
fn a_mark_without_its_kernels_is_none() {
    let starts = Starts::new();
    let (report, first) = starts.start(&[], false);
    report.succeeds();
    let kernels = starts.folder.path().join("cache/kernels");
    let version = std::fs::read_dir(kernels).expect("it was made");
    let version = version.map(|entry| entry.expect("it can be read").path());
    let [version] = &version.collect::<Vec<_>>()[..] else {
        panic!("one folder");
    };
    let is_mark = |file: &[u8]| {
        let mut parts = file.windows(b"cuda-rehearsed".len());
        parts.any(|part| part == b"cuda-rehearsed")
    };
    let (mut marks, mut removed) = (0, 0);
    for entry in std::fs::read_dir(version).expect("a folder") {
        let path = entry.expect("it can be read").path();
        if is_mark(&std::fs::read(&path).expect("a file")) {
            marks += 1;
        } else {
            std::fs::remove_file(&path).expect("it can be removed");
            removed += 1;
        }
    }
    assert_eq!(marks, 1);
    assert!(removed > 0);
    let (report, second) = starts.start(&[], false);
    report.succeeds();
    assert_eq!(second.ahead, first.ahead);
}

#[test]
fn only_a_model_that_was_loaded_removes_old_kernels_and_nobody_elses() {
    let starts = Starts::new();
    let kernels = starts.folder.path().join("cache/kernels");
    let kernel = "00112233445566778899aabbccddeeff";
    let version = "burn-omni-0.0.1-driver-12.8-nvrtc-12.8-headers-0123456789abcdef";
    let old = kernels.join(version).join(kernel);
    let own = kernels.join("burn-omni-my-paper").join("thesis.tex");
    let long_ago = SystemTime::now() - Duration::from_hours(24 * 200);
    for file in [&old, &own] {
        let folder = file.parent().expect("the file is in one");
        std::fs::create_dir_all(folder).expect("a folder");
        std::fs::write(file, "").expect("a file");
        for path in [file.as_path(), folder] {
            let path = File::open(path).expect("it is there");
            path.set_modified(long_ago).expect("its time can be set");
        }
    }
    let path = |path: &Path| path.to_str().expect("its path is text").to_owned();
    let [model, cache] = [
        path(&starts.model),
        path(&starts.folder.path().join("cache")),
    ];
    for args in [&["inspect", "-m", &model][..], &["doctor"]] {
        with(&[("BURN_OMNI_CACHE", &cache)], args);
        assert!(old.exists() && own.exists(), "{args:?} uses no kernels");
    }
    let (report, _) = starts.start(&[], false);
    report.succeeds();
    assert!(!kernels.join(version).exists());
    assert!(own.exists(), "it is no kernel");
}

#[test]
fn without_a_cache_every_kernel_is_compiled_where_it_is_met() {
    let starts = Starts::new();
    let (report, texts) = starts.start(&[("BURN_OMNI_CACHE", "")], false);
    report.succeeds();
    assert_eq!(texts.ahead, 0);
    assert_eq!(texts.different, texts.late);
}

#[test]
fn an_nvrtc_that_takes_no_text_is_said_as_ever() {
    let fails = ("FAKE_NVRTC_FAILS", "1");
    let starts = Starts::new();
    let (ahead, texts) = starts.start(&[fails], false);
    assert!(texts.ahead > 0);
    let (late, _) = starts.start(&[fails, ("BURN_OMNI_CACHE", "")], false);
    for report in [&ahead, &late] {
        report.fails(1, &["the thinker failed: ", "no text is good enough"]);
        assert!(
            !report.stderr.contains("__global__"),
            "no source: {report:#?}"
        );
    }
}
