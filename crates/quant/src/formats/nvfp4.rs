//! NVFP4: codes of 4 bits, an E4M3 scale for 16 of them, and a tensor scale in f32.
//!
//! | | ModelOpt | compressed-tensors |
//! |---|---|---|
//! | codes | `weight` U8 `[out, in / 2]` | `weight_packed` |
//! | block scales | `weight_scale` F8_E4M3 `[out, in / 16]` | the same |
//! | tensor scale | `weight_scale_2`, a factor | `weight_global_scale`, a divisor |

use burn_omni_ops::{PackedFormat, PackedSpec};

use crate::Warnings;
use crate::checkpoint::{CheckpointError, Dtype, RawTensor};
use crate::quantize::RANGE;
use crate::warnings::Kind;

use super::bytes::{is_factor, pad, spec};
use super::module::{bad_value, wrong_dtype};
use super::rows::{Mended, PackedRows, Room, Rows};
use super::{Matrix, Module, Quantized};

/// Columns that share a scale.
const BLOCK: usize = 16;
/// 448, the largest E4M3.
const LARGEST: u8 = 0x7E;
/// Both sign bits of a byte of codes.
const SIGNS: u8 = 0x88;

struct Nvfp4<'a> {
    codes: RawTensor<'a>,
    scales: RawTensor<'a>,
    rows: usize,
    width: usize,
    /// One factor a row, 0 of a tensor of zeros.
    gains: Vec<f32>,
}

/// See [`super::Stored::find`].
pub(super) fn find<'a>(
    module: &Module<'a>,
    warnings: &Warnings,
) -> Result<Option<Box<dyn Quantized + 'a>>, CheckpointError> {
    let Some((codes, scales)) = parts(module) else {
        return Ok(None);
    };
    let width = module.width();
    let bytes = if codes.dtype == Dtype::F4 { 1 } else { 2 }; // codes of an element
    let codes = module.expect_codes(
        codes,
        width.div_ceil(bytes),
        width.next_multiple_of(BLOCK) / bytes,
    )?;
    let scales = scales.expect_shape(&module.shape_with(&[width.div_ceil(BLOCK)]))?;
    let gains = gains(module, [&codes, &scales], warnings)?;
    Ok(Some(Box::new(Nvfp4 {
        codes,
        scales,
        rows: module.rows(),
        width,
        gains,
    })))
}

/// Codes and block scales, when the module's tensors are of this form.
fn parts<'a>(module: &Module<'a>) -> Option<(RawTensor<'a>, RawTensor<'a>)> {
    let codes = module.get("weight_packed").or_else(|| module.plain())?;
    // The second name is that of a model saved as it was in memory.
    let scales = module.first(&["weight_scale", "weight_quantizer._scale"])?;
    let is_code = matches!(codes.dtype, Dtype::U8 | Dtype::I8 | Dtype::F4);
    let is_scale = match scales.dtype {
        Dtype::F8_E4M3 => true,
        // The same bytes under another name; MX scales have no tensor scale beside them.
        Dtype::U8 => module
            .first(&["weight_scale_2", "weight_global_scale"])
            .is_some(),
        _ => false,
    };
    (is_code && is_scale).then_some((codes, scales))
}

/// The factor of each row.
fn gains(
    module: &Module<'_>,
    [codes, scales]: [&RawTensor<'_>; 2],
    warnings: &Warnings,
) -> Result<Vec<f32>, CheckpointError> {
    let factor = module.first(&["weight_scale_2", "weight_quantizer._double_scale"]);
    let divisor = module.get("weight_global_scale");
    let (tensor, invert) = match (factor, divisor) {
        (Some(factor), Some(_)) => {
            warnings.note(Kind::TwoScales, module.name(), 1);
            (factor, false)
        }
        (Some(factor), None) => (factor, false),
        (None, Some(divisor)) => (divisor, true),
        (None, None) => {
            let amax = super::fake::amax(module);
            let derived = amax
                .map(|amax| amax / RANGE)
                .filter(|gain| is_factor(*gain));
            if let Some(gain) = derived {
                warnings.note(Kind::DerivedScale, module.name(), 1);
                return Ok(vec![gain; module.rows()]);
            }
            let name = if module.get("weight_packed").is_some() {
                "weight_global_scale"
            } else {
                "weight_scale_2"
            };
            (module.require(name)?, false)
        }
    };
    let values = tensor.to_f32()?;
    let one = module.rows_of_one();
    let matrices = module.rows().checked_div(one).unwrap_or(0);
    if values.len() != 1 && values.len() != matrices {
        return Err(tensor.expect_shape(&[]).expect_err("more than one value"));
    }
    let bytes = codes.bytes.len().checked_div(values.len()).unwrap_or(0);
    let each = values.iter().enumerate().map(|(matrix, value)| {
        let gain = if invert { value.recip() } else { *value };
        if is_factor(*value) && is_factor(gain) {
            return Ok(gain);
        }
        // A tensor of zeros has no scale and needs none. ModelOpt divides by it: then every block scale is NaN.
        let codes = &codes.bytes[matrix * bytes..][..bytes];
        let is_nan = || scales.bytes.iter().all(|scale| scale & 0x7F == 0x7F);
        if codes.iter().all(|byte| byte & !SIGNS == 0) || *value == 0.0 && is_nan() {
            warnings.note(Kind::ZeroTensor, tensor.name, 1);
            return Ok(0.0);
        }
        Err(bad_value(&tensor, "a factor above 0", value))
    });
    let each = each.collect::<Result<Vec<_>, _>>()?;
    let repeat = if each.len() == 1 { module.rows() } else { one };
    Ok(each
        .into_iter()
        .flat_map(|gain| vec![gain; repeat])
        .collect())
}

impl Quantized for Nvfp4<'_> {
    fn name(&self) -> &'static str {
        "NVFP4"
    }

    fn codes(&self) -> RawTensor<'_> {
        self.codes
    }

    fn format(&self) -> Option<PackedFormat> {
        Some(PackedFormat::NVFP4)
    }

    fn read(&self, warnings: &Warnings) -> Result<Matrix, CheckpointError> {
        Ok(Matrix::Packed(
            Rows::new(vec![self], self.spec()).read(warnings),
        ))
    }

    fn rows(&self) -> Option<&dyn PackedRows> {
        Some(self)
    }
}

impl PackedRows for Nvfp4<'_> {
    fn spec(&self) -> PackedSpec {
        spec(PackedFormat::NVFP4, self.rows, self.width)
    }

    fn stored(&self) -> [&[u8]; 2] {
        [self.codes.bytes, self.scales.bytes]
    }

    fn gains(&self) -> Vec<f32> {
        self.gains.clone()
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
        clear_tail(codes, spec.row_bytes(), self.width);
        pad(
            &self.scales.bytes[from * blocks..],
            blocks,
            (scales, spec.scale_bytes()),
        );
        repair(codes, scales)
    }

    fn note(&self, mended: Mended, warnings: &Warnings) {
        if self.gains.iter().all(|gain| *gain == 0.0) {
            return;
        }
        for (kind, count) in [
            (Kind::NanScale, mended.nan),
            (Kind::NegativeScale, mended.negative),
        ] {
            if count > 0 {
                warnings.note(kind, self.scales.name, count);
            }
        }
    }
}

/// Zeroes the code behind an odd last column.
pub(super) fn clear_tail(codes: &mut [u8], row: usize, width: usize) {
    for row in codes.chunks_exact_mut(row.max(1)) {
        if !width.is_multiple_of(2) {
            row[width / 2] &= 0x0F;
        }
        row[width.div_ceil(2)..].fill(0);
    }
}

/// Makes every scale a number without a sign: NaN, which a cast without saturation leaves, becomes the largest; a sign
/// goes to the block's codes.
fn repair(codes: &mut [u8], scales: &mut [u8]) -> Mended {
    let mut found = Mended::default();
    // All of them first, without an early exit, which the compiler can vectorise.
    let is_bad = |bad, scale: &u8| bad | (*scale >= 0x7F);
    if !scales.iter().fold(false, is_bad) {
        return found;
    }
    for (scale, block) in scales.iter_mut().zip(codes.chunks_exact_mut(BLOCK / 2)) {
        if *scale & 0x7F == 0x7F {
            *scale = LARGEST;
            found.nan += 1;
        } else if *scale & 0x80 != 0 {
            *scale &= 0x7F;
            block.iter_mut().for_each(|byte| *byte ^= SIGNS);
            found.negative += 1;
        }
    }
    found
}

/// The error of a scale tensor that is neither E4M3 nor E8M0.
pub(super) fn no_block_scale(scales: &RawTensor<'_>) -> CheckpointError {
    wrong_dtype(scales, "F8_E4M3 or U8")
}
