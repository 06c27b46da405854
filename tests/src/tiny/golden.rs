//! `golden.json` and `golden.safetensors`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::Value;

use super::{Case, Generator, Part};
use crate::tensors::Tensors;
use crate::{read, repository};

/// The golden values of the tiny model.
#[derive(Debug)]
pub struct Golden {
    /// The conversations by name.
    pub cases: BTreeMap<String, Case>,
    /// Code2wav alone, by name.
    pub waves: BTreeMap<String, WaveCase>,
    /// The tensors as `case/stage/layer`.
    pub tensors: Tensors,
    /// Drawn media to compare with.
    pub media: Vec<MediaCheck>,
    /// Most tokens, and most frames.
    pub limits: [usize; 2],
}

/// A run of code2wav on integer codes.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the README of the golden values says it")]
pub struct WaveCase {
    pub frames: usize,
    pub samples: usize,
    pub mean_abs: f64,
    pub clamped: usize,
    pub rows: BTreeMap<String, Vec<usize>>,
    pub chunked_samples: Option<usize>,
}

/// The first values of a medium, and the sum of value `i` times `i + 1`.
#[derive(Debug, Deserialize)]
pub struct MediaCheck {
    /// What is drawn.
    #[serde(flatten)]
    pub part: Part,
    /// The first values.
    pub first: Vec<i64>,
    /// The sum.
    pub checksum: i64,
}

#[derive(Deserialize)]
struct File {
    checksum: String,
    max_new_tokens: usize,
    max_frames: usize,
    media: Vec<MediaCheck>,
    cases: BTreeMap<String, Value>,
}

/// The golden values, read once.
///
/// # Panics
/// When the files are damaged, or belong to other weights than the manifest's.
#[must_use]
pub fn golden() -> &'static Golden {
    static GOLDEN: LazyLock<Golden> = LazyLock::new(|| {
        let file: File = serde_json::from_str(&read(&repository("tests/golden/tiny/golden.json")))
            .expect("golden.json has this shape");
        assert_eq!(
            file.checksum,
            Generator::load().checksum,
            "golden.json is of other weights"
        );
        let (waves, cases): (BTreeMap<_, _>, BTreeMap<_, _>) = file
            .cases
            .into_iter()
            .partition(|(name, _)| name.starts_with("code2wav-"));
        Golden {
            cases: typed(cases),
            waves: typed(waves),
            tensors: Tensors::load(&repository("tests/golden/tiny/golden.safetensors")),
            media: file.media,
            limits: [file.max_new_tokens, file.max_frames],
        }
    });
    &GOLDEN
}

fn typed<T: serde::de::DeserializeOwned>(cases: BTreeMap<String, Value>) -> BTreeMap<String, T> {
    cases
        .into_iter()
        .map(|(name, value)| {
            let case = serde_json::from_value(value)
                .unwrap_or_else(|error| panic!("golden.json, case {name}: {error}"));
            (name, case)
        })
        .collect()
}
