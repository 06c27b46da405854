//! Several stored matrices as one.

use burn::tensor::TensorData;
use burn_omni_ops::{PackedBytes, PackedFormat, PackedSpec};

use crate::Warnings;
use crate::checkpoint::{CheckpointError, RawTensor};
use crate::raw::{self, Dense};
use crate::warnings::Kind;

use super::at_load::Encoder;
use super::bytes::{differ_in_offset, to_affine};
use super::rows::{PackedRows, Rows};
use super::{Matrix, Stored};

/// How rows that follow one another make matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Matrices that follow one another.
    pub(crate) matrices: usize,
    /// Rows of one matrix.
    pub(crate) rows: usize,
    /// Columns of a row.
    pub(crate) width: usize,
    /// Whether the first half of a matrix's rows are gates and the second half what they gate.
    pub(crate) gated: bool,
}

impl Layout {
    /// One matrix.
    pub(crate) fn matrix([rows, width]: [usize; 2]) -> Self {
        Self {
            matrices: 1,
            rows,
            width,
            gated: false,
        }
    }

    pub(crate) fn spec(self, format: PackedFormat) -> PackedSpec {
        PackedSpec {
            format,
            matrices: self.matrices,
            rows: self.rows,
            width: self.width,
            gated: self.gated,
            w4a4: false,
        }
    }

    /// The rows of gates before what they gate, from rows that come in turn.
    fn halves(self) -> impl Iterator<Item = usize> {
        let half = self.rows / 2;
        (0..self.matrices).flat_map(move |matrix| {
            let start = matrix * self.rows;
            let place = move |row: usize| {
                if row < half {
                    2 * row
                } else {
                    2 * (row - half) + 1
                }
            };
            (0..half * 2).map(move |row| start + place(row))
        })
    }
}

/// Matrices that are one.
pub(crate) struct Joined<'a> {
    pub(crate) weight: JoinedWeight<'a>,
    /// What the input is multiplied with first.
    pub(crate) factor: Option<Vec<f32>>,
}

/// How they lie in memory.
pub(crate) enum JoinedWeight<'a> {
    Packed(JoinedPacked<'a>),
    /// Values of all rows in a dtype of their own.
    Dense(Dense<'a>),
}

/// Packed matrices on their way to a device.
pub(crate) enum JoinedPacked<'a> {
    /// They lie in the checkpoint as they are wanted.
    Stored(Rows<'a>),
    /// They were read.
    Read(PackedBytes),
}

impl JoinedWeight<'_> {
    pub(crate) fn is_packed(&self) -> bool {
        matches!(self, Self::Packed(_))
    }
}

impl JoinedPacked<'_> {
    /// All of it on the host.
    pub(crate) fn read(self, warnings: &Warnings) -> PackedBytes {
        match self {
            Self::Stored(rows) => rows.read(warnings),
            Self::Read(bytes) => bytes,
        }
    }

    fn gains(&mut self) -> &mut [f32] {
        match self {
            Self::Stored(rows) => &mut rows.gains,
            Self::Read(bytes) => &mut bytes.gains,
        }
    }
}

impl Joined<'_> {
    /// Multiplies row `row` with `factor(row)`.
    pub(crate) fn scale_rows(self, factor: impl Fn(usize) -> f32) -> Self {
        let weight = match self.weight {
            JoinedWeight::Packed(mut packed) => {
                let gains = packed.gains().iter_mut().enumerate();
                gains.for_each(|(row, gain)| *gain *= factor(row));
                JoinedWeight::Packed(packed)
            }
            JoinedWeight::Dense(dense) => {
                let data = dense.read();
                let (shape, dtype) = (data.shape().clone(), data.dtype());
                let width = shape[shape.num_dims() - 1].max(1);
                let values = data.iter::<f32>().enumerate();
                let values: Vec<f32> = values.map(|(i, value)| value * factor(i / width)).collect();
                let data = TensorData::new(values, shape).convert_dtype(dtype);
                JoinedWeight::Dense(data.into())
            }
        };
        Self { weight, ..self }
    }
}

/// Joins the rows of matrices, which are read where they are not used as they are stored: packed where all have one form,
/// else as values in the dtype of the dense ones, or in f32 when all are packed. With `quantize`, dense ones are first brought into that form.
pub(crate) fn join<'a>(
    parts: &'a [Stored<'_>],
    layout: Layout,
    quantize: Option<PackedFormat>,
    warnings: &Warnings,
) -> Result<Joined<'a>, CheckpointError> {
    let dense: Vec<RawTensor<'a>> = parts.iter().filter_map(Stored::dense).collect();
    let factors = factors(parts)?;
    let one_factor = !matches!(factors, Factors::Several);
    let corrected = parts.iter().any(|part| part.low_rank.is_some());
    if dense.len() == parts.len() && one_factor && quantize.is_none() && !corrected {
        let shape = [layout.matrices * layout.rows, layout.width];
        return Ok(Joined {
            weight: JoinedWeight::Dense(Dense::join(dense, &shape)),
            factor: factors.one(),
        });
    }
    if let Some(rows) = packed_rows(parts).filter(|_| one_factor && !corrected) {
        let spec = layout.spec(rows[0].spec().format);
        let rows = Rows::new(rows, spec);
        let in_turn = parts.iter().any(Stored::rows_in_turn);
        let packed = if in_turn && layout.gated {
            JoinedPacked::Read(in_halves(rows.read(warnings), layout, in_turn))
        } else {
            JoinedPacked::Stored(rows)
        };
        return Ok(Joined {
            weight: JoinedWeight::Packed(packed),
            factor: factors.one(),
        });
    }
    if (dense.is_empty() || quantize.is_some()) && one_factor && !corrected {
        let encoder = quantize.map(|format| Encoder {
            parts,
            layout,
            format,
        });
        let read = |index: usize| {
            let encoded = encoder.as_ref().and_then(|encoder| encoder.encode(index));
            encoded.unwrap_or_else(|| parts[index].read(warnings))
        };
        let mut packed = Growing::new(layout);
        let mut fits = true;
        for index in 0..parts.len() {
            fits = packed.add(read(index)?);
            if !fits {
                break;
            }
        }
        if fits {
            let bytes = packed.finish(parts.iter().any(Stored::rows_in_turn));
            return Ok(Joined {
                weight: JoinedWeight::Packed(JoinedPacked::Read(bytes)),
                factor: factors.one(),
            });
        }
    }
    values(parts, layout, factors, warnings)
}

/// The rows of all parts, when there are some and all have one form whose rows can be copied.
fn packed_rows<'a>(parts: &'a [Stored<'_>]) -> Option<Vec<&'a dyn PackedRows>> {
    let rows: Vec<_> = parts
        .iter()
        .map(Stored::packed_rows)
        .collect::<Option<_>>()?;
    let format = rows.first()?.spec().format;
    let same = rows.iter().all(|part| part.spec().format == format);
    same.then_some(rows)
}

/// Packed rows with those of gates before what they gate.
fn in_halves(bytes: PackedBytes, layout: Layout, in_turn: bool) -> PackedBytes {
    if in_turn && layout.gated {
        return with_rows(&bytes, layout.halves());
    }
    bytes
}

/// All parts as values.
fn values(
    parts: &[Stored<'_>],
    layout: Layout,
    factors: Factors,
    warnings: &Warnings,
) -> Result<Joined<'static>, CheckpointError> {
    let first = parts.first().map_or("", |part| part.module.name());
    let fold = matches!(factors, Factors::Several);
    if fold {
        warnings.note(Kind::MixedFactors, first, 1);
    } else if parts
        .windows(2)
        .any(|pair| pair[0].format() != pair[1].format())
    {
        warnings.note(Kind::MixedForms, first, 1);
    }
    let mut all = Vec::with_capacity(layout.matrices * layout.rows * layout.width);
    for part in parts {
        let mut values = match part.dense() {
            Some(tensor) => raw::values(&tensor),
            None => part.read(warnings)?.values(),
        };
        if let Some(low_rank) = &part.low_rank {
            warnings.note(Kind::LowRank, part.module.name(), 1);
            correct(&mut values, low_rank, layout.width)?;
        }
        if let Some(factor) = part.factor.as_ref().filter(|_| fold) {
            let factor = factor.to_f32()?;
            for row in values.chunks_exact_mut(layout.width.max(1)) {
                row.iter_mut()
                    .zip(&factor)
                    .for_each(|(value, factor)| *value *= factor);
            }
        }
        all.extend(values);
    }
    if parts.iter().any(Stored::rows_in_turn) && layout.gated {
        let rows: Vec<&[f32]> = all.chunks_exact(layout.width.max(1)).collect();
        all = layout.halves().flat_map(|row| rows[row]).copied().collect();
    }
    let shape = vec![layout.matrices * layout.rows, layout.width];
    let data = TensorData::new(all, shape);
    let dtype = parts.iter().find_map(|part| raw::dtype(&part.dense()?));
    Ok(Joined {
        weight: JoinedWeight::Dense(Dense::Read(match dtype {
            Some(dtype) => data.convert_dtype(dtype),
            None => data,
        })),
        factor: factors.one(),
    })
}

/// Adds the product of a low-rank correction's two matrices, `[out, rank]` and `[rank, width]`.
fn correct(
    values: &mut [f32],
    [a, b]: &[RawTensor<'_>; 2],
    width: usize,
) -> Result<(), CheckpointError> {
    let (a, b) = (a.to_f32()?, b.to_f32()?);
    let rank = a.len().checked_div(width).unwrap_or(0);
    if rank == 0 {
        return Ok(());
    }
    let rows = values.chunks_exact_mut(width).zip(b.chunks_exact(rank));
    for (row, factors) in rows {
        for (factor, direction) in factors.iter().zip(a.chunks_exact(width)) {
            let pairs = row.iter_mut().zip(direction);
            pairs.for_each(|(value, direction)| *value += factor * direction);
        }
    }
    Ok(())
}

/// The factors on the input of parts that read the same one.
enum Factors {
    /// All have this one, or none has one.
    One(Option<Vec<f32>>),
    /// They differ.
    Several,
}

impl Factors {
    fn one(self) -> Option<Vec<f32>> {
        match self {
            Self::One(factor) => factor,
            Self::Several => None,
        }
    }
}

fn factors(parts: &[Stored<'_>]) -> Result<Factors, CheckpointError> {
    let read = |part: &Stored<'_>| part.factor.as_ref().map(super::bytes::scales).transpose();
    let Some((first, rest)) = parts.split_first() else {
        return Ok(Factors::One(None));
    };
    let first = read(first)?;
    for part in rest {
        if read(part)? != first {
            return Ok(Factors::Several);
        }
    }
    Ok(Factors::One(first))
}

/// Packed rows, to which more are added.
struct Growing {
    layout: Layout,
    bytes: Option<PackedBytes>,
}

impl Growing {
    fn new(layout: Layout) -> Self {
        Self {
            layout,
            bytes: None,
        }
    }

    /// Adds the rows of a matrix; false when it has another form.
    fn add(&mut self, matrix: Matrix) -> bool {
        let Matrix::Packed(mut more) = matrix else {
            return false;
        };
        let Some(mut bytes) = self.bytes.take() else {
            self.start(more);
            return true;
        };
        if bytes.spec.format != more.spec.format
            && differ_in_offset(bytes.spec.format, more.spec.format)
        {
            (bytes, more) = (to_affine(bytes), to_affine(more));
        }
        let fits = bytes.spec.format == more.spec.format;
        if fits {
            bytes.codes.extend(more.codes);
            bytes.scales.extend(more.scales);
            bytes.gains.extend(more.gains);
        }
        self.bytes = Some(bytes);
        fits
    }

    /// Takes the first rows, and room for all.
    fn start(&mut self, mut bytes: PackedBytes) {
        let spec = self.layout.spec(bytes.spec.format);
        let rows = (spec.matrices * spec.rows).saturating_sub(bytes.gains.len());
        bytes.codes.reserve_exact(rows * spec.row_bytes());
        bytes.scales.reserve_exact(rows * spec.scale_bytes());
        bytes.gains.reserve_exact(rows);
        self.bytes = Some(bytes);
    }

    fn finish(self, in_turn: bool) -> PackedBytes {
        let mut bytes = self.bytes.expect("a matrix has a part");
        bytes.spec = self.layout.spec(bytes.spec.format);
        in_halves(bytes, self.layout, in_turn)
    }
}

/// The same matrix with these of its rows.
fn with_rows(bytes: &PackedBytes, rows: impl Iterator<Item = usize>) -> PackedBytes {
    let spec = bytes.spec;
    let (codes, scales) = (spec.row_bytes(), spec.scale_bytes());
    let mut out = PackedBytes {
        spec,
        codes: Vec::with_capacity(bytes.codes.len()),
        scales: Vec::with_capacity(bytes.scales.len()),
        gains: Vec::with_capacity(bytes.gains.len()),
    };
    for row in rows {
        out.codes.extend(&bytes.codes[row * codes..][..codes]);
        out.scales.extend(&bytes.scales[row * scales..][..scales]);
        out.gains.push(bytes.gains[row]);
    }
    out
}
