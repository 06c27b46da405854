//! A place in a checkpoint's name tree.

use std::cell::Cell;
use std::fmt::Display;

use burn::tensor::{DType, Tensor, TensorData};
use burn_omni_ops::decode::multiplies_bf16;
use burn_omni_ops::{Packed, filling};

use crate::checkpoint::RawTensor;
use crate::formats::{AtLoad, Joined, JoinedPacked, JoinedWeight, Layout, Stored, join};
use crate::load::{Context, Pass};
use crate::raw::{Dense, side_by_side, upload, values};
use crate::warnings::Kind;
use crate::{Bias, Embedding, Linear, LoadOptions, Weight};

/// A place in a component's name tree, like a working directory: the tree of modules is the tree of names.
///
/// A tensor that is missing or has another shape is noted, and a tensor without content takes its place, so that one
/// pass finds everything that is wrong: see [`crate::load`].
pub struct Weights<'a> {
    pub(crate) context: &'a Context<'a>,
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
        (0..self.context.end(count))
            .map(|i| build(&self.at(i)))
            .collect()
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
        if self.draws() {
            return self.drawn_values(name, stored, shape, change);
        }
        let dtype = self.context.options.dtype;
        match self.values(name, &stored) {
            Some(values) => {
                let data = TensorData::new(change(values), shape);
                self.context.send(data.as_bytes().len());
                side_by_side(data, (self.device(), dtype))
            }
            None => self.empty(shape),
        }
    }

    /// The values of a tensor, also of a weight that is quantized.
    fn values(&self, name: &str, stored: &[usize]) -> Option<Vec<f32>> {
        let full = self.name(name);
        if let Some(module) = full.strip_suffix(".weight")
            && let [rows, inner @ ..] = stored
            && self.context.is_quantized(module)
        {
            let name = name.strip_suffix("weight")?.trim_end_matches('.');
            return self.unpacked(name, [*rows, inner.iter().product()]);
        }
        self.read(name, stored).map(|tensor| values(&tensor))
    }

    /// The values of a quantized matrix that is used as something else.
    fn unpacked(&self, name: &str, [rows, width]: [usize; 2]) -> Option<Vec<f32>> {
        let stored = self.find_all([(name, vec![rows])].into_iter(), width)?;
        let [stored] = stored.as_slice() else {
            return None;
        };
        if self.context.pass == Pass::Check {
            return None;
        }
        let warnings = self.context.options.warnings;
        warnings.note(Kind::DenseUse, stored.module.name(), 1);
        (self.context.options.progress)(stored.module.bytes());
        match stored.read(warnings) {
            Ok(matrix) => Some(matrix.values()),
            Err(error) => {
                self.context.fail(error);
                None
            }
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
        if self.draws() {
            let names: Vec<_> = parts.iter().map(|(name, _)| *name).collect();
            let bias = (bias == Bias::Yes).then(|| self.tensor("bias", [out]));
            return Linear::new(self.drawn_matrix(&names, [out, width]), bias);
        }
        let stored = self.find_all(parts.iter().map(|(name, out)| (*name, vec![*out])), width);
        let layout = Layout::matrix([out, width]);
        let read = stored.as_ref().and_then(|stored| self.join(stored, layout));
        let bias = (bias == Bias::Yes).then(|| {
            let names: Vec<_> = parts
                .iter()
                .map(|(name, out)| (format!("{name}.bias"), [*out]))
                .collect();
            self.stored(&names, [out]).cast(self.context.options.dtype)
        });
        let Some(Joined { weight, factor }) = read else {
            return Linear::new(Weight::Dense(self.empty([out, width])), bias);
        };
        let weight = match weight {
            JoinedWeight::Packed(packed) => Weight::Packed(self.packed(packed)),
            JoinedWeight::Dense(dense) => Weight::Dense(self.upload(dense)),
        };
        Linear::new(weight, bias).with_factor(self.factor(factor))
    }

    /// [`Weights::mapped`] for a matrix that is multiplied with: in bf16 where that loses nothing and the device gains by it.
    #[must_use]
    pub fn mapped_matrix<const S: usize>(
        &self,
        name: &str,
        stored: [usize; S],
        shape: [usize; 2],
        change: impl FnOnce(Vec<f32>) -> Vec<f32>,
    ) -> Tensor<2> {
        let exact = Cell::new(self.draws());
        let matrix = self.mapped(name, stored, shape, |values| {
            exact.set(values.iter().all(|value| value.to_bits() << 16 == 0));
            change(values)
        });
        if exact.get() && multiplies_bf16(self.device()) {
            // As one row, for the reason of `side_by_side`.
            let numbers = matrix.reshape([shape[0] * shape[1]]);
            numbers.cast(DType::BF16).reshape(shape)
        } else {
            matrix
        }
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
            Weight::Dense(self.mapped_matrix("weight", stored, shape, change)),
            Some(self.tensor("bias", [shape[0]])),
        )
    }

    /// A table `[rows, width]`.
    #[must_use]
    pub fn embedding(&self, name: &str, [rows, width]: [usize; 2]) -> Embedding {
        let dtype = self.context.options.dtype;
        if self.draws() {
            return Embedding::new(self.drawn(name, [rows, width]), dtype);
        }
        if self.context.is_quantized(&self.name(name)) {
            let table = match self.unpacked(name, [rows, width]) {
                Some(values) => self.upload(TensorData::new(values, [rows, width]).into()),
                None => self.empty([rows, width]),
            };
            return Embedding::new(table, dtype);
        }
        let table = self.stored(&[(format!("{name}.weight"), [rows, width])], [rows, width]);
        Embedding::new(table, dtype)
    }

    /// The matrices `(name, leading axes)` of this width as they are stored, or `None` when one of them cannot be used.
    pub(crate) fn find_all<N: Display>(
        &self,
        parts: impl Iterator<Item = (N, Vec<usize>)>,
        width: usize,
    ) -> Option<Vec<Stored<'a>>> {
        // Every part is asked for, also behind a missing one.
        let found: Vec<_> = parts
            .map(|(name, lead)| {
                let module = self.name(name);
                self.context
                    .find(module.trim_end_matches('.'), &lead, width)
            })
            .collect();
        let found: Vec<_> = found.into_iter().collect::<Option<_>>()?;
        self.context.compare(&found);
        Some(found)
    }

    /// Matrices as one; `None` while names are checked.
    pub(crate) fn join<'p>(&self, parts: &'p [Stored<'_>], layout: Layout) -> Option<Joined<'p>> {
        if self.context.pass == Pass::Check {
            return None;
        }
        let LoadOptions {
            quantize,
            warnings,
            progress,
            ..
        } = self.context.options;
        progress(parts.iter().map(|part| part.module.bytes()).sum());
        let component = self.context.component();
        let all = |quantize: &AtLoad| {
            let mut names = parts.iter().map(|part| part.module.name());
            names.all(|name| quantize.covers(component, name))
        };
        let format = quantize.filter(all).map(|quantize| quantize.format);
        match join(parts, layout, format, warnings) {
            Ok(joined) => Some(joined),
            Err(error) => {
                self.context.fail(error);
                None
            }
        }
    }

    /// Values on the device, in the dtype they have where it has that.
    pub(crate) fn upload<const D: usize>(&self, dense: Dense<'_>) -> Tensor<D> {
        let place = (self.device(), self.context.options.dtype);
        let tensor = upload::<D>(dense, place, |bytes| self.context.send(bytes));
        let count = tensor.shape().num_elements();
        let checked = filling::check(&tensor.clone().reshape([count]));
        self.context.hear(checked);
        tensor
    }

    /// A packed matrix on the device.
    pub(crate) fn packed(&self, packed: JoinedPacked<'_>) -> Packed {
        let LoadOptions { w4a4, warnings, .. } = self.context.options;
        let packed = match packed {
            JoinedPacked::Stored(rows) => rows.upload(self.device(), warnings),
            JoinedPacked::Read(bytes) => {
                self.context.send(bytes.codes.len() + bytes.scales.len());
                Packed::upload(bytes, self.device())
            }
        };
        self.context.hear(filling::check_packed(&packed));
        packed.with_w4a4(w4a4)
    }

    /// A factor on activations.
    pub(crate) fn factor(&self, factor: Option<Vec<f32>>) -> Option<Tensor<1>> {
        let factor = factor?;
        let width = factor.len();
        let place = (self.device(), self.context.options.dtype);
        Some(Tensor::from_data(TensorData::new(factor, [width]), place))
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
            Some(parts) => self.upload(Dense::join(parts, &shape)),
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

    /// A tensor without content: one number seen everywhere, which nobody wrote.
    pub(crate) fn empty<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        Tensor::<D>::empty([1; D], (self.device(), self.context.options.dtype)).expand(shape)
    }

    pub(crate) fn name(&self, part: impl Display) -> String {
        format!("{}{part}", self.prefix)
    }
}
