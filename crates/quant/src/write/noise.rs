//! Random values in the forms in which they are stored.

use burn_omni_ops::{PackedFormat, PackedSpec, Words, drawn_float, drawn_gain};
use half::bf16;

use crate::draw::vector_value;
use crate::quantize::RANGE;

use super::file::PartFile;
use super::layout::Content;
use super::{Form, WriteError};

/// Elements of a block. A prime number, so that rows of no width begin at the same place of it twice in a row of matrices.
const PERIOD: usize = (1 << 22) - 3;
/// Elements of a vector that are written at once.
const VECTOR: usize = 1 << 12;

/// Blocks of random values, which tensors repeat from a place that their names choose: writing them then costs no more than
/// writing does.
#[derive(Debug)]
pub(super) struct Noise {
    /// BF16 numbers.
    floats: Vec<u8>,
    /// Two 4-bit codes a byte.
    codes: Vec<u8>,
    /// The scale bytes of blocks.
    scales: Vec<u8>,
    /// The factor on every value.
    gain: f32,
}

impl Noise {
    /// Values of dense tensors, and of matrices in `form` where there are any.
    pub(super) fn new(form: Option<Form>) -> Self {
        let floats = (0..PERIOD as u32).map(|index| bf16::from_f32(drawn_float(index, 0)));
        let format = form.map(Form::format);
        let bytes = |words: Words| {
            let words =
                (0..PERIOD.div_ceil(4) as u32).flat_map(|index| words.word(index).to_le_bytes());
            words.take(PERIOD).collect()
        };
        Self {
            floats: floats.flat_map(bf16::to_le_bytes).collect(),
            codes: format.map_or_else(Vec::new, |format| bytes(Words::codes(&one_row(format), 1))),
            scales: format.map_or_else(Vec::new, |format| bytes(Words::scales(format, 2))),
            gain: format.map_or(1.0, drawn_gain),
        }
    }

    /// The magnitude that the tensor scale of random matrices is made for.
    pub(super) fn amax(&self) -> f32 {
        self.gain * RANGE
    }

    /// Writes so many bytes of a tensor.
    pub(super) fn write(
        &self,
        file: &mut PartFile,
        name: &str,
        (content, is_vector): (Content, bool),
        bytes: usize,
    ) -> Result<(), WriteError> {
        let vector;
        let (block, size) = match content {
            Content::Codes => (&self.codes, 1),
            Content::Scales => (&self.scales, 1),
            _ if is_vector => {
                vector = bf16::from_f32(vector_value(name))
                    .to_le_bytes()
                    .repeat(VECTOR);
                (&vector, size_of::<bf16>())
            }
            _ => (&self.floats, size_of::<bf16>()),
        };
        let mut start = place(name) % (block.len() / size) * size;
        let mut left = bytes;
        while left > 0 {
            let piece = &block[start..block.len().min(start + left)];
            file.write(piece)?;
            left -= piece.len();
            start = 0;
        }
        Ok(())
    }
}

/// A matrix without padding.
fn one_row(format: PackedFormat) -> PackedSpec {
    PackedSpec {
        format,
        matrices: 1,
        rows: 1,
        width: burn_omni_ops::packed::COLUMNS,
        gated: false,
        w4a4: false,
    }
}

/// A number for every name (FNV-1a).
fn place(name: &str) -> usize {
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    name.bytes().fold(0x811C_9DC5, step) as usize
}
