//! Plain matrices that are quantized when they are loaded.

use burn_omni_ops::PackedFormat;

use crate::checkpoint::{CheckpointError, Component, RawTensor};
use crate::quantize::{self, Convention};

use super::join::Layout;
use super::{Matrix, Stored, fake};

/// What plain matrices become on loading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtLoad {
    /// The format that they are stored in.
    pub format: PackedFormat,
    /// Whether the thinker's head is one of them.
    pub head: bool,
}

impl AtLoad {
    /// Whether the matrix of a module is one: those of the thinker's attention, blocks and experts, and its head where that
    /// is wanted. Router, tables, norms, encoders and everything that speaks stay as they are.
    #[must_use]
    pub fn covers(self, component: Component, module: &str) -> bool {
        const MATRICES: [&str; 8] = [
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "gate_proj",
            "up_proj",
            "down_proj",
            "gate_up_proj",
        ];
        let last = module.rsplit('.').next().unwrap_or(module);
        let in_layer = module.starts_with("model.layers.") && MATRICES.contains(&last);
        component == Component::Thinker && (in_layer || (self.head && module == "lm_head"))
    }
}

/// Encodes those of the parts that are plain; the others are left to be read. Matrices that read the same input share a
/// tensor scale, as producers of checkpoints have it.
pub(super) struct Encoder<'a, 'b> {
    pub(super) parts: &'b [Stored<'a>],
    pub(super) layout: Layout,
    pub(super) format: PackedFormat,
}

impl<'a> Encoder<'a, '_> {
    /// Part number `index` in the format, when it is plain.
    pub(super) fn encode(&self, index: usize) -> Option<Result<Matrix, CheckpointError>> {
        let tensor = self.parts[index].dense()?;
        Some(self.encode_tensor(index, tensor))
    }

    fn encode_tensor(
        &self,
        index: usize,
        tensor: RawTensor<'a>,
    ) -> Result<Matrix, CheckpointError> {
        let whole = quantize::Matrix::of_tensor(&tensor)?;
        if self.format != PackedFormat::NVFP4 {
            return Ok(Matrix::Packed(quantize::mxfp4(whole).into_packed()));
        }
        let group = self.parts.len() / self.layout.matrices.max(1);
        if let Some(place) = index.checked_div(group) {
            let start = place * group;
            let mut amax = self.parts[start..start + group].iter().map(amax);
            let amax = amax.try_fold(0.0, |largest, amax| {
                amax.map(|amax| f32::max(largest, amax))
            })?;
            let encoded = quantize::nvfp4(whole, amax, Convention::ModelOpt);
            return Ok(Matrix::Packed(encoded.into_packed()));
        }
        // Fused experts, each with its own scale.
        let count = tensor.shape.first().copied().unwrap_or(1).max(1);
        let bytes = tensor.bytes.len() / count;
        let shape = &tensor.shape[1..];
        let mut joined = None;
        for expert in 0..count {
            let one = RawTensor {
                shape,
                bytes: &tensor.bytes[expert * bytes..][..bytes],
                ..tensor
            };
            let one = quantize::Matrix::of_tensor(&one)?;
            let encoded = quantize::nvfp4(one, one.amax(), Convention::ModelOpt).into_packed();
            match &mut joined {
                None => joined = Some(encoded),
                Some(all) => {
                    all.codes.extend(encoded.codes);
                    all.scales.extend(encoded.scales);
                    all.gains.extend(encoded.gains);
                }
            }
        }
        Ok(Matrix::Packed(joined.expect("there is an expert")))
    }
}

/// The largest magnitude of a part: what its quantizer saw, else that of its own weights; of a packed part none.
fn amax(part: &Stored<'_>) -> Result<f32, CheckpointError> {
    let Some(tensor) = part.dense() else {
        return Ok(0.0);
    };
    match fake::amax(&part.module) {
        Some(amax) => Ok(amax),
        None => Ok(quantize::Matrix::of_tensor(&tensor)?.amax()),
    }
}
