//! Integers of 4 bits in groups along the input, with or without a zero point.
//!
//! | | codes | zero points | scales |
//! |---|---|---|---|
//! | AWQ | `qweight` I32 `[in, out / 8]` | `qzeros` `[groups, out / 8]`, columns in the order 0 2 4 6 1 3 5 7 | `scales` `[groups, out]` |
//! | GPTQ, AutoRound | `qweight` I32 `[in / 8, out]` | `qzeros` `[groups, out / 8]`, one less in the first version | `scales` `[groups, out]` |
//! | compressed-tensors | `weight_packed` I32 `[out, in / 8]` | `weight_zero_point` `[out / 8, groups]` | `weight_scale` `[out, groups]` |

use burn_omni_ops::packed::{Code, Scale};
use burn_omni_ops::{PackedBytes, PackedFormat};
use rayon::prelude::*;

use crate::Warnings;
use crate::checkpoint::{CheckpointError, Dtype, RawTensor};
use crate::warnings::Kind;

use super::bytes::{padded, scales, spec, words};
use super::module::{bad_value, expect_dtype};
use super::{Matrix, Module, Quantized};

/// Codes of a word.
const EACH: usize = 8;
/// The code of zero where there are no zero points.
const MIDDLE: u8 = 8;
/// Nibble of a word that holds each of eight columns of AWQ.
const AWQ_NIBBLE: [usize; EACH] = [0, 4, 1, 5, 2, 6, 3, 7];
/// Block sizes of the packed form, largest first.
const BLOCKS: [usize; 4] = [128, 64, 32, 16];

/// How words are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Awq,
    Gptq {
        /// What is added to a stored zero point.
        zero: u8,
    },
    Rows,
}

struct Int4<'a> {
    codes: RawTensor<'a>,
    zeros: Option<RawTensor<'a>>,
    scales: RawTensor<'a>,
    /// The group of each column, where it is stored.
    groups: Option<RawTensor<'a>>,
    order: Order,
    /// Number of groups of a row.
    count: usize,
    rows: usize,
    width: usize,
}

/// See [`super::Stored::find`].
pub(super) fn find<'a>(
    module: &Module<'a>,
    _: &Warnings,
) -> Result<Option<Box<dyn Quantized + 'a>>, CheckpointError> {
    let found = if let Some(codes) = module.get("qweight") {
        transposed(module, codes)?
    } else {
        let packed = module
            .get("weight_packed")
            .filter(|codes| codes.dtype == Dtype::I32);
        match packed {
            Some(codes) => by_rows(module, codes)?,
            None => return Ok(None),
        }
    };
    Ok(Some(Box::new(found)))
}

/// AWQ and GPTQ, told apart by the axis along which codes are packed.
fn transposed<'a>(module: &Module<'a>, codes: RawTensor<'a>) -> Result<Int4<'a>, CheckpointError> {
    let (rows, width) = (module.rows(), module.width());
    let codes = expect_dtype(codes, Dtype::I32, "I32")?;
    let gptq = [width.div_ceil(EACH), rows];
    let order = if codes.shape == [width, rows.div_ceil(EACH)] {
        Order::Awq
    } else {
        Order::Gptq {
            zero: module.gptq_zero(),
        }
    };
    if order != Order::Awq {
        let shapes = |bits| [[words_of(width, bits), rows], [width, words_of(rows, bits)]];
        expect_four_bits(&codes, &gptq, shapes)?;
    }
    let scales = crate::raw::readable(module.require("scales")?)?;
    let count = groups(scales.shape.first().copied().unwrap_or(0), width);
    let scales = scales.expect_shape(&[count, rows])?;
    let zeros = module.get("qzeros").map(|zeros| {
        let zeros = expect_dtype(zeros, Dtype::I32, "I32")?;
        zeros.expect_shape(&[count, rows.div_ceil(EACH)])
    });
    let groups = module.get("g_idx").map(|groups| {
        let groups = expect_dtype(groups, Dtype::I32, "I32")?;
        groups.expect_shape(&[width])
    });
    Ok(Int4 {
        codes,
        zeros: zeros.transpose()?,
        scales,
        groups: groups.transpose()?,
        order,
        count,
        rows,
        width,
    })
}

/// compressed-tensors.
fn by_rows<'a>(module: &Module<'a>, codes: RawTensor<'a>) -> Result<Int4<'a>, CheckpointError> {
    let (rows, width) = (module.rows(), module.width());
    let expected = module.shape_with(&[width.div_ceil(EACH)]);
    let shapes = |bits| [module.shape_with(&[words_of(width, bits)])];
    expect_four_bits(&codes, &expected, shapes)?;
    if let Some(shape) = module.get("weight_shape") {
        let shape = expect_dtype(shape, Dtype::I64, "I64")?;
        let (sizes, _) = shape.bytes.as_chunks::<8>();
        let found: Vec<usize> = sizes
            .iter()
            .map(|size| usize::try_from(i64::from_le_bytes(*size)).unwrap_or(usize::MAX))
            .collect();
        if found != module.shape() {
            return Err(CheckpointError::ShapeMismatch {
                file: shape.file.into(),
                tensor: shape.name.into(),
                expected: module.shape(),
                found,
            });
        }
    }
    let scales = crate::raw::readable(module.require("weight_scale")?)?;
    let count = groups(scales.shape.last().copied().unwrap_or(0), width);
    let scales = scales.expect_shape(&module.shape_with(&[count]))?;
    let zeros = module.get("weight_zero_point").map(|zeros| {
        let zeros = expect_dtype(zeros, Dtype::I32, "I32")?;
        zeros.expect_shape(&[rows.div_ceil(EACH), count])
    });
    let groups = module.get("weight_g_idx").map(|groups| {
        let groups = expect_dtype(groups, Dtype::I32, "I32")?;
        groups.expect_shape(&[width])
    });
    Ok(Int4 {
        codes,
        zeros: zeros.transpose()?,
        scales,
        groups: groups.transpose()?,
        order: Order::Rows,
        count,
        rows,
        width,
    })
}

/// Words of so many codes.
fn words_of(codes: usize, bits: usize) -> usize {
    (codes * bits).div_ceil(32)
}

/// Checks the shape of codes of 4 bits, and tells those of another width from those of another matrix. A config may give
/// single layers another width (`extra_config` of AutoRound, `dynamic` of GPTQ); what they have is seen here.
fn expect_four_bits<S: AsRef<[usize]>, const N: usize>(
    codes: &RawTensor<'_>,
    expected: &[usize],
    shapes: impl Fn(usize) -> [S; N],
) -> Result<(), CheckpointError> {
    const OTHERS: [usize; 3] = [2, 3, 8];
    let has = |bits: &usize| {
        shapes(*bits)
            .iter()
            .any(|shape| shape.as_ref() == codes.shape)
    };
    if codes.shape != expected
        && let Some(bits) = OTHERS.into_iter().find(has)
    {
        let found = format!("codes of {bits} bits");
        return Err(bad_value(codes, "codes of 4 bits", found));
    }
    codes.expect_shape(expected).map(drop)
}

/// Groups of a row: as many as there are scales, when groups of equal size can have that number.
fn groups(scales: usize, width: usize) -> usize {
    if scales == 0 || scales > width {
        return 1;
    }
    scales
}

impl Int4<'_> {
    /// Columns of a group.
    fn size(&self) -> usize {
        self.width.div_ceil(self.count).max(1)
    }

    /// Columns that share a scale in memory.
    fn block(&self) -> Option<usize> {
        if self.count == 1 {
            return BLOCKS.first().copied();
        }
        let size = self.size();
        BLOCKS.into_iter().find(|block| size.is_multiple_of(*block))
    }

    /// Whether a zero point is another one than the middle of the codes.
    fn has_offsets(&self) -> bool {
        let more = match self.order {
            Order::Gptq { zero } => zero,
            _ => 0,
        };
        let middle = u32::from(MIDDLE - more) * 0x1111_1111;
        let zeros = self.zeros.as_ref().map(words);
        zeros.is_some_and(|zeros| zeros.iter().any(|word| *word != middle))
    }

    /// The group of each column when it is not the column's place that says it.
    fn order_of_columns(&self) -> Option<Vec<usize>> {
        let groups = words(self.groups.as_ref()?);
        let size = self.size();
        let usual = groups
            .iter()
            .enumerate()
            .all(|(column, group)| *group as usize == column / size);
        let last = self.count - 1;
        (!usual).then(|| {
            groups
                .iter()
                .map(|group| (*group as usize).min(last))
                .collect()
        })
    }

    /// The code of row `row` and column `column`, among these words.
    fn code(&self, words: &[u32], row: usize, column: usize) -> u8 {
        let (word, nibble) = match self.order {
            Order::Awq => (
                column * self.rows.div_ceil(EACH) + row / EACH,
                AWQ_NIBBLE[row % EACH],
            ),
            Order::Gptq { .. } => (column / EACH * self.rows + row, column % EACH),
            Order::Rows => (
                row * self.width.div_ceil(EACH) + column / EACH,
                column % EACH,
            ),
        };
        (words[word] >> (4 * nibble) & 15) as u8
    }

    /// All codes in rows of so many bytes, the even one in the low half of its byte.
    fn packed_codes(&self, words: &[u32], bytes: usize) -> Vec<u8> {
        let each = self.width.div_ceil(EACH);
        if self.order == Order::Rows {
            return padded(self.codes.bytes, each * 4, bytes);
        }
        let mut codes = vec![0_u8; self.rows * bytes];
        let rows = codes.par_chunks_exact_mut(bytes.max(1)).enumerate();
        rows.for_each(|(row, out)| {
            if self.order == Order::Awq {
                for column in 0..self.width {
                    out[column / 2] |= self.code(words, row, column) << (column % 2 * 4);
                }
                return;
            }
            let (out, _) = out.as_chunks_mut::<4>();
            for (index, word) in out.iter_mut().take(each).enumerate() {
                *word = words[index * self.rows + row].to_le_bytes();
            }
        });
        codes
    }

    /// The zero point of row `row` in group `group`, among these words.
    fn zero(&self, words: &[u32], row: usize, group: usize) -> u8 {
        let (word, nibble, more) = match self.order {
            Order::Awq => (
                group * self.rows.div_ceil(EACH) + row / EACH,
                AWQ_NIBBLE[row % EACH],
                0,
            ),
            Order::Gptq { zero } => (
                group * self.rows.div_ceil(EACH) + row / EACH,
                row % EACH,
                zero,
            ),
            Order::Rows => (row / EACH * self.count + group, row % EACH, 0),
        };
        ((words[word] >> (4 * nibble) & 15) as u8 + more) & 15
    }

    /// Scale and zero point of every row and group, row by row.
    fn factors(&self) -> Result<Vec<(f32, u8)>, CheckpointError> {
        let values = scales(&self.scales)?;
        let zeros = self.zeros.as_ref().map(words);
        let places = (0..self.rows).flat_map(|row| (0..self.count).map(move |group| (row, group)));
        Ok(places
            .map(|(row, group)| {
                let place = match self.order {
                    Order::Rows => row * self.count + group,
                    _ => group * self.rows + row,
                };
                let zero = zeros
                    .as_ref()
                    .map_or(MIDDLE, |zeros| self.zero(zeros, row, group));
                (values[place], zero)
            })
            .collect())
    }
}

impl Quantized for Int4<'_> {
    fn name(&self) -> &'static str {
        "INT4"
    }

    fn codes(&self) -> RawTensor<'_> {
        self.codes
    }

    fn format(&self) -> Option<PackedFormat> {
        let scale = if self.has_offsets() {
            Scale::Affine
        } else {
            Scale::F32
        };
        let block = self.block().filter(|_| self.order_of_columns().is_none())?;
        Some(PackedFormat::new(Code::Int4, scale, block))
    }

    fn read(&self, warnings: &Warnings) -> Result<Matrix, CheckpointError> {
        let factors = self.factors()?;
        let words = words(&self.codes);
        let order = self.order_of_columns();
        let Some(format) = self.format() else {
            let kind = match order {
                Some(_) => Kind::ActOrder,
                None => Kind::OddGroups,
            };
            warnings.note(kind, self.codes.name, 1);
            let size = self.size();
            let group = |column: usize| order.as_ref().map_or(column / size, |order| order[column]);
            let values = (0..self.rows * self.width).into_par_iter().map(|i| {
                let (row, column) = (i / self.width, i % self.width);
                let (scale, zero) = factors[row * self.count + group(column)];
                (f32::from(self.code(&words, row, column)) - f32::from(zero)) * scale
            });
            return Ok(Matrix::Values(values.collect()));
        };
        let spec = spec(format, self.rows, self.width);
        let codes = self.packed_codes(&words, spec.row_bytes());
        let size = self.size();
        let mut scales = Vec::with_capacity(self.rows * spec.scale_bytes());
        for row in factors.chunks_exact(self.count) {
            for index in 0..spec.blocks() {
                let (factor, zero) = row[(index * format.block / size).min(self.count - 1)];
                scales.extend(factor.to_le_bytes());
                if format.scale == Scale::Affine {
                    let offset = (f32::from(MIDDLE) - f32::from(zero)) * factor;
                    scales.extend(offset.to_le_bytes());
                }
            }
        }
        Ok(Matrix::Packed(PackedBytes {
            spec,
            codes,
            scales,
            gains: vec![1.0; self.rows],
        }))
    }
}
