//! Every weight of every tensor: is it a finite number?

use burn_omni_quant::checkpoint::Checkpoint;
use burn_omni_quant::formats::bad_scale;
use serde::Serialize;

use crate::failure;
use crate::output::Output;

/// A tensor with a weight that is not finite.
#[derive(Debug, Serialize)]
pub(super) struct BadTensor {
    tensor: String,
    file: String,
    /// Position of the first such weight, in row-major order.
    index: usize,
    /// `NaN`, `inf` or `-inf`: JSON has no such numbers.
    value: String,
}

/// Reads every tensor.
pub(super) fn check(checkpoint: &Checkpoint, output: &Output) -> Vec<BadTensor> {
    let bar = output.bar("Reading");
    let total = checkpoint.bytes();
    let mut read = 0;
    let mut bad = Vec::new();
    let tensors = checkpoint
        .components()
        .flat_map(|component| component.iter());
    for (name, tensor) in tensors {
        if let Some(first) = bad_scale(name, &tensor) {
            bad.push(BadTensor {
                tensor: tensor.name.into(),
                file: tensor.file.display().to_string(),
                index: first.index,
                value: first.value.to_string(),
            });
        }
        read += tensor.bytes.len() as u64;
        bar.set(read, total);
    }
    bad
}

/// Names the bad tensors on stderr.
pub(super) fn print(bad: &[BadTensor]) {
    const SHOWN: usize = 20;
    for BadTensor {
        tensor,
        file,
        index,
        value,
    } in bad.iter().take(SHOWN)
    {
        let message = format!(
            "{file}: tensor `{tensor}`: expected finite weights, found {value} at element {index}"
        );
        failure::print(&message, None);
    }
    if bad.len() > SHOWN {
        let rest = bad.len() - SHOWN;
        failure::print(
            &format!("{rest} more tensors with weights that are not finite"),
            None,
        );
    }
}
