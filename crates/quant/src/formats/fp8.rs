//! FP8: bytes of E4M3 with one scale a tensor, a row, or a block of 128×128.
//!
//! `weight` F8_E4M3 `[out, in]` with `weight_scale` or `weight_scale_inv`, which both are factors, in any of the shapes
//!
//! | scale | shapes |
//! |---|---|
//! | of the tensor | `[]`, `[1]`; `[experts]` of fused experts |
//! | of a row | `[out]`, `[out, 1]` |
//! | of a block | `[out / 128, in / 128]`, `[out / 128, 1, in / 128, 1]`; `[out, in / 128]` |

use burn_omni_ops::{PackedBytes, PackedFormat};

use crate::Warnings;
use crate::checkpoint::{CheckpointError, Dtype, RawTensor};
use crate::warnings::Kind;

use super::bytes::{is_factor, padded, scales, spec};
use super::module::bad_value;
use super::{Matrix, Module, Quantized};

/// Rows and columns of a block.
const BLOCK: usize = 128;

struct Fp8<'a> {
    codes: RawTensor<'a>,
    scales: RawTensor<'a>,
    reach: Reach,
    rows: usize,
    width: usize,
}

/// What a scale belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// So many rows.
    Rows(usize),
    /// So many rows of each block of columns, where matrices have so many rows.
    Blocks { rows: usize, of: usize },
}

/// See [`super::Stored::find`].
pub(super) fn find<'a>(
    module: &Module<'a>,
    _: &Warnings,
) -> Result<Option<Box<dyn Quantized + 'a>>, CheckpointError> {
    let Some(codes) = module.plain().filter(|codes| codes.dtype == Dtype::F8_E4M3) else {
        return Ok(None);
    };
    let codes = codes.expect_shape(&module.shape())?;
    let scales = match module.first(&["weight_scale", "weight_scale_inv"]) {
        Some(scales) => crate::raw::readable(scales)?,
        None => module.require("weight_scale")?,
    };
    let reach = reach(module, &scales)?;
    Ok(Some(Box::new(Fp8 {
        codes,
        scales,
        reach,
        rows: module.rows(),
        width: module.width(),
    })))
}

/// What the scales of this shape belong to.
fn reach(module: &Module<'_>, scales: &RawTensor<'_>) -> Result<Reach, CheckpointError> {
    let one = module.rows_of_one();
    let matrices = module.rows().checked_div(one).unwrap_or(0);
    let (rows, columns) = (one.div_ceil(BLOCK), module.width().div_ceil(BLOCK));
    // Axes of one element say nothing, apart from those of one matrix.
    let squeezed: Vec<usize> = scales
        .shape
        .iter()
        .copied()
        .filter(|size| *size != 1)
        .collect();
    let is = |sizes: &[usize]| {
        let sizes: Vec<usize> = sizes.iter().copied().filter(|size| *size != 1).collect();
        squeezed == sizes
    };
    let flat = scales.shape.len() <= 1;
    if squeezed.is_empty() {
        return factor(scales).map(|()| Reach::Rows(module.rows()));
    }
    if is(&[matrices, one]) && (flat || scales.shape.last() == Some(&1)) {
        return Ok(Reach::Rows(1));
    }
    if matrices > 1 && is(&[matrices]) {
        return Ok(Reach::Rows(one));
    }
    if is(&[matrices, rows, columns]) {
        return Ok(Reach::Blocks {
            rows: BLOCK,
            of: one,
        });
    }
    if is(&[matrices, one, columns]) {
        return Ok(Reach::Blocks { rows: 1, of: one });
    }
    Err(scales
        .expect_shape(&[rows, columns])
        .expect_err("this shape is among those above"))
}

/// Checks the one scale of a tensor.
fn factor(scales: &RawTensor<'_>) -> Result<(), CheckpointError> {
    match scales.to_f32()?.first() {
        Some(scale) if !is_factor(*scale) => Err(bad_value(scales, "a factor above 0", scale)),
        _ => Ok(()),
    }
}

impl Quantized for Fp8<'_> {
    fn name(&self) -> &'static str {
        match self.reach {
            Reach::Rows(_) => "FP8",
            Reach::Blocks { .. } => "FP8 blocks",
        }
    }

    fn codes(&self) -> RawTensor<'_> {
        self.codes
    }

    fn format(&self) -> Option<PackedFormat> {
        Some(match self.reach {
            Reach::Rows(_) => PackedFormat::FP8,
            Reach::Blocks { .. } => PackedFormat::FP8_BLOCK,
        })
    }

    fn read(&self, warnings: &Warnings) -> Result<Matrix, CheckpointError> {
        let values = scales(&self.scales)?;
        let (format, scales, gains) = match self.reach {
            Reach::Rows(rows) => {
                let gains = (0..self.rows).map(|row| values[row / rows.max(1)]);
                (PackedFormat::FP8, Vec::new(), gains.collect())
            }
            Reach::Blocks { rows, of } => {
                let blocks = self.width.div_ceil(BLOCK);
                let scale_rows = of.div_ceil(rows);
                let scales = (0..self.rows).flat_map(|row| {
                    let start = (row / of * scale_rows + row % of / rows) * blocks;
                    values[start..start + blocks]
                        .iter()
                        .flat_map(|scale| scale.to_le_bytes())
                });
                let scales = scales.collect();
                (PackedFormat::FP8_BLOCK, scales, vec![1.0; self.rows])
            }
        };
        let spec = spec(format, self.rows, self.width);
        let mut codes = padded(self.codes.bytes, self.width, spec.row_bytes());
        repair(&mut codes, &self.codes, warnings);
        let scales = padded(&scales, self.width.div_ceil(BLOCK) * 4, spec.scale_bytes());
        Ok(Matrix::Packed(PackedBytes {
            spec,
            codes,
            scales,
            gains,
        }))
    }
}

/// Makes every code a number: NaN, which a cast without saturation leaves, becomes the largest of its sign.
pub(super) fn repair(codes: &mut [u8], tensor: &RawTensor<'_>, warnings: &Warnings) {
    let mut bad = 0;
    for code in codes {
        if *code & 0x7F == 0x7F {
            *code -= 1;
            bad += 1;
        }
    }
    if bad > 0 {
        warnings.note(Kind::NanWeight, tensor.name, bad);
    }
}

/// Zeroes what lies behind the last column.
pub(super) fn clear_tail(codes: &mut [u8], row: usize, width: usize) {
    for row in codes.chunks_exact_mut(row.max(1)) {
        row[width..].fill(0);
    }
}
