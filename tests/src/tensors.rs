//! Golden tensors in memory.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

/// A golden tensor; integers are kept as numbers, which they are small enough for.
#[derive(Clone, Debug, PartialEq)]
pub struct Values {
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// The values in row-major order.
    pub data: Vec<f32>,
}

impl Values {
    /// Rows and width, where a vector is one row.
    #[must_use]
    pub fn rows(&self) -> [usize; 2] {
        match *self.shape {
            [width] => [1, width],
            [rows, width] => [rows, width],
            _ => panic!("a golden tensor has one or two axes, not {:?}", self.shape),
        }
    }

    /// The values as integers.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "they were non-negative integers"
    )]
    pub fn integers(&self) -> Vec<u32> {
        self.data.iter().map(|x| *x as u32).collect()
    }
}

/// The tensors of a file.
#[derive(Clone, Debug, Default)]
pub struct Tensors(BTreeMap<String, Values>);

impl Tensors {
    /// Reads a safetensors file.
    ///
    /// # Panics
    /// When it is damaged or holds a dtype that no golden value has.
    #[must_use]
    pub fn load(path: &Path) -> Self {
        let bytes =
            std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = SafeTensors::deserialize(&bytes).expect("the golden file is whole");
        let tensors = file.iter().map(|(name, view)| {
            let data = match view.dtype() {
                Dtype::F32 => numbers(view.data(), f32::from_le_bytes),
                Dtype::BF16 => numbers(view.data(), |x| {
                    f32::from_bits(u32::from(u16::from_le_bytes(x)) << 16)
                }),
                Dtype::I32 => numbers(view.data(), |x| i32::from_le_bytes(x) as f32),
                Dtype::I64 => numbers(view.data(), |x| i64::from_le_bytes(x) as f32),
                Dtype::U8 => view.data().iter().map(|x| f32::from(*x)).collect(),
                other => panic!("{name}: {other:?}"),
            };
            let shape = view.shape().to_vec();
            (name.to_owned(), Values { shape, data })
        });
        Self(tensors.collect())
    }

    /// The same tensors as `case/name`.
    #[must_use]
    pub fn below_case(self, case: &str) -> Self {
        let named = |(name, values)| (format!("{case}/{name}"), values);
        Self(self.0.into_iter().map(named).collect())
    }

    /// The tensors of both.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The tensor of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Values> {
        self.0.get(name)
    }

    /// The tensor of this name.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn require(&self, name: &str) -> &Values {
        self.get(name)
            .unwrap_or_else(|| panic!("no golden tensor {name}"))
    }

    /// Names that begin with `prefix`, without it.
    pub fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .keys()
            .filter_map(move |name| name.strip_prefix(prefix))
    }
}

fn numbers<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    let (chunks, _) = bytes.as_chunks();
    chunks.iter().map(|chunk| read(*chunk)).collect()
}
