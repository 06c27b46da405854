//! Stored bytes to tensors.

use burn::tensor::{Bytes, DType, Tensor, TensorData};
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

/// The parts one after another in the dtype they are stored in, or in f32 when they differ.
pub(crate) fn join(parts: &[RawTensor<'_>], shape: &[usize]) -> TensorData {
    let stored = parts
        .first()
        .and_then(dtype)
        .expect("the checking pass saw every part");
    if parts.iter().any(|part| dtype(part) != Some(stored)) {
        let values: Vec<f32> = parts.iter().flat_map(values).collect();
        return TensorData::new(values, shape.to_vec());
    }
    let bytes = match stored {
        // Collected as elements, so that the buffer has their alignment.
        DType::F32 => Bytes::from_elems(collect::<u32>(parts)),
        _ => Bytes::from_elems(collect::<u16>(parts)),
    };
    TensorData::from_bytes(bytes, shape.to_vec(), stored)
}

/// The elements of all parts, copied from the memory map on all cores.
fn collect<E: bytemuck::Pod>(parts: &[RawTensor<'_>]) -> Vec<E> {
    for part in parts {
        buffer::read_ahead(part.bytes);
    }
    let total = parts.iter().map(|part| part.bytes.len()).sum::<usize>() / size_of::<E>();
    let mut out = buffer::zeros(total);
    let mut rest: &mut [u8] = bytemuck::cast_slice_mut(&mut out);
    let mut copies = Vec::new();
    for part in parts {
        let (head, tail) = rest.split_at_mut(part.bytes.len());
        copies.extend(head.chunks_mut(TASK).zip(part.bytes.chunks(TASK)));
        rest = tail;
    }
    let copies = copies.into_par_iter();
    copies.for_each(|(out, bytes)| out.copy_from_slice(bytes));
    out
}

/// The values of one part as f32.
pub(crate) fn values(part: &RawTensor<'_>) -> Vec<f32> {
    part.to_f32().expect("the checking pass saw the dtype")
}

/// A tensor whose rows follow one another: a device would set rows of most widths apart, and kernels that load whole
/// lines could not read them.
pub(crate) fn side_by_side<const D: usize>(
    data: TensorData,
    place: (&burn::tensor::Device, DType),
) -> Tensor<D> {
    let (bytes, shape, dtype) = data.into_parts();
    let data = TensorData::from_bytes(bytes, [shape.num_elements()], dtype);
    Tensor::<1>::from_data(data, place).reshape(shape)
}

/// A tensor on `device` in the dtype of `data`, or in `fallback` where the device has no such dtype.
pub(crate) fn upload<const D: usize>(
    data: TensorData,
    device: &burn::tensor::Device,
    fallback: DType,
) -> Tensor<D> {
    let dtype = if device.supports_dtype(data.dtype()) {
        data.dtype()
    } else {
        fallback
    };
    side_by_side(data, (device, dtype))
}
