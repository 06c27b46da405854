//! Packed matrices: the weights keep their 4 or 8 bits in memory and become f32 in registers, or in a panel for a gemm.

mod decode;
mod few;
mod layout;
mod many;
mod scales;
#[cfg(test)]
mod tests;

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::experts::{Matrices, mix};
use super::gemm::Rows;
use super::math::{Lanes, vectorized};
use super::parallel;
use super::view::{View, tensor, vector, with_rows};
use crate::PackedSpec;
use few::FewRows;
use layout::{Matrix, interleave};
use many::{PANEL, Unpack, many_rows};

/// Up to this many rows a vector of weights meets all rows before the next is decoded.
const FEW_ROWS: usize = 16;

/// Codes, scales and gains.
type Parts<'a> = [&'a FlexTensor; 3];

/// Checkpoint order in, panels out; see [`layout`]. In place where nobody else holds the tensors.
pub(super) fn pack(
    mut codes: FlexTensor,
    mut scales: FlexTensor,
    spec: &PackedSpec,
) -> (FlexTensor, FlexTensor) {
    let parts = (codes.storage_mut(), scales.storage_mut());
    interleave_parts(parts.0, parts.1, spec, vectorized(Lanes));
    (codes, scales)
}

/// Words of codes and of scales in checkpoint order become panels of `lanes` rows.
fn interleave_parts(codes: &mut [u32], scales: &mut [u32], spec: &PackedSpec, lanes: usize) {
    interleave(codes, spec, spec.row_bytes() / size_of::<u32>(), lanes);
    let bytes = spec.scale_bytes();
    if spec.format.scale.bytes() < size_of::<u32>() {
        interleave::<u8>(bytemuck::cast_slice_mut(scales), spec, bytes, lanes);
    } else {
        interleave(scales, spec, bytes / size_of::<u32>(), lanes);
    }
}

pub(super) fn unpack(parts: Parts<'_>, spec: &PackedSpec) -> FlexTensor {
    let (lanes, stack) = (vectorized(Lanes), Stack::new(parts, spec));
    let mut out = vec![0.0; spec.matrices * spec.rows * spec.width];
    if !out.is_empty() {
        out.par_chunks_mut(spec.rows * spec.width)
            .enumerate()
            .for_each(|(index, out)| {
                out.par_chunks_mut(lanes * spec.width)
                    .enumerate()
                    .for_each(|(panel, out)| {
                        let matrix = stack.matrix(index);
                        vectorized(Unpack { matrix, panel, out });
                    });
            });
    }
    tensor(out, &[spec.matrices * spec.rows, spec.width])
}

pub(super) fn linear(x: &FlexTensor, parts: Parts<'_>, spec: &PackedSpec) -> FlexTensor {
    let x = with_rows(x);
    let x = View::new(&x);
    assert_eq!(
        x.width, spec.width,
        "packed_linear: the input has another width than the weight"
    );
    let rows = Rows {
        data: x.from(0, 0),
        rows: x.rows,
        stride: x.row_stride,
    };
    let mut out = vec![0.0; x.rows * spec.rows];
    let pieces = parallel::pieces(out.len() * spec.width / 4);
    Stack::new(parts, spec).multiply(0, rows, &mut out, pieces);
    tensor(out, &[x.rows, spec.rows])
}

pub(super) fn experts(
    x: &FlexTensor,
    ids: &FlexTensor,
    weights: &FlexTensor,
    parts: [Parts<'_>; 2],
    specs: &[PackedSpec; 2],
) -> FlexTensor {
    let [up, down] = [0, 1].map(|i| Stack::new(parts[i], &specs[i]));
    mix(x, ids, weights, [&up, &down])
}

/// Matrices of one shape that follow one another.
struct Stack<'a> {
    spec: &'a PackedSpec,
    codes: &'a [u32],
    scales: &'a [u8],
    gains: &'a [f32],
}

impl<'a> Stack<'a> {
    fn new([codes, scales, gains]: Parts<'a>, spec: &'a PackedSpec) -> Self {
        let words = |x: &'a FlexTensor| -> &'a [u32] {
            x.as_slice().expect("packed words are contiguous u32")
        };
        Self {
            spec,
            codes: words(codes),
            scales: bytemuck::cast_slice(words(scales)),
            gains: vector(gains),
        }
    }

    fn matrix(&self, index: usize) -> Matrix<'a> {
        let rows = self.spec.rows;
        let words = rows * self.spec.row_bytes() / size_of::<u32>();
        let scales = rows * self.spec.scale_bytes();
        Matrix {
            spec: *self.spec,
            codes: &self.codes[index * words..][..words],
            scales: &self.scales[index * scales..][..scales],
            gains: &self.gains[index * rows..][..rows],
        }
    }
}

impl Matrices for Stack<'_> {
    fn count(&self) -> usize {
        self.spec.matrices
    }

    fn shape(&self) -> [usize; 2] {
        [self.spec.rows, self.spec.width]
    }

    fn multiply(&self, index: usize, x: Rows<'_>, out: &mut [f32], pieces: usize) {
        if x.rows == 0 {
            return;
        }
        let matrix = self.matrix(index);
        if x.rows > FEW_ROWS {
            return parallel::columns(out, x.rows, PANEL, pieces, |columns, out| {
                many_rows(matrix, x, columns, out);
            });
        }
        let (width, columns) = (self.spec.width, self.spec.columns());
        let padded;
        let x = if width == columns {
            x
        } else {
            padded = pad(x, width, columns);
            Rows {
                data: &padded,
                rows: x.rows,
                stride: columns,
            }
        };
        parallel::columns(out, x.rows, vectorized(Lanes), pieces, |columns, out| {
            vectorized(FewRows {
                matrix,
                x,
                columns,
                out,
            });
        });
    }
}

/// The rows with zeros behind them, `[rows, columns]`.
fn pad(x: Rows<'_>, width: usize, columns: usize) -> Vec<f32> {
    let mut padded = vec![0.0; x.rows * columns];
    for (row, padded) in padded.chunks_exact_mut(columns).enumerate() {
        padded[..width].copy_from_slice(&x.data[row * x.stride..][..width]);
    }
    padded
}
