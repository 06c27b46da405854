//! bitsandbytes NF4 and FP4: a table of 16 values and a scale for 64 of them, along the flattened matrix.
//!
//! | tensor | content |
//! |---|---|
//! | `weight` U8 `[out * in / 2, 1]` | codes, the even one in the high half of its byte |
//! | `weight.absmax` | a scale a block; with nesting, bytes |
//! | `weight.quant_map` | the table |
//! | `weight.nested_absmax`, `weight.nested_quant_map` | scale and table of those bytes |
//! | `weight.quant_state.bitsandbytes__nf4`, `…__fp4` | JSON: block sizes, shape, offset of the scales |

use burn_omni_ops::packed::{Code, FP4, NF4, Scale};
use burn_omni_ops::{PackedBytes, PackedFormat};
use serde_json::Value;

use crate::Warnings;
use crate::checkpoint::{CheckpointError, Dtype, RawTensor};
use crate::warnings::Kind;

use super::bytes::{padded, scales, spec};
use super::module::{bad_value, wrong_dtype};
use super::{Matrix, Module, Quantized};

const STATES: [&str; 2] = [
    "weight.quant_state.bitsandbytes__nf4",
    "weight.quant_state.bitsandbytes__fp4",
];

struct Bnb<'a> {
    codes: RawTensor<'a>,
    absmax: RawTensor<'a>,
    nested: Option<Nested<'a>>,
    table: Vec<f32>,
    /// The table by name, when it is the usual one.
    code: Option<Code>,
    block: usize,
    rows: usize,
    width: usize,
}

/// How the scales themselves are stored.
struct Nested<'a> {
    absmax: RawTensor<'a>,
    table: Vec<f32>,
    offset: f32,
    block: usize,
}

/// See [`super::Stored::find`].
pub(super) fn find<'a>(
    module: &Module<'a>,
    _: &Warnings,
) -> Result<Option<Box<dyn Quantized + 'a>>, CheckpointError> {
    let Some(absmax) = module.get("weight.absmax") else {
        return Ok(None);
    };
    let codes = module.require("weight")?;
    let state = state(module)?;
    let size = |key: &str, usual: usize| {
        let size = state.as_ref().and_then(|state| state.get(key)?.as_u64());
        size.map_or(usual, |size| usize::try_from(size).unwrap_or(usize::MAX))
    };
    let (rows, width) = (module.rows(), module.width());
    let bytes = (rows * width).div_ceil(2);
    // The bytes may have been written as elements of another dtype.
    if codes.bytes.len() != bytes {
        return Err(codes
            .expect_shape(&[bytes, 1])
            .err()
            .unwrap_or_else(|| wrong_dtype(&codes, "U8")));
    }
    let block = size("blocksize", 64).max(1);
    let blocks = (rows * width).div_ceil(block);
    if absmax.elements() != blocks {
        return Err(absmax.expect_shape(&[blocks]).expect_err("another number"));
    }
    let table = table(module.require("weight.quant_map")?, 16)?;
    let nested = if absmax.dtype == Dtype::U8 {
        let inner = size("nested_blocksize", 256).max(1);
        let nested = module.require("weight.nested_absmax")?;
        let offset = state
            .as_ref()
            .and_then(|state| state.get("nested_offset")?.as_f64());
        Some(Nested {
            absmax: nested.expect_shape(&[blocks.div_ceil(inner)])?,
            table: self::table(module.require("weight.nested_quant_map")?, 256)?,
            offset: offset.unwrap_or(0.0) as f32,
            block: inner,
        })
    } else {
        crate::raw::readable(absmax)?;
        None
    };
    Ok(Some(Box::new(Bnb {
        codes,
        absmax,
        nested,
        code: usual(&table),
        table,
        block,
        rows,
        width,
    })))
}

/// The JSON that says how the module was quantized.
fn state(module: &Module<'_>) -> Result<Option<Value>, CheckpointError> {
    let Some(tensor) = module.first(&STATES) else {
        return Ok(None);
    };
    let state: Value =
        serde_json::from_slice(tensor.bytes).map_err(|error| bad_value(&tensor, "JSON", error))?;
    let shape = state.get("shape").and_then(Value::as_array);
    let shape: Option<Vec<u64>> =
        shape.map(|sizes| sizes.iter().filter_map(Value::as_u64).collect());
    let expected: Vec<u64> = module.shape().iter().map(|size| *size as u64).collect();
    match shape {
        Some(found) if found != expected => Err(CheckpointError::ShapeMismatch {
            file: tensor.file.into(),
            tensor: tensor.name.into(),
            expected: module.shape(),
            found: found.into_iter().map(|size| size as usize).collect(),
        }),
        _ => Ok(Some(state)),
    }
}

fn table(tensor: RawTensor<'_>, entries: usize) -> Result<Vec<f32>, CheckpointError> {
    scales(&tensor.expect_shape(&[entries])?)
}

/// The name of a table that the kernels have.
fn usual(table: &[f32]) -> Option<Code> {
    let mirrored = |code: usize| if code < 8 { FP4[code] } else { -FP4[code - 8] };
    if table.iter().eq(&NF4) {
        Some(Code::Nf4)
    } else if table
        .iter()
        .enumerate()
        .all(|(code, value)| *value == mirrored(code))
    {
        Some(Code::Fp4)
    } else {
        None
    }
}

impl Bnb<'_> {
    /// The scale of every block.
    fn scales(&self) -> Result<Vec<f32>, CheckpointError> {
        let Some(nested) = &self.nested else {
            return scales(&self.absmax);
        };
        let outer = scales(&nested.absmax)?;
        let bytes = self.absmax.bytes.iter().enumerate();
        Ok(bytes
            .map(|(i, byte)| {
                nested.table[usize::from(*byte)] * outer[i / nested.block] + nested.offset
            })
            .collect())
    }
}

impl Quantized for Bnb<'_> {
    fn name(&self) -> &'static str {
        match self.code {
            Some(Code::Fp4) => "FP4",
            _ => "NF4",
        }
    }

    fn codes(&self) -> RawTensor<'_> {
        self.codes
    }

    fn format(&self) -> Option<PackedFormat> {
        let code = self.code?;
        let fits = matches!(self.block, 32 | 64 | 128) && self.width.is_multiple_of(self.block);
        fits.then_some(PackedFormat::new(code, Scale::F32, self.block))
    }

    fn read(&self, warnings: &Warnings) -> Result<Matrix, CheckpointError> {
        let scales = self.scales()?;
        let Some(format) = self.format() else {
            let kind = match self.code {
                None => Kind::OtherTable,
                Some(_) if self.width.is_multiple_of(self.block) => Kind::OddGroups,
                Some(_) => Kind::CrossingBlocks,
            };
            warnings.note(kind, self.codes.name, 1);
            let bytes = self.codes.bytes;
            let values = (0..self.rows * self.width).map(|i| {
                let code = bytes[i / 2] >> (4 * (1 - i % 2)) & 15;
                self.table[usize::from(code)] * scales[i / self.block]
            });
            return Ok(Matrix::Values(values.collect()));
        };
        let spec = spec(format, self.rows, self.width);
        let swapped: Vec<u8> = self
            .codes
            .bytes
            .iter()
            .map(|byte| byte.rotate_left(4))
            .collect();
        let scales: Vec<u8> = scales
            .iter()
            .flat_map(|scale| scale.to_le_bytes())
            .collect();
        Ok(Matrix::Packed(PackedBytes {
            spec,
            codes: padded(&swapped, self.width / 2, spec.row_bytes()),
            scales: padded(&scales, self.width / self.block * 4, spec.scale_bytes()),
            gains: vec![1.0; self.rows],
        }))
    }
}
