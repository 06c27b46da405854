//! The trained demo model and what the reference says with it.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "what tests share is a part of them"
)]
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_omni_model::code2wav::Code2Wav;
use burn_omni_model::config::Config;
use burn_omni_model::processor::media::read_audio;
use burn_omni_model::talker::Talker;
use burn_omni_quant::checkpoint::{Checkpoint, Component};
use burn_omni_quant::{LoadOptions, Warnings, Weights, load};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

/// The checkpoint with its config.
pub(crate) struct Demo {
    pub(crate) config: Config,
    checkpoint: Checkpoint,
}

/// A case of `golden.jsonl`.
#[derive(Deserialize)]
pub(crate) struct Case {
    pub(crate) id: String,
    pub(crate) prompt_ids: Vec<u32>,
    pub(crate) output_ids: Vec<u32>,
    pub(crate) speaker: Option<String>,
    pub(crate) talker_repetition_penalty: Option<f32>,
    /// `[num_code_groups][frames]`
    pub(crate) codes: Option<Vec<Vec<u32>>>,
    pub(crate) wav: Option<String>,
    pub(crate) taps: Option<String>,
}

pub(crate) fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
}

/// The cases that are spoken.
pub(crate) fn spoken() -> Vec<Case> {
    let text = std::fs::read_to_string(repository("tests/eval/golden/golden.jsonl")).unwrap();
    let cases = text.lines().map(|line| serde_json::from_str(line).unwrap());
    cases.filter(|case: &Case| case.codes.is_some()).collect()
}

impl Case {
    /// One list of codes a frame.
    pub(crate) fn frames(&self) -> Vec<Vec<u32>> {
        let groups = self.codes.as_ref().unwrap();
        (0..groups[0].len())
            .map(|frame| groups.iter().map(|codes| codes[frame]).collect())
            .collect()
    }

    /// The samples of the golden wave.
    pub(crate) fn wave(&self) -> Vec<f32> {
        let file = repository("tests/eval/golden").join(self.wav.as_ref().unwrap());
        let pcm = read_audio(&file).unwrap();
        let samples = pcm.samples.into_iter();
        samples.map(|sample| sample * (32768.0 / 32767.0)).collect()
    }

    /// The reference's intermediate tensors, where they are kept.
    pub(crate) fn taps(&self) -> Option<Golden> {
        let file = repository("tests/eval/golden").join(self.taps.as_ref()?);
        Some(Golden::open(&file))
    }
}

impl Demo {
    pub(crate) fn open() -> Self {
        let checkpoint = Checkpoint::open(&repository("assets/omni-demo")).unwrap();
        let config = Config::from_checkpoint(&checkpoint).unwrap();
        Self { config, checkpoint }
    }

    pub(crate) fn talker(&self) -> Talker {
        let config = self.config.talker.as_ref().unwrap();
        self.load(Component::Talker, |weights| Talker::load(weights, config))
    }

    pub(crate) fn code2wav(&self) -> Code2Wav {
        let config = self.config.code2wav.as_ref().unwrap();
        self.load(Component::Code2Wav, |weights| {
            Code2Wav::load(weights, config)
        })
    }

    /// The thinker's table of input embeddings.
    pub(crate) fn embed(&self, ids: &[u32]) -> Tensor<2> {
        let set = self.checkpoint.component(Component::Thinker).unwrap();
        let table = set.require("model.embed_tokens.weight").unwrap();
        let table = table.to_f32().unwrap();
        let width = self.config.thinker.text_config.hidden_size;
        let row = |id: &u32| &table[*id as usize * width..][..width];
        let rows: Vec<f32> = ids.iter().flat_map(row).copied().collect();
        Tensor::from_data(TensorData::new(rows, [ids.len(), width]), &Device::flex())
    }

    fn load<T>(&self, component: Component, build: impl Fn(&Weights<'_>) -> T) -> T {
        let (device, warnings) = (Device::flex(), Warnings::new());
        let options = LoadOptions::new(&device, DType::F32, &warnings);
        let tensors = self.checkpoint.component(component).unwrap();
        load(tensors, options, build).unwrap()
    }
}

/// Tensors of a golden file.
pub(crate) struct Golden(BTreeMap<String, (Vec<usize>, Vec<f32>)>);

impl Golden {
    pub(crate) fn open(file: &std::path::Path) -> Self {
        let bytes = std::fs::read(file).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let number = |chunk: &[u8; 4], dtype| match dtype {
            Dtype::I32 => i32::from_le_bytes(*chunk) as f32,
            _ => f32::from_le_bytes(*chunk),
        };
        let read = |(name, view): (&str, TensorView<'_>)| {
            // Of 64-bit integers the low halves say all.
            let step = if view.dtype() == Dtype::I64 { 2 } else { 1 };
            let dtype = if step == 2 { Dtype::I32 } else { view.dtype() };
            let (chunks, _) = view.data().as_chunks::<4>();
            let values = chunks
                .iter()
                .step_by(step)
                .map(|chunk| number(chunk, dtype));
            (name.to_owned(), (view.shape().to_vec(), values.collect()))
        };
        Self(tensors.iter().map(read).collect())
    }

    pub(crate) fn values(&self, name: &str) -> &[f32] {
        &self.0.get(name).unwrap_or_else(|| panic!("{name}")).1
    }

    pub(crate) fn tensor(&self, name: &str) -> Tensor<2> {
        let (shape, values) = &self.0[name];
        let data = TensorData::new(values.clone(), shape.clone());
        Tensor::from_data(data, &Device::flex())
    }

    pub(crate) fn integers(&self, name: &str) -> Vec<usize> {
        self.values(name).iter().map(|x| *x as usize).collect()
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

pub(crate) fn values(x: Tensor<2>) -> Vec<f32> {
    x.into_data().try_to_vec().unwrap()
}

/// Compares within `tolerance` of the largest expected magnitude, and says how far apart they are.
#[track_caller]
pub(crate) fn assert_close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}: number of values");
    let scale = expected.iter().fold(1e-6_f32, |m, x| m.max(x.abs()));
    let error = |(a, b): (&f32, &f32)| (a - b).abs() / scale;
    let (at, largest) =
        found
            .iter()
            .zip(expected)
            .map(error)
            .enumerate()
            .fold((0, 0.0), |worst, (i, x)| {
                if x > worst.1 || x.is_nan() {
                    (i, x)
                } else {
                    worst
                }
            });
    assert!(
        largest <= tolerance,
        "{what}: value {at} is {}, expected {}: {largest:.1e} of the largest magnitude {scale}",
        found[at],
        expected[at]
    );
    println!("{what}: {largest:.1e}");
}
