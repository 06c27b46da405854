//! A table of rows.

use burn::tensor::{DType, Int, Tensor, TensorData};

/// Rows looked up by number.
#[derive(Clone, Debug)]
pub struct Embedding {
    weight: Tensor<2>,
    dtype: DType,
}

impl Embedding {
    /// A table `[rows, width]` whose rows are given out in `dtype`.
    #[must_use]
    pub fn new(weight: Tensor<2>, dtype: DType) -> Self {
        Self { weight, dtype }
    }

    /// The rows of `ids`.
    ///
    /// # Shapes
    /// - output: `[ids, width]`
    ///
    /// # Panics
    /// When an id is not below the number of rows; ids are checked where they enter.
    #[must_use]
    pub fn forward(&self, ids: &[u32]) -> Tensor<2> {
        let ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
        let count = ids.len();
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [count]), &self.weight.device());
        self.weight.clone().select(0, ids).cast(self.dtype)
    }

    /// The table.
    #[must_use]
    pub fn weight(&self) -> &Tensor<2> {
        &self.weight
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.weight.dims()[0]
    }
}
