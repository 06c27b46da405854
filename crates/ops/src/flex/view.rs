//! Reading and making Flex tensors.

use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};
use half::{bf16, f16};

/// A read view `[rows, heads, width]` of an f32 tensor whose last axis is contiguous; a slice of columns needs no copy.
pub(super) struct View<'a> {
    data: &'a [f32],
    pub(super) rows: usize,
    pub(super) heads: usize,
    pub(super) width: usize,
    pub(super) row_stride: usize,
    pub(super) head_stride: usize,
}

impl<'a> View<'a> {
    /// A view of a tensor of two or three axes.
    ///
    /// # Panics
    /// When the dtype is not f32, the rank is another, or the last axis is not contiguous (see [`with_rows`]).
    pub(super) fn new(tensor: &'a FlexTensor) -> Self {
        let layout = tensor.layout();
        let dims: Vec<usize> = layout.shape().iter().copied().collect();
        let strides = layout.strides();
        let stride =
            |axis: usize| usize::try_from(strides[axis]).expect("views are never reversed");
        let (rows, heads, width, row_stride, head_stride) = match dims.as_slice() {
            &[rows, width] => (rows, 1, width, stride(0), 0),
            &[rows, heads, width] => (rows, heads, width, stride(0), stride(1)),
            other => panic!("an operation takes two or three axes, got {other:?}"),
        };
        assert!(readable(tensor), "the last axis must be contiguous");
        let data = &tensor.storage::<f32>()[layout.start_offset()..];
        Self {
            data,
            rows,
            heads,
            width,
            row_stride,
            head_stride,
        }
    }

    pub(super) fn row(&self, row: usize, head: usize) -> &'a [f32] {
        let start = row * self.row_stride + head * self.head_stride;
        &self.data[start..start + self.width]
    }

    /// The data from the first element of `(row, head)` on.
    pub(super) fn from(&self, row: usize, head: usize) -> &'a [f32] {
        &self.data[row * self.row_stride + head * self.head_stride..]
    }
}

fn readable(tensor: &FlexTensor) -> bool {
    let layout = tensor.layout();
    let last = layout.num_dims() - 1;
    (layout.shape()[last] == 1 || layout.strides()[last] == 1)
        && layout.strides().iter().all(|s| *s >= 0)
}

/// The tensor itself when its last axis is contiguous, else a contiguous copy.
pub(super) fn with_rows(tensor: &FlexTensor) -> FlexTensor {
    if readable(tensor) {
        tensor.clone()
    } else {
        tensor.to_contiguous()
    }
}

/// The elements of a small f32 tensor (a norm weight, a bias).
pub(super) fn vector(tensor: &FlexTensor) -> &[f32] {
    tensor
        .as_slice::<f32>()
        .expect("norm weights and biases are contiguous f32")
}

/// A contiguous f32 tensor.
pub(super) fn tensor(data: Vec<f32>, shape: &[usize]) -> FlexTensor {
    FlexTensor::new(
        Bytes::from_elems(data),
        Layout::contiguous(Shape::from(shape.to_vec())),
        DType::F32,
    )
}

/// A dense weight in the dtype it is stored in.
#[derive(Clone, Copy)]
pub(super) enum Stored<'a> {
    F32(&'a [f32]),
    BF16(&'a [bf16]),
    F16(&'a [f16]),
}

impl<'a> Stored<'a> {
    pub(super) fn new(tensor: &'a FlexTensor) -> Self {
        let contiguous = "weights are contiguous";
        match tensor.dtype() {
            DType::F32 => Self::F32(tensor.as_slice().expect(contiguous)),
            DType::BF16 => Self::BF16(tensor.as_slice().expect(contiguous)),
            DType::F16 => Self::F16(tensor.as_slice().expect(contiguous)),
            other => panic!("a dense weight is f32, bf16 or f16, got {other:?}"),
        }
    }

    /// The elements `start..end`.
    pub(super) fn part(self, start: usize, end: usize) -> Self {
        match self {
            Self::F32(x) => Self::F32(&x[start..end]),
            Self::BF16(x) => Self::BF16(&x[start..end]),
            Self::F16(x) => Self::F16(&x[start..end]),
        }
    }
}
