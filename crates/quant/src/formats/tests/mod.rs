//! Every stored form against what the package that wrote it makes of it, every fault, and any bytes at all.

mod bad;
mod golden;
mod joined;
mod properties;

use std::fs;
use std::path::Path;

use burn::tensor::{DType, Device};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use tempfile::TempDir;

use crate::checkpoint::{Checkpoint, Component, TensorSet};
use crate::{LoadError, LoadOptions, Warnings, Weights};

use super::{Matrix, Module, Stored};

/// Tensors that a test makes up or takes from a golden file.
#[derive(Clone, Debug, Default)]
pub(super) struct Tensors(Vec<Tensor>);

#[derive(Clone, Debug)]
struct Tensor {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Tensors {
    /// Tensors of a golden file whose names begin with `front`, which `name` takes the place of.
    fn golden(file: &str, front: &str, name: &str) -> Self {
        Self::default().and_golden(file, front, name)
    }

    fn and_golden(mut self, file: &str, front: &str, name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/quant");
        let bytes = fs::read(path.join(file).with_extension("safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        for (full, tensor) in tensors.iter() {
            let Some(end) = full.strip_prefix(front) else {
                continue;
            };
            self = self.with(
                &format!("{name}{end}"),
                tensor.dtype(),
                tensor.shape(),
                tensor.data().to_vec(),
            );
        }
        self
    }

    /// With another tensor, in the place of one of the same name.
    fn with(mut self, name: &str, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) -> Self {
        self.0.retain(|tensor| tensor.name != name);
        self.0.push(Tensor {
            name: name.into(),
            dtype,
            shape: shape.into(),
            bytes,
        });
        self
    }

    fn f32s(self, name: &str, shape: &[usize], values: &[f32]) -> Self {
        let bytes = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.with(name, Dtype::F32, shape, bytes)
    }

    fn without(mut self, name: &str) -> Self {
        let before = self.0.len();
        self.0.retain(|tensor| tensor.name != name);
        assert!(self.0.len() < before, "there is no {name}");
        self
    }

    /// With the bytes of one tensor changed.
    fn changed(mut self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let tensor = self.0.iter_mut().find(|tensor| tensor.name == name);
        change(&mut tensor.unwrap().bytes);
        self
    }

    /// With the shape of one tensor changed.
    fn shaped(mut self, name: &str, shape: &[usize]) -> Self {
        let tensor = self.0.iter_mut().find(|tensor| tensor.name == name);
        tensor.unwrap().shape = shape.into();
        self
    }

    fn get(&self, name: &str) -> &Tensor {
        self.0
            .iter()
            .find(|tensor| tensor.name == name)
            .unwrap_or_else(|| panic!("no {name}"))
    }

    /// The tensors as those of a thinker.
    fn open(&self) -> Open {
        let dir = TempDir::new().unwrap();
        let views = self.0.iter().map(|tensor| {
            let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes).unwrap();
            (format!("thinker.{}", tensor.name), view)
        });
        let file = safetensors::serialize(views, None).unwrap();
        fs::write(dir.path().join("model.safetensors"), file).unwrap();
        Open {
            checkpoint: Checkpoint::open(dir.path()).unwrap(),
            warnings: Warnings::new(),
            dir,
        }
    }
}

impl Tensor {
    fn f32s(&self) -> Vec<f32> {
        let halves = || self.bytes.as_chunks::<2>().0.iter();
        match self.dtype {
            Dtype::F32 => self
                .bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b))
                .collect(),
            Dtype::BF16 => halves()
                .map(|b| half::bf16::from_le_bytes(*b).to_f32())
                .collect(),
            Dtype::F16 => halves()
                .map(|b| half::f16::from_le_bytes(*b).to_f32())
                .collect(),
            other => panic!("{other:?}"),
        }
    }
}

/// A checkpoint that a test wrote, and what was said about it.
struct Open {
    checkpoint: Checkpoint,
    warnings: Warnings,
    dir: TempDir,
}

impl Open {
    fn set(&self) -> &TensorSet {
        self.checkpoint.component(Component::Thinker).unwrap()
    }

    fn find(&self, name: &str, [rows, width]: [usize; 2]) -> Stored<'_> {
        let module = Module::new(self.set(), name, &[rows], width);
        Stored::find(module, &self.warnings).unwrap()
    }

    fn read(&self, name: &str, shape: [usize; 2]) -> Matrix {
        self.find(name, shape).read(&self.warnings).unwrap()
    }

    fn values(&self, name: &str, shape: [usize; 2]) -> Vec<f32> {
        self.read(name, shape).values()
    }

    /// Loads with both passes.
    fn load<T>(&self, build: impl Fn(&Weights<'_>) -> T) -> Result<T, LoadError> {
        let device = Device::flex();
        crate::load(
            self.set(),
            LoadOptions::new(&device, DType::F32, &self.warnings),
            build,
        )
    }

    /// The error of loading one matrix, without the name of the folder.
    fn error(&self, shape: [usize; 2]) -> String {
        let build = |weights: &Weights<'_>| weights.linear("m", shape, crate::Bias::No);
        let error = self.load(build).expect_err("a bad checkpoint").to_string();
        assert!(!error.contains('\n'), "{error}");
        error
            .replace(
                &format!("{}/model.safetensors: ", self.dir.path().display()),
                "",
            )
            .replace(&format!("{}: ", self.dir.path().display()), "")
    }

    fn said(&self) -> Vec<String> {
        self.warnings.lines()
    }
}
