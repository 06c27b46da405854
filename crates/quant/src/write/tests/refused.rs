//! What is not written.

use std::fs;

use super::{Source, files, tensor, tensors};
use crate::checkpoint::Checkpoint;
use crate::write::{Form, Plan, Replace, WriteError, WriteOptions};

fn options() -> WriteOptions {
    WriteOptions::new(Form::ModelOpt)
}

#[test]
fn folders_that_have_something_in_them() {
    let source = Source::new(&tensors());
    fs::create_dir(source.target()).unwrap();
    let other = source.target().join("notes.txt");
    fs::write(&other, "mine").unwrap();
    let error = source.write(options()).unwrap_err();
    assert!(matches!(error, WriteError::NotEmpty { .. }), "{error}");
    assert_eq!(files(&source.target()).len(), 1);
    // What is not of a checkpoint stays, and what is of one goes.
    fs::write(source.target().join("old.safetensors"), "").unwrap();
    let replaced = |form| {
        let options = WriteOptions::new(form);
        source.write_to(&source.target(), options, Replace::Checkpoint)
    };
    replaced(Form::ModelOpt).unwrap();
    assert!(source.target().join("thinker/config.json").is_file());
    replaced(Form::Mxfp4).unwrap();
    let names: Vec<_> = files(&source.target()).into_iter().map(|f| f.0).collect();
    let expected = [
        "config.json",
        "model.safetensors",
        "notes.txt",
        "tokenizer.json",
    ];
    assert_eq!(names, expected);
    assert_eq!(fs::read_to_string(other).unwrap(), "mine");
}

#[test]
fn folders_that_lie_in_one_another() {
    let source = Source::new(&tensors());
    let before = files(&source.dir());
    let inside = source.dir().join("new/deeper");
    let above = source.folder.path().to_owned();
    for dir in [source.dir(), source.dir().join("../source"), inside, above] {
        for replace in [Replace::Nothing, Replace::Checkpoint] {
            let error = source.write_to(&dir, options(), replace).unwrap_err();
            assert!(matches!(error, WriteError::Inside { .. }), "{error}");
        }
    }
    assert!(files(&source.dir()) == before);
}

#[cfg(unix)]
#[test]
fn a_source_of_links_into_the_destination() {
    let source = Source::new(&tensors());
    fs::create_dir(source.target()).unwrap();
    let weights = source.target().join("model.safetensors");
    fs::rename(source.dir().join("model.safetensors"), &weights).unwrap();
    std::os::unix::fs::symlink(&weights, source.dir().join("model.safetensors")).unwrap();
    let error = source
        .write_to(&source.target(), options(), Replace::Checkpoint)
        .unwrap_err();
    assert!(error.to_string().contains("holds files of"), "{error}");
    assert!(weights.is_file());
}

#[test]
fn destinations_that_are_files() {
    let source = Source::new(&tensors());
    fs::write(source.target(), "a file").unwrap();
    let error = source.write(options()).unwrap_err();
    assert!(matches!(error, WriteError::NotAFolder { .. }), "{error}");
    let below = source.target().join("below");
    let error = source
        .write_to(&below, options(), Replace::Nothing)
        .unwrap_err();
    assert!(matches!(error, WriteError::Io { .. }), "{error}");
}

#[test]
fn sources_that_are_quantized() {
    let source = Source::new(&tensors());
    source.write(options()).unwrap();
    let checkpoint = Checkpoint::open(&source.target()).unwrap();
    let error = Plan::new(&checkpoint, options()).unwrap_err();
    assert!(
        error.to_string().contains("it has a quantization_config"),
        "{error}"
    );
    // Without its configs the tensors say so.
    for name in ["config.json", "hf_quant_config.json"] {
        fs::remove_file(source.target().join("thinker").join(name)).unwrap();
    }
    let checkpoint = Checkpoint::open(&source.target()).unwrap();
    let error = Plan::new(&checkpoint, options()).unwrap_err();
    assert!(
        error.to_string().contains("is F8_E4M3") || error.to_string().contains("is U8"),
        "{error}"
    );
}

#[test]
fn sources_without_config_or_without_layers() {
    let source = Source::new(&tensors());
    fs::remove_file(source.dir().join("config.json")).unwrap();
    let error = source.write(options()).unwrap_err();
    assert!(matches!(error, WriteError::NoConfig { .. }), "{error}");
    let source = Source::new(&[tensor("thinker.model.norm.weight", &[32])]);
    let error = source.write(options()).unwrap_err();
    assert!(matches!(error, WriteError::Nothing { .. }), "{error}");
    assert!(!source.target().exists());
}

#[test]
fn weights_that_are_not_finite() {
    let mut tensors = tensors();
    let name = "thinker.model.layers.0.self_attn.o_proj.weight";
    let sick = tensors.iter_mut().find(|tensor| tensor.0 == name).unwrap();
    sick.2[7] = f32::NAN;
    let source = Source::new(&tensors);
    let error = source.write(options()).unwrap_err();
    assert!(error.to_string().contains(name), "{error}");
    let hint = error.hint().unwrap();
    assert!(
        hint.contains("--ignore 'model.layers.0.self_attn.o_proj'"),
        "{hint}"
    );
    // The files of components that come first stay, and with another choice it works.
    let ignore = WriteOptions {
        ignore: vec!["model.layers.0.self_attn.o_proj".parse().unwrap()],
        ..options()
    };
    source
        .write_to(&source.target(), ignore, Replace::Checkpoint)
        .unwrap();
}
