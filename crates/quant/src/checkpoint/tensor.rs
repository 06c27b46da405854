//! The tensors of one component.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::ops::{Bound, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::Dtype;

use super::file::TensorFile;
use super::header::Entry;
use super::{CheckpointError, Component};

/// One tensor as stored, borrowed from the memory map.
#[derive(Clone, Copy, Debug)]
pub struct RawTensor<'a> {
    /// Full name, as on disk.
    pub name: &'a str,
    /// The file that holds it.
    pub file: &'a Path,
    /// Element type on disk.
    pub dtype: Dtype,
    /// Row-major shape in elements of `dtype`; a packed format has fewer of them than the matrix
    /// has values.
    pub shape: &'a [usize],
    /// The little-endian elements; no alignment is promised.
    pub bytes: &'a [u8],
}

impl<'a> RawTensor<'a> {
    /// Number of elements of `dtype`.
    #[must_use]
    pub fn elements(&self) -> usize {
        // Cannot overflow: the header check has multiplied the same sizes.
        self.shape.iter().product()
    }

    /// The tensor itself when it has this shape.
    ///
    /// # Errors
    /// [`CheckpointError::ShapeMismatch`] otherwise.
    pub fn expect_shape(self, expected: &[usize]) -> Result<RawTensor<'a>, CheckpointError> {
        if self.shape == expected {
            return Ok(self);
        }
        Err(CheckpointError::ShapeMismatch {
            file: self.file.into(),
            tensor: self.name.into(),
            expected: expected.into(),
            found: self.shape.into(),
        })
    }
}

/// The tensors of one component under their local names, without `thinker.`, `talker.` or
/// `code2wav.`.
///
/// Names of the code predictor always have their inner `model.`, even where a derived checkpoint
/// dropped it.
#[derive(Debug)]
pub struct TensorSet {
    component: Component,
    dir: PathBuf,
    files: Arc<[TensorFile]>,
    tensors: BTreeMap<String, Slot>,
    bytes: u64,
}

/// Where a tensor lies.
#[derive(Debug)]
struct Slot {
    file: usize,
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

impl TensorSet {
    pub(super) fn new(component: Component, dir: &Path, files: Arc<[TensorFile]>) -> Self {
        Self {
            component,
            dir: dir.into(),
            files,
            tensors: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Adds the tensor `entry` of file number `file` under a local name.
    pub(super) fn insert(
        &mut self,
        local: &str,
        file: usize,
        entry: Entry,
    ) -> Result<(), CheckpointError> {
        let Entry {
            name,
            dtype,
            shape,
            bytes,
        } = entry;
        match self.tensors.entry(normalise(self.component, local)) {
            btree_map::Entry::Vacant(vacant) => {
                self.bytes += bytes.len() as u64;
                vacant.insert(Slot {
                    file,
                    name,
                    dtype,
                    shape,
                    bytes,
                });
                Ok(())
            }
            btree_map::Entry::Occupied(first) => Err(CheckpointError::DuplicateTensor {
                file: self.files[file].path().into(),
                first: self.files[first.get().file].path().into(),
                tensor: name,
            }),
        }
    }

    /// The weight files of the whole checkpoint.
    pub(super) fn files(&self) -> &[TensorFile] {
        &self.files
    }

    /// The folder of the checkpoint.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The component that owns these tensors.
    #[must_use]
    pub fn component(&self) -> Component {
        self.component
    }

    /// Number of tensors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is no tensor; never so for a set taken from a checkpoint.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Bytes of all tensors, as stored.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The local names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Every local name with its tensor, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, RawTensor<'_>)> {
        self.tensors
            .iter()
            .map(|(local, slot)| (local.as_str(), self.view(slot)))
    }

    /// Whether a local name exists.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The tensor of a local name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<RawTensor<'_>> {
        self.tensors.get(name).map(|slot| self.view(slot))
    }

    /// The tensor of a local name that must exist.
    ///
    /// # Errors
    /// [`CheckpointError::MissingTensor`], with the closest name there is.
    pub fn require(&self, name: &str) -> Result<RawTensor<'_>, CheckpointError> {
        self.get(name)
            .ok_or_else(|| CheckpointError::MissingTensor {
                dir: self.dir.clone(),
                component: self.component,
                tensor: name.into(),
                nearest: self.nearest(name).map(Into::into),
            })
    }

    fn view<'a>(&'a self, slot: &'a Slot) -> RawTensor<'a> {
        let file = &self.files[slot.file];
        RawTensor {
            name: &slot.name,
            file: file.path(),
            dtype: slot.dtype,
            shape: &slot.shape,
            bytes: &file.content()[slot.bytes.clone()],
        }
    }

    /// The existing name that shares the longest beginning: one of the two neighbours in sorted
    /// order.
    fn nearest(&self, name: &str) -> Option<&str> {
        let before = self
            .tensors
            .range::<str, _>((Bound::Unbounded, Bound::Excluded(name)));
        let after = self
            .tensors
            .range::<str, _>((Bound::Excluded(name), Bound::Unbounded));
        let neighbours = [
            before.map(|(name, _)| name).next_back(),
            after.map(|(name, _)| name).next(),
        ];
        let shared = |other: &&String| {
            name.bytes()
                .zip(other.bytes())
                .take_while(|(a, b)| a == b)
                .count()
        };
        neighbours
            .into_iter()
            .flatten()
            .max_by_key(shared)
            .map(String::as_str)
    }
}

/// The name that the release gives a tensor, from names that tools changed at the front: the code predictor's inner
/// `model.` comes back, the thinker's text model loses a `language_model`, and its towers a `model.`.
fn normalise(component: Component, local: &str) -> String {
    const INNER: [&str; 3] = ["layers.", "codec_embedding.", "norm."];
    const THINKER: [(&str, &str); 6] = [
        ("model.language_model.lm_head.", "lm_head."),
        ("model.language_model.", "model."),
        ("language_model.lm_head.", "lm_head."),
        ("language_model.model.", "model."),
        ("model.visual.", "visual."),
        ("model.audio_tower.", "audio_tower."),
    ];
    let front =
        |(from, to): &(&str, &str)| local.strip_prefix(from).map(|rest| format!("{to}{rest}"));
    let changed = match component {
        Component::Thinker => THINKER.iter().find_map(front),
        Component::Talker => local
            .strip_prefix("code_predictor.")
            .filter(|rest| INNER.iter().any(|inner| rest.starts_with(inner)))
            .map(|rest| format!("code_predictor.model.{rest}")),
        Component::Code2Wav => None,
    };
    changed.unwrap_or_else(|| local.into())
}
