//! A place in a checkpoint's name tree.

use std::fmt::Display;

use burn::tensor::{DType, Tensor, TensorData};

use crate::checkpoint::RawTensor;
use crate::load::{Context, Pass};
use crate::raw::{join, upload, values};
use crate::{Bias, Embedding, Experts, Linear, Weight};

/// A place in a component's name tree, like a working directory: the tree of modules is the tree of names.
///
/// A tensor that is missing or has another shape is noted, and a tensor without content takes its place, so that one
/// pass finds everything that is wrong: see [`crate::load`].
pub struct Weights<'a> {
    context: &'a Context<'a>,
    prefix: String,
}

impl<'a> Weights<'a> {
    pub(crate) fn root(context: &'a Context<'a>) -> Self {
        Self {
            context,
            prefix: String::new(),
        }
    }

    /// The place `part` below this one: a module's name or a number in a list.
    #[must_use]
    pub fn at(&self, part: impl Display) -> Self {
        Self {
            context: self.context,
            prefix: self.name(part) + ".",
        }
    }

    /// A list of `count` modules.
    pub fn list<T>(&self, count: usize, build: impl Fn(&Self) -> T) -> Vec<T> {
        // Behind the last tensor that could be there, one missing module says as much as all.
        let count = count.min(self.context.len() + 1);
        (0..count).map(|i| build(&self.at(i))).collect()
    }

    /// The device that everything is loaded to.
    #[must_use]
    pub fn device(&self) -> &burn::tensor::Device {
        self.context.options.device
    }

    /// Dtype of activations.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.context.options.dtype
    }

    /// A tensor in the dtype of activations: a norm's weight, a bias, a small table.
    #[must_use]
    pub fn tensor<const D: usize>(&self, name: &str, shape: [usize; D]) -> Tensor<D> {
        self.mapped(name, shape, shape, |values| values)
    }

    /// The same, with the values changed on the way: `change` gets them in the stored order and gives those of
    /// `shape`.
    #[must_use]
    pub fn mapped<const S: usize, const D: usize>(
        &self,
        name: &str,
        stored: [usize; S],
        shape: [usize; D],
        change: impl FnOnce(Vec<f32>) -> Vec<f32>,
    ) -> Tensor<D> {
        let dtype = self.context.options.dtype;
        match self.read(name, &stored) {
            Some(tensor) => {
                let data = TensorData::new(change(values(&tensor)), shape);
                Tensor::from_data(data, (self.device(), dtype))
            }
            None => self.empty(shape),
        }
    }

    /// A matrix `[out, in]` with the bias `{name}.bias`, as asked.
    #[must_use]
    pub fn linear(&self, name: &str, [out, width]: [usize; 2], bias: Bias) -> Linear {
        self.fused_linear(&[(name, out)], width, bias)
    }

    /// Several matrices that read the same input, as one: their outputs follow one another.
    #[must_use]
    pub fn fused_linear(&self, parts: &[(&str, usize)], width: usize, bias: Bias) -> Linear {
        let out = parts.iter().map(|(_, out)| out).sum();
        let names: Vec<_> = parts
            .iter()
            .map(|(name, out)| (format!("{name}.weight"), [*out, width]))
            .collect();
        let weight = Weight::Dense(self.stored(&names, [out, width]));
        let bias = (bias == Bias::Yes).then(|| {
            let names: Vec<_> = parts
                .iter()
                .map(|(name, out)| (format!("{name}.bias"), [*out]))
                .collect();
            self.stored(&names, [out]).cast(self.context.options.dtype)
        });
        Linear::new(weight, bias)
    }

    /// A convolution kernel stored as `stored`, as the matrix `[out, in]` that `change` makes of it, with its bias.
    #[must_use]
    pub fn kernel<const S: usize>(
        &self,
        stored: [usize; S],
        shape: [usize; 2],
        change: impl FnOnce(Vec<f32>) -> Vec<f32>,
    ) -> Linear {
        Linear::new(
            Weight::Dense(self.mapped("weight", stored, shape, change)),
            Some(self.tensor("bias", [shape[0]])),
        )
    }

    /// A table `[rows, width]`.
    #[must_use]
    pub fn embedding(&self, name: &str, [rows, width]: [usize; 2]) -> Embedding {
        let table = self.stored(&[(format!("{name}.weight"), [rows, width])], [rows, width]);
        Embedding::new(table, self.context.options.dtype)
    }

    /// The experts below this place, stored one by one or as `gate_up_proj` and `down_proj` of all.
    ///
    /// # Shapes
    /// - one by one: `{e}.gate_proj`, `{e}.up_proj` `[intermediate, hidden]`, `{e}.down_proj` `[hidden, intermediate]`
    /// - of all: `[experts, 2 * intermediate, hidden]`, gate rows first, and `[experts, hidden, intermediate]`
    #[must_use]
    pub fn experts(&self, experts: usize, hidden: usize, intermediate: usize) -> Experts {
        let (up, down) = (
            [experts, 2 * intermediate, hidden],
            [experts, hidden, intermediate],
        );
        if self.context.contains(&self.name("gate_up_proj")) {
            let all = |name: &str, shape| self.stored(&[(name.to_owned(), shape)], shape);
            return Experts::dense(all("gate_up_proj", up), all("down_proj", down));
        }
        let listed = experts.min(self.context.len() + 1);
        let gate_ups: Vec<_> = (0..listed)
            .flat_map(|e| {
                ["gate", "up"]
                    .map(|name| (format!("{e}.{name}_proj.weight"), [intermediate, hidden]))
            })
            .collect();
        let downs: Vec<_> = (0..listed)
            .map(|e| (format!("{e}.down_proj.weight"), [hidden, intermediate]))
            .collect();
        Experts::dense(self.stored(&gate_ups, up), self.stored(&downs, down))
    }

    /// Parts that follow one another in memory, as one tensor in the dtype they are stored in.
    fn stored<const S: usize, const D: usize>(
        &self,
        parts: &[(String, [usize; S])],
        shape: [usize; D],
    ) -> Tensor<D> {
        let parts: Option<Vec<_>> = parts
            .iter()
            .map(|(name, shape)| self.read(name, shape))
            .collect::<Vec<_>>() // every part is asked for, also behind a missing one
            .into_iter()
            .collect();
        match parts {
            Some(parts) => upload(
                join(&parts, &shape),
                self.device(),
                self.context.options.dtype,
            ),
            None => self.empty(shape),
        }
    }

    /// The tensor below this place, or `None` while names are checked or when there is none.
    fn read(&self, name: &str, shape: &[usize]) -> Option<RawTensor<'a>> {
        let tensor = self.context.take(&self.name(name), shape)?;
        if self.context.pass == Pass::Check {
            return None;
        }
        (self.context.options.progress)(tensor.bytes.len() as u64);
        Some(tensor)
    }

    /// A tensor without content: one number seen everywhere.
    fn empty<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        Tensor::<D>::zeros([1; D], (self.device(), self.context.options.dtype)).expand(shape)
    }

    fn name(&self, part: impl Display) -> String {
        format!("{}{part}", self.prefix)
    }
}
