//! Runs that stop, and what is left of them.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{Source, files, in_shards, tensors};
use crate::checkpoint::{Checkpoint, CheckpointError, UNFINISHED};
use crate::write::{Form, Replace, WriteError};

/// The names of the files with weights.
fn weights(dir: &Path) -> Vec<String> {
    if !dir.exists() {
        return Vec::new();
    }
    let files = files(dir).into_iter().map(|file| file.0);
    files.filter(|name| name.contains(".safetensors")).collect()
}

#[test]
fn a_stopped_run_is_no_checkpoint_and_goes_on() {
    for form in [Form::ModelOpt, Form::CompressedTensors, Form::Mxfp4] {
        let source = Source::new(&tensors());
        let whole = source.folder.path().join("whole");
        source
            .write_to(&whole, in_shards(form), Replace::Nothing)
            .unwrap();
        let whole = files(&whole);
        for steps in 1..=16 {
            assert!(matches!(
                source.write_some(in_shards(form), steps),
                WriteError::Interrupted
            ));
            let found = weights(&source.target());
            assert!(found.iter().all(|name| name.ends_with(".safetensors")));
            if !found.is_empty() {
                assert!(matches!(
                    Checkpoint::open(&source.target()),
                    Err(CheckpointError::Unfinished { .. })
                ));
                assert!(!source.target().join("config.json").exists());
            }
            source.write(in_shards(form)).unwrap();
            assert!(files(&source.target()) == whole, "{form:?}, {steps} steps");
            fs::remove_dir_all(source.target()).unwrap();
        }
    }
}

#[test]
fn a_run_that_stops_before_it_has_anything_leaves_nothing() {
    let source = Source::new(&tensors());
    source.write_some(in_shards(Form::ModelOpt), 1);
    assert!(!source.target().exists());
}

#[test]
fn whole_shards_are_not_written_again() {
    let source = Source::new(&tensors());
    let options = in_shards(Form::CompressedTensors);
    source.write_some(options.clone(), 12);
    let done = weights(&source.target());
    assert!(done.len() > 1, "{done:?}");
    let old = SystemTime::now() - Duration::from_hours(1);
    for name in &done {
        let file = fs::File::options()
            .write(true)
            .open(source.target().join(name))
            .unwrap();
        file.set_modified(old).unwrap();
    }
    // One of them was not put on the disk as a whole.
    let cut = source.target().join(&done[0]);
    let file = fs::File::options().write(true).open(&cut).unwrap();
    file.set_len(100).unwrap();
    source.write(options).unwrap();
    for name in &done {
        let changed = fs::metadata(source.target().join(name)).unwrap().modified();
        assert_eq!(changed.unwrap() == old, *name != done[0], "{name}");
    }
    Checkpoint::open(&source.target()).unwrap();
}

#[test]
fn a_file_that_was_in_the_making_is_replaced() {
    let source = Source::new(&tensors());
    let options = in_shards(Form::CompressedTensors);
    source.write_some(options.clone(), 12);
    let done = weights(&source.target());
    let next = format!("model-{:05}-of", done.len() + 1);
    let part = done[0].replace("model-00001-of", &next) + ".part";
    fs::write(source.target().join(&part), "half of it").unwrap();
    source.write(options).unwrap();
    assert!(!weights(&source.target()).contains(&part));
}

#[test]
fn another_run_does_not_go_on_with_it() {
    let source = Source::new(&tensors());
    source.write_some(in_shards(Form::ModelOpt), 12);
    let other = in_shards(Form::Mxfp4);
    let error = source.write(other.clone()).unwrap_err();
    assert!(matches!(error, WriteError::OtherRun { .. }), "{error}");
    assert!(error.hint().unwrap().contains("--force"));
    source
        .write_to(&source.target(), other, Replace::Checkpoint)
        .unwrap();
    assert!(!source.target().join("thinker").exists());
    Checkpoint::open(&source.target()).unwrap();
}

#[test]
fn two_runs_do_not_write_to_one_folder() {
    let source = Source::new(&tensors());
    source.write_some(in_shards(Form::ModelOpt), 12);
    let record = fs::File::open(source.target().join(UNFINISHED)).unwrap();
    record.lock().unwrap();
    let error = source.write(in_shards(Form::ModelOpt)).unwrap_err();
    assert!(matches!(error, WriteError::Busy { .. }), "{error}");
    drop(record);
    source.write(in_shards(Form::ModelOpt)).unwrap();
}
