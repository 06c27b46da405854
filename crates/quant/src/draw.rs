//! Components without a checkpoint: random weights, made on the device in the form in which they would be stored.

use burn::tensor::{DType, Tensor};
use burn_omni_ops::{self as ops, Packed};

use crate::checkpoint::Component;
use crate::formats::Layout;
use crate::load::{Context, Pass};
use crate::{Experts, LoadOptions, Weight, Weights};

/// Builds a component from random weights instead of stored ones: matrices and tables in bf16 and, where `quantize` says
/// so, in 4 bits; norms of ones, biases of zeros. The same device makes the same component every time, and every device the
/// same weights.
///
/// They are made on the device, one tensor after another, so that nothing passes the host.
pub fn draw<T>(
    component: Component,
    options: LoadOptions<'_>,
    build: impl Fn(&Weights<'_>) -> T,
) -> T {
    let context = Context::new((component, None), options, Pass::Draw);
    build(&Weights::root(&context))
}

/// What a vector that nobody trained holds: a norm's weight and a scale are factors; biases and logarithms of factors are
/// not.
pub(crate) fn vector_value(name: &str) -> f32 {
    match name.rsplit('.').next() {
        Some("weight" | "scale" | "gamma") => 1.0,
        _ => 0.0,
    }
}

impl Weights<'_> {
    /// Whether there is no checkpoint.
    pub(crate) fn draws(&self) -> bool {
        self.context.pass == Pass::Draw
    }

    /// A random tensor in the dtype of stored weights.
    pub(crate) fn drawn<const D: usize>(&self, name: &str, shape: [usize; D]) -> Tensor<D> {
        let stored = self.device().supports_dtype(DType::BF16);
        let dtype = if stored { DType::BF16 } else { self.dtype() };
        self.drawn_as(name, shape, dtype)
    }

    /// What [`Weights::mapped`] gives: a random kernel, or a vector of the numbers that leave things as they are.
    pub(crate) fn drawn_values<const S: usize, const D: usize>(
        &self,
        name: &str,
        stored: [usize; S],
        shape: [usize; D],
        change: impl FnOnce(Vec<f32>) -> Vec<f32>,
    ) -> Tensor<D> {
        if S > 1 {
            // Another order of random numbers is as random.
            return self.drawn_as(name, shape, self.dtype());
        }
        let values = change(vec![vector_value(name); stored.iter().product()]);
        let data = burn::tensor::TensorData::new(values, shape);
        self.count(data.as_bytes().len());
        Tensor::from_data(data, (self.device(), self.dtype()))
    }

    /// A random matrix for the parts that are read as one.
    pub(crate) fn drawn_matrix(&self, parts: &[&str], shape: [usize; 2]) -> Weight {
        match self.packed_of(parts, Layout::matrix(shape)) {
            Some(packed) => Weight::Packed(packed),
            None => Weight::Dense(self.drawn(parts[0], shape)),
        }
    }

    /// Random experts.
    pub(crate) fn drawn_experts(&self, gate_up: Layout, down: Layout) -> Experts {
        let names = ["gate_up_proj", "down_proj"];
        let packed = [(names[0], gate_up), (names[1], down)]
            .map(|(name, layout)| self.packed_of(&[name], layout));
        if let [Some(gate_up), Some(down)] = packed {
            return Experts::packed(gate_up, down);
        }
        let dense =
            |name, layout: Layout| self.drawn(name, [layout.matrices, layout.rows, layout.width]);
        Experts::dense(dense(names[0], gate_up), dense(names[1], down))
    }

    /// The parts in 4 bits, when they are stored so.
    fn packed_of(&self, parts: &[&str], layout: Layout) -> Option<Packed> {
        let options = self.context.options;
        let quantize = options.quantize?;
        let component = self.context.component();
        let mut parts_covered = parts
            .iter()
            .map(|part| quantize.covers(component, &self.name(part)));
        parts_covered.all(|covered| covered).then_some(())?;
        let spec = layout.spec(quantize.format);
        let packed = Packed::drawn(spec, self.device(), self.seed(parts[0]));
        self.count(packed.bytes());
        Some(packed.with_w4a4(options.w4a4))
    }

    fn drawn_as<const D: usize>(&self, name: &str, shape: [usize; D], dtype: DType) -> Tensor<D> {
        self.count(shape.iter().product::<usize>() * dtype.size());
        ops::drawn(shape, (self.device(), dtype), self.seed(name))
    }

    fn count(&self, bytes: usize) {
        (self.context.options.progress)(bytes as u64);
    }

    /// A number for every name (FNV-1a).
    fn seed(&self, name: &str) -> u32 {
        let name = self.name(name);
        let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        name.bytes().fold(0x811C_9DC5, step)
    }
}
