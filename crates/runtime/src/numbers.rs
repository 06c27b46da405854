//! Scores and samples on the host.

use burn::tensor::{DType, Tensor};

use crate::Error;

/// The numbers of one row of logits.
pub(crate) fn values(logits: Tensor<2>) -> Vec<f32> {
    logits
        .cast(DType::F32)
        .into_data()
        .try_to_vec()
        .expect("the tensor was cast to f32")
}

/// An error when a stage gave NaN or infinite values, which every choice after them would hide.
pub(crate) fn finite(stage: &'static str, values: &[f32]) -> Result<(), Error> {
    if values.iter().all(|value| value.is_finite()) {
        Ok(())
    } else {
        Err(Error::NotFinite { stage })
    }
}
