//! Stored bytes to tensors.

use burn::tensor::{Bytes, DType, Device, Tensor, TensorData};
use burn_omni_ops::filling::{Filling, PIECE};
use rayon::prelude::*;
use safetensors::Dtype;

use crate::buffer;
use crate::checkpoint::{CheckpointError, RawTensor};

/// Bytes that one task copies.
const TASK: usize = 1 << 20;

/// The tensor itself when its dtype is one that dense weights have.
pub(crate) fn readable(tensor: RawTensor<'_>) -> Result<RawTensor<'_>, CheckpointError> {
    match dtype(&tensor) {
        Some(_) => Ok(tensor),
        None => Err(CheckpointError::UnexpectedDtype {
            file: tensor.file.into(),
            tensor: tensor.name.into(),
            expected: "BF16, F16 or F32",
            found: tensor.dtype,
        }),
    }
}

pub(crate) fn dtype(tensor: &RawTensor<'_>) -> Option<DType> {
    match tensor.dtype {
        Dtype::BF16 => Some(DType::BF16),
        Dtype::F16 => Some(DType::F16),
        Dtype::F32 => Some(DType::F32),
        _ => None,
    }
}

/// Numbers on their way to a device.
pub(crate) enum Dense<'a> {
    /// They lie in the checkpoint.
    Stored(Stack<'a>),
    /// They were read.
    Read(TensorData),
}

/// Tensors of one dtype, one after another.
pub(crate) struct Stack<'a> {
    parts: Vec<RawTensor<'a>>,
    shape: Vec<usize>,
    dtype: DType,
}

impl From<TensorData> for Dense<'_> {
    fn from(data: TensorData) -> Self {
        Self::Read(data)
    }
}

impl<'a> Dense<'a> {
    /// The parts one after another in the dtype they are stored in, or in f32 when they differ.
    pub(crate) fn join(parts: Vec<RawTensor<'a>>, shape: &[usize]) -> Self {
        let stored = parts
            .first()
            .and_then(dtype)
            .expect("the checking pass saw every part");
        if parts.iter().any(|part| dtype(part) != Some(stored)) {
            let values: Vec<f32> = parts.iter().flat_map(values).collect();
            return Self::Read(TensorData::new(values, shape.to_vec()));
        }
        Self::Stored(Stack {
            parts,
            shape: shape.to_vec(),
            dtype: stored,
        })
    }

    /// All of it on the host.
    pub(crate) fn read(self) -> TensorData {
        match self {
            Self::Stored(stack) => stack.read(),
            Self::Read(data) => data,
        }
    }
}

impl Stack<'_> {
    fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.bytes.len()).sum()
    }

    fn read(self) -> TensorData {
        let bytes = match self.dtype {
            // Collected as elements, so that the buffer has their alignment.
            DType::F32 => Bytes::from_elems(self.collect::<u32>()),
            _ => Bytes::from_elems(self.collect::<u16>()),
        };
        TensorData::from_bytes(bytes, self.shape, self.dtype)
    }

    fn collect<E: bytemuck::Pod>(&self) -> Vec<E> {
        self.read_ahead();
        let mut out = buffer::zeros(self.bytes() / size_of::<E>());
        self.copy(0, bytemuck::cast_slice_mut(&mut out));
        out
    }

    fn read_ahead(&self) {
        for part in &self.parts {
            buffer::read_ahead(part.bytes);
        }
    }

    /// Copies the bytes from number `from` on, as many as there is room for, from the memory map on all cores.
    fn copy(&self, from: usize, room: &mut [u8]) {
        let mut rest = room;
        let mut copies = Vec::new();
        let mut first = 0;
        for part in &self.parts {
            let behind = first + part.bytes.len();
            let start = from.clamp(first, behind) - first;
            let count = (part.bytes.len() - start).min(rest.len());
            let (head, tail) = rest.split_at_mut(count);
            let stored = &part.bytes[start..start + count];
            copies.extend(head.chunks_mut(TASK).zip(stored.chunks(TASK)));
            (rest, first) = (tail, behind);
        }
        let copies = copies.into_par_iter();
        copies.for_each(|(out, bytes)| out.copy_from_slice(bytes));
    }

    /// The numbers on a GPU that holds their dtype.
    fn upload<const D: usize>(&self, device: &Device) -> Option<Tensor<D>> {
        let count = self.bytes() / self.dtype.size();
        let mut filling = Filling::new(count, (device, self.dtype))?;
        for from in (0..self.bytes()).step_by(PIECE) {
            let bytes = PIECE.min(self.bytes() - from);
            filling.next(bytes, |piece| {
                // Not before: a device that records wants no byte.
                if from == 0 {
                    self.read_ahead();
                }
                self.copy(from, piece);
            });
        }
        let shape: [usize; D] = self.shape.as_slice().try_into().ok()?;
        Some(filling.finish().reshape(shape))
    }
}

/// The values of one part as f32.
pub(crate) fn values(part: &RawTensor<'_>) -> Vec<f32> {
    part.to_f32().expect("the checking pass saw the dtype")
}

/// A tensor whose rows follow one another: a device would set rows of most widths apart, and kernels that load whole
/// lines could not read them.
pub(crate) fn side_by_side<const D: usize>(data: TensorData, place: (&Device, DType)) -> Tensor<D> {
    let (bytes, shape, dtype) = data.into_parts();
    let data = TensorData::from_bytes(bytes, [shape.num_elements()], dtype);
    Tensor::<1>::from_data(data, place).reshape(shape)
}

/// A tensor on `device` in the dtype of `dense`, or in `fallback` where the device has no such dtype. `send` hears of so many
/// bytes that are handed to the device at once.
pub(crate) fn upload<const D: usize>(
    dense: Dense<'_>,
    (device, fallback): (&Device, DType),
    send: impl FnOnce(usize),
) -> Tensor<D> {
    if let Dense::Stored(stack) = &dense
        && device.supports_dtype(stack.dtype)
        && let Some(tensor) = stack.upload(device)
    {
        return tensor;
    }
    let data = dense.read();
    send(data.as_bytes().len());
    let dtype = if device.supports_dtype(data.dtype()) {
        data.dtype()
    } else {
        fallback
    };
    side_by_side(data, (device, dtype))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn bytes_from_anywhere_in_a_stack_are_those_of_its_parts() {
        let bytes: Vec<Vec<u8>> = [6, 0, 3 * TASK, 10]
            .iter()
            .enumerate()
            .map(|(part, count)| (0..*count).map(|i| ((i * 3 + part) % 251) as u8).collect())
            .collect();
        let part = |bytes| RawTensor {
            name: "part",
            file: Path::new("file"),
            dtype: Dtype::BF16,
            shape: &[],
            bytes,
        };
        let all = bytes.concat();
        let Dense::Stored(stack) = Dense::join(
            bytes.iter().map(|bytes| part(bytes)).collect(),
            &[all.len() / 2],
        ) else {
            panic!("all are of one dtype");
        };
        for (from, count) in [
            (0, all.len()),
            (0, 4),
            (4, 8),
            (100, 2 * TASK),
            (all.len() - 11, 11),
        ] {
            let mut room = vec![0; count];
            stack.copy(from, &mut room);
            assert!(room == all[from..from + count], "{from} {count}");
        }
        assert!(stack.read().as_bytes() == all);
    }
}
