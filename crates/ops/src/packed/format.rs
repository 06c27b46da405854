//! How values and scales are coded.

use super::codes::{E2M1, FP4, NF4, e4m3, e8m0};

/// How a value is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// 4 bits: sign, two of exponent, one of mantissa.
    E2m1,
    /// 8 bits: sign, four of exponent, three of mantissa.
    E4m3,
    /// 4 bits: the value is the code minus 8.
    Int4,
    /// 4 bits: an entry of bitsandbytes' table of normal quantiles.
    Nf4,
    /// 4 bits: an entry of bitsandbytes' table of small floats.
    Fp4,
}

impl Code {
    /// Bits of a code.
    #[must_use]
    pub const fn bits(self) -> usize {
        match self {
            Self::E4m3 => 8,
            _ => 4,
        }
    }

    /// The values of all 4-bit codes, or `None` when there are 8 bits.
    #[must_use]
    pub fn table(self) -> Option<[f32; 16]> {
        let mirrored = |half: [f32; 8]| {
            std::array::from_fn(|code| {
                let value = half[code % 8];
                if code < 8 { value } else { -value }
            })
        };
        match self {
            Self::E2m1 => Some(mirrored(E2M1)),
            Self::E4m3 => None,
            Self::Int4 => Some(std::array::from_fn(|code| code as f32 - 8.0)),
            Self::Nf4 => Some(NF4),
            Self::Fp4 => Some(mirrored(FP4)),
        }
    }

    /// The value of code number `index` of a row.
    #[must_use]
    pub fn value(self, codes: &[u8], index: usize) -> f32 {
        match self.table() {
            Some(table) => table[usize::from(codes[index / 2] >> (index % 2 * 4) & 15)],
            None => e4m3(codes[index]),
        }
    }
}

/// How the factor of a block is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scale {
    /// There is none; the row's gain says all.
    None,
    /// A byte, not negative and not NaN.
    E4m3,
    /// A byte, a power of two.
    E8m0,
    /// Four bytes.
    F32,
    /// Eight bytes: a factor and an offset, both f32; the value is `code * factor + offset`.
    Affine,
}

impl Scale {
    /// Bytes of one block's scale.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::None => 0,
            Self::E4m3 | Self::E8m0 => 1,
            Self::F32 => 4,
            Self::Affine => 8,
        }
    }
}

/// How a matrix is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PackedFormat {
    /// How a value is coded.
    pub code: Code,
    /// How the factor of a block is coded.
    pub scale: Scale,
    /// Values of a row that share a scale: 16, 32, 64 or 128, and 0 without scales.
    pub block: usize,
}

impl PackedFormat {
    /// 4-bit floats in blocks of 16 with E4M3 scales.
    pub const NVFP4: Self = Self::new(Code::E2m1, Scale::E4m3, 16);
    /// 4-bit floats in blocks of 32 with powers of two.
    pub const MXFP4: Self = Self::new(Code::E2m1, Scale::E8m0, 32);
    /// 8-bit floats in blocks of 32 with powers of two.
    pub const MXFP8: Self = Self::new(Code::E4m3, Scale::E8m0, 32);
    /// 8-bit floats with one factor a row.
    pub const FP8: Self = Self::new(Code::E4m3, Scale::None, 0);
    /// 8-bit floats in blocks of 128.
    pub const FP8_BLOCK: Self = Self::new(Code::E4m3, Scale::F32, 128);

    /// A format.
    #[must_use]
    pub const fn new(code: Code, scale: Scale, block: usize) -> Self {
        Self { code, scale, block }
    }

    /// The factor and the offset of the block of `column`, from the scales of its row.
    #[must_use]
    pub fn scale(&self, scales: &[u8], column: usize) -> (f64, f64) {
        let word = |index: usize| {
            let bytes = [0, 1, 2, 3].map(|byte| scales[index * 4 + byte]);
            f64::from(f32::from_le_bytes(bytes))
        };
        match self.scale {
            Scale::None => (1.0, 0.0),
            Scale::E4m3 => (f64::from(e4m3(scales[column / self.block])), 0.0),
            Scale::E8m0 => (f64::from(e8m0(scales[column / self.block])), 0.0),
            Scale::F32 => (word(column / self.block), 0.0),
            Scale::Affine => {
                let block = column / self.block * 2;
                (word(block), word(block + 1))
            }
        }
    }
}
