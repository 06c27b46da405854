//! A checkpoint that nobody trained.

use std::path::PathBuf;

use serde_json::Value;

use crate::Asked;
use crate::checkpoint::Component;

use super::noise::Noise;
use super::part::Part;
use super::plan::{Plan, Source};
use super::{Form, Glob, WriteOptions};

/// A file that lies beside the weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SideFile {
    /// Its name in the folder.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// A checkpoint of random weights in one folder: matrices of the spread that they have before training, norms of ones,
/// biases of zeros.
#[derive(Debug)]
pub struct Drawn {
    tensors: Vec<(Component, Asked)>,
    config: Value,
    files: Vec<SideFile>,
    form: Option<Form>,
    head: bool,
    noise: Noise,
}

impl Drawn {
    /// A checkpoint without tensors: its `config.json` and the files beside it.
    ///
    /// The layers of the thinker are stored in `form`, with `head` its head too, all else in BF16; without `form` everything
    /// is.
    ///
    /// # Panics
    /// When the form is [`Form::ModelOpt`], which has a folder a component.
    #[must_use]
    pub fn new(config: Value, files: Vec<SideFile>, (form, head): (Option<Form>, bool)) -> Self {
        assert!(
            form != Some(Form::ModelOpt),
            "random weights are written to one folder"
        );
        Self {
            tensors: Vec::new(),
            config,
            files,
            form,
            head,
            noise: Noise::new(form),
        }
    }

    /// Adds the tensors of a component.
    pub fn add(&mut self, component: Component, tensors: Vec<Asked>) {
        let tensors = tensors.into_iter().map(|asked| (component, asked));
        self.tensors.extend(tensors);
    }

    /// What is to be written.
    #[must_use]
    pub fn plan(&self) -> Plan<'_> {
        self.plan_in_shards(WriteOptions::SHARD_BYTES)
    }

    pub(super) fn plan_in_shards(&self, shard_bytes: u64) -> Plan<'_> {
        let parts = self.tensors.iter();
        let parts = parts.map(|(component, asked)| Part::drawn(*component, asked, &self.noise));
        let all: Glob = "*".parse().expect("a glob");
        let options = WriteOptions {
            ignore: if self.form.is_none() {
                vec![all]
            } else {
                Vec::new()
            },
            head: self.head,
            shard_bytes,
            ..WriteOptions::new(self.form.unwrap_or(Form::CompressedTensors))
        };
        Plan::of_parts(Source::Drawn(self), parts.collect(), options)
    }

    pub(super) fn config(&self) -> &Value {
        &self.config
    }

    pub(super) fn files(&self) -> impl Iterator<Item = (PathBuf, Vec<u8>)> {
        let files = self.files.iter();
        files.map(|file| (PathBuf::from(&file.name), file.bytes.clone()))
    }
}
