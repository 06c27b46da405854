//! Burn's tensors as the kernels take them, and back.

use burn::tensor::{DType, Shape, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_omni_kernels::{Buffer, E4M3, Heads, Matrix};
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use crate::kv::WORD;

/// The type of an element.
pub(super) fn elem(dtype: DType) -> ElemType {
    match dtype {
        DType::F32 | DType::Flex32 => f32::elem_type_native(),
        DType::F16 => half::f16::elem_type_native(),
        DType::BF16 => half::bf16::elem_type_native(),
        DType::I32 => i32::elem_type_native(),
        DType::U32 => u32::elem_type_native(),
        other => panic!("no kernel reads {other:?}"),
    }
}

/// The tensor itself, if it is on a GPU.
pub(super) fn primitive<const D: usize>(x: Tensor<D>) -> Option<CubeTensor> {
    x.try_into_primitive::<CubeBackend>().ok()
}

/// The memory of a tensor whose elements lie side by side.
pub(super) fn flat(x: CubeTensor) -> Buffer {
    view(&into_contiguous(x))
}

fn view(x: &CubeTensor) -> Buffer {
    Buffer {
        handle: x.handle.clone(),
        elem: elem(x.dtype),
    }
}

/// Rows, which may lie apart.
pub(super) fn matrix(x: CubeTensor) -> Matrix {
    let x = with_rows(x);
    let (shape, strides) = (x.meta.shape(), x.meta.strides());
    Matrix {
        buffer: view(&x),
        rows: shape[0],
        width: shape[1],
        stride: strides[0],
    }
}

/// The rows of some matrices `[matrices, rows, width]`, one matrix after another.
pub(super) fn matrices(x: CubeTensor) -> Matrix {
    let x = with_rows(x);
    let (shape, strides) = (x.meta.shape(), x.meta.strides());
    let x = if strides[0] == shape[1] * strides[1] {
        x
    } else {
        into_contiguous(x)
    };
    Matrix {
        buffer: view(&x),
        rows: x.meta.shape()[0] * x.meta.shape()[1],
        width: x.meta.shape()[2],
        stride: x.meta.strides()[1],
    }
}

/// Rows of heads, which may lie apart.
pub(super) fn heads(x: CubeTensor) -> Heads {
    let x = with_rows(x);
    let (shape, strides) = (x.meta.shape(), x.meta.strides());
    Heads {
        buffer: view(&x),
        rows: shape[0],
        heads: shape[1],
        width: shape[2],
        strides: [strides[0], strides[1]],
    }
}

/// Rows of heads of E4M3, four numbers a word; words lie side by side.
pub(super) fn e4m3(words: CubeTensor) -> Heads {
    let shape = words.meta.shape().clone();
    let [rows, heads, width] = [shape[0], shape[1], shape[2] * WORD];
    Heads {
        buffer: Buffer {
            handle: into_contiguous(words).handle,
            elem: E4M3,
        },
        rows,
        heads,
        width,
        strides: [heads * width, width],
    }
}

/// The tensor with the elements of its last axis side by side.
fn with_rows(x: CubeTensor) -> CubeTensor {
    let last = x.meta.num_dims() - 1;
    if x.meta.strides()[last] == 1 && !x.meta.is_tiled() {
        x
    } else {
        into_contiguous(x)
    }
}

/// A kernel's output as a tensor on the device of `like`.
pub(super) fn tensor(
    like: &CubeTensor,
    buffer: Buffer,
    shape: impl Into<Shape>,
    dtype: DType,
) -> CubeTensor {
    CubeTensor::new_contiguous(
        like.client.clone(),
        like.device.clone(),
        shape.into(),
        buffer.handle,
        dtype,
    )
}
