//! MX formats: blocks of 32 with a power of two.
//!
//! | | codes | scales |
//! |---|---|---|
//! | MXFP4, compressed-tensors | `weight_packed` U8 `[out, in / 2]` | `weight_scale` U8 `[out, in / 32]` |
//! | MXFP4, gpt-oss | `…_blocks` U8 `[experts, out, in / 32, 16]`, gate and up rows in turn | `…_scales` U8 |
//! | MXFP8 | `weight` F8_E4M3 `[out, in]` | `weight_scale` U8 `[out, in / 32]` |

use burn_omni_ops::{PackedFormat, PackedSpec};

use crate::Warnings;
use crate::checkpoint::{CheckpointError, Dtype, RawTensor};
use crate::warnings::Kind;

use super::bytes::{pad, spec};
use super::rows::{Mended, PackedRows, Room, Rows};
use super::{Matrix, Module, Quantized, fp8, nvfp4};

/// Columns that share a scale.
const BLOCK: usize = 32;
/// The scale byte that is no number.
const NAN: u8 = 0xFF;

struct Mx<'a> {
    codes: RawTensor<'a>,
    scales: RawTensor<'a>,
    format: PackedFormat,
    rows: usize,
    width: usize,
}

/// See [`super::Stored::find`].
pub(super) fn find<'a>(
    module: &Module<'a>,
    _: &Warnings,
) -> Result<Option<Box<dyn Quantized + 'a>>, CheckpointError> {
    let width = module.width();
    let blocks = width.div_ceil(BLOCK);
    let mx = |codes, scales: RawTensor<'a>, format| Mx {
        codes,
        scales,
        format,
        rows: module.rows(),
        width,
    };
    if let Some(codes) = module
        .get("blocks")
        .filter(|codes| codes.dtype == Dtype::U8)
    {
        let scales = module.require("scales")?;
        if !is_power(&scales) {
            return Err(nvfp4::no_block_scale(&scales));
        }
        let codes = codes.expect_shape(&module.shape_with(&[blocks, BLOCK / 2]))?;
        let scales = scales.expect_shape(&module.shape_with(&[blocks]))?;
        return Ok(Some(Box::new(mx(codes, scales, PackedFormat::MXFP4))));
    }
    let (Some(codes), Some(scales)) = (
        module.get("weight_packed").or_else(|| module.plain()),
        module.get("weight_scale"),
    ) else {
        return Ok(None);
    };
    if !is_power(&scales) {
        return Ok(None);
    }
    let padded = width.next_multiple_of(BLOCK);
    let (format, codes) = match codes.dtype {
        Dtype::U8 | Dtype::I8 => {
            let codes = module.expect_codes(codes, width.div_ceil(2), padded / 2)?;
            (PackedFormat::MXFP4, codes)
        }
        Dtype::F4 => (
            PackedFormat::MXFP4,
            module.expect_codes(codes, width, padded)?,
        ),
        Dtype::F8_E4M3 => (
            PackedFormat::MXFP8,
            module.expect_codes(codes, width, padded)?,
        ),
        _ => return Ok(None),
    };
    let scales = scales.expect_shape(&module.shape_with(&[blocks]))?;
    Ok(Some(Box::new(mx(codes, scales, format))))
}

fn is_power(scales: &RawTensor<'_>) -> bool {
    matches!(scales.dtype, Dtype::U8 | Dtype::F8_E8M0)
}

impl Quantized for Mx<'_> {
    fn name(&self) -> &'static str {
        if self.format == PackedFormat::MXFP8 {
            "MXFP8"
        } else {
            "MXFP4"
        }
    }

    fn codes(&self) -> RawTensor<'_> {
        self.codes
    }

    fn format(&self) -> Option<PackedFormat> {
        Some(self.format)
    }

    fn read(&self, warnings: &Warnings) -> Result<Matrix, CheckpointError> {
        let mut bytes = Rows::new(vec![self], self.spec()).read(warnings);
        if self.format == PackedFormat::MXFP8 {
            fp8::repair(&mut bytes.codes, &self.codes, warnings);
        }
        Ok(Matrix::Packed(bytes))
    }

    fn rows(&self) -> Option<&dyn PackedRows> {
        // Codes of 8 bits may be NaN, too.
        (self.format == PackedFormat::MXFP4).then_some(self)
    }

    fn rows_in_turn(&self) -> bool {
        // Only gpt-oss has an axis of blocks.
        self.codes.shape.len() > self.scales.shape.len()
    }
}

impl PackedRows for Mx<'_> {
    fn spec(&self) -> PackedSpec {
        spec(self.format, self.rows, self.width)
    }

    fn stored(&self) -> [&[u8]; 2] {
        [self.codes.bytes, self.scales.bytes]
    }

    fn gains(&self) -> Vec<f32> {
        vec![1.0; self.rows]
    }

    fn copy(&self, from: usize, Room { codes, scales }: Room<'_>) -> Mended {
        let spec = self.spec();
        let stored = self.codes.bytes.len().checked_div(self.rows).unwrap_or(0);
        let blocks = self.width.div_ceil(BLOCK);
        pad(
            &self.codes.bytes[from * stored..],
            stored,
            (codes, spec.row_bytes()),
        );
        if self.format == PackedFormat::MXFP8 {
            fp8::clear_tail(codes, spec.row_bytes(), self.width);
        } else {
            nvfp4::clear_tail(codes, spec.row_bytes(), self.width);
        }
        pad(
            &self.scales.bytes[from * blocks..],
            blocks,
            (scales, spec.scale_bytes()),
        );
        let mut mended = Mended::default();
        if !scales.contains(&NAN) {
            return mended;
        }
        let block = BLOCK * self.format.code.bits() / 8;
        for (scale, codes) in scales.iter_mut().zip(codes.chunks_exact_mut(block)) {
            if *scale == NAN {
                *scale = 0;
                codes.fill(0);
                mended.nan += 1;
            }
        }
        mended
    }

    fn note(&self, mended: Mended, warnings: &Warnings) {
        if mended.nan > 0 {
            warnings.note(Kind::NanPower, self.scales.name, mended.nan);
        }
    }
}
