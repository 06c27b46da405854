//! Matrices whose values are stored in 4 or 8 bits: the one form in memory of every quantized checkpoint.

mod codes;
mod format;

use burn::backend::{Dispatch, DispatchTensor};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

pub use codes::{E2M1, FP4, NF4, e4m3, e8m0, encode_e4m3};
pub use format::{Code, PackedFormat, Scale};

use crate::OmniOps;

/// Columns are stored in multiples of this many; those beyond the width are zero.
pub const COLUMNS: usize = 64;

/// What is stored, apart from the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PackedSpec {
    /// How values and scales are coded.
    pub format: PackedFormat,
    /// Matrices that follow one another: the experts of a layer, or 1.
    pub matrices: usize,
    /// Rows of one matrix, its output features.
    pub rows: usize,
    /// Columns of one matrix, its input features.
    pub width: usize,
    /// Whether the first half of a matrix's rows are gates and the second half what they gate.
    pub gated: bool,
    /// Whether many rows may be rounded to the format of the values before they are multiplied, where the device has
    /// products of 4-bit operands and the format is one of theirs: see [`crate::has_w4a4`].
    pub w4a4: bool,
}

impl PackedSpec {
    /// Columns as stored.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.width.next_multiple_of(COLUMNS)
    }

    /// Bytes of the codes of one row in checkpoint order.
    #[must_use]
    pub fn row_bytes(&self) -> usize {
        self.columns() * self.format.code.bits() / 8
    }

    /// Blocks of one row.
    #[must_use]
    pub fn blocks(&self) -> usize {
        if self.format.block == 0 {
            return 0;
        }
        self.columns().div_ceil(self.format.block)
    }

    /// Bytes of the scales of one row in checkpoint order.
    #[must_use]
    pub fn scale_bytes(&self) -> usize {
        self.blocks() * self.format.scale.bytes()
    }
}

/// The bytes of a packed matrix in checkpoint order, on the host.
///
/// Rows follow one another without gaps. A row is [`PackedSpec::row_bytes`] of codes, the even one of two 4-bit codes in
/// the low half of its byte, and [`PackedSpec::scale_bytes`] of scales, little-endian.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedBytes {
    /// What these are the bytes of.
    pub spec: PackedSpec,
    /// Codes of all rows.
    pub codes: Vec<u8>,
    /// Scales of all rows.
    pub scales: Vec<u8>,
    /// One factor a row: the tensor scale of the matrix that the row came from.
    pub gains: Vec<f32>,
}

impl PackedBytes {
    /// The values, `[matrices * rows, width]` row by row: `code * scale * gain`, or `(code * scale + offset) * gain`.
    /// The products are formed in f64 and rounded once.
    #[must_use]
    pub fn values(&self) -> Vec<f32> {
        let spec = &self.spec;
        let rows = spec.matrices * spec.rows;
        let mut out = Vec::with_capacity(rows * spec.width);
        for row in 0..rows {
            let codes = &self.codes[row * spec.row_bytes()..][..spec.row_bytes()];
            let scales = &self.scales[row * spec.scale_bytes()..][..spec.scale_bytes()];
            let gain = f64::from(self.gains[row]);
            out.extend((0..spec.width).map(|column| {
                let (scale, offset) = spec.format.scale(scales, column);
                let code = spec.format.code.value(codes, column);
                ((f64::from(code) * scale + offset) * gain) as f32
            }));
        }
        out
    }
}

/// A packed matrix on a device, in the order that the device's kernels read.
#[derive(Clone, Debug)]
pub struct Packed {
    codes: Tensor<1, Int>,
    scales: Tensor<1, Int>,
    gains: Tensor<1>,
    spec: PackedSpec,
}

impl Packed {
    /// Puts a matrix on a device.
    #[must_use]
    pub fn upload(bytes: PackedBytes, device: &Device) -> Self {
        let PackedBytes {
            spec,
            codes,
            scales,
            gains,
        } = bytes;
        let gains = self::gains(gains, device);
        let words = |bytes| words(bytes, device).into_dispatch();
        Self::stored((words(codes), words(scales)), gains, spec)
    }

    /// A matrix whose codes and scales lie on the device in checkpoint order.
    pub(crate) fn stored(
        (codes, scales): (DispatchTensor, DispatchTensor),
        gains: Tensor<1>,
        spec: PackedSpec,
    ) -> Self {
        let (codes, scales) = Dispatch::pack(codes, scales, spec);
        Self {
            codes: Tensor::from_dispatch(codes),
            scales: Tensor::from_dispatch(scales),
            gains,
            spec,
        }
    }

    /// The same matrix, which rounds the rows that it is multiplied with: see [`PackedSpec::w4a4`].
    #[must_use]
    pub fn with_w4a4(mut self, w4a4: bool) -> Self {
        self.spec.w4a4 = w4a4;
        self
    }

    /// What is stored.
    #[must_use]
    pub fn spec(&self) -> PackedSpec {
        self.spec
    }

    /// Bytes on the device.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let words = self.codes.dims()[0] + self.scales.dims()[0] + self.gains.dims()[0];
        words * size_of::<u32>()
    }

    /// The three tensors of [`crate::OmniOps`]: codes, scales and gains.
    pub(crate) fn parts(&self) -> (Tensor<1, Int>, Tensor<1, Int>, Tensor<1>) {
        (self.codes.clone(), self.scales.clone(), self.gains.clone())
    }
}

/// One factor a row.
pub(crate) fn gains(gains: Vec<f32>, device: &Device) -> Tensor<1> {
    let count = gains.len();
    Tensor::from_data(TensorData::new(gains, [count]), (device, DType::F32))
}

/// Bytes as 32-bit words, so that every backend can hold them; never none.
fn words(mut bytes: Vec<u8>, device: &Device) -> Tensor<1, Int> {
    let count = bytes.len().div_ceil(size_of::<u32>()).max(1);
    // The same memory, which in matrices of whole words is as it has to be.
    bytes.resize(count * size_of::<u32>(), 0);
    let data = TensorData::from_bytes_vec(bytes, vec![count], DType::U32);
    Tensor::from_data(data, (device, DType::U32))
}
