//! The order for matrix units (`mma.sync.m16n8k16`, sm_80 and later): a lane reads in one load what it multiplies.
//!
//! * **Span**: the columns of four blocks, one for each `t = lane % 4`. A lane only ever meets its own block of a span,
//!   whose scale it holds itself. Where a scale is of more columns, or of all, a block has 16 of them.
//! * **Tile**: 16 rows x 64 columns of a span. Lane `(g, t)`, `g = lane / 4`, holds rows `g` and `g + 8`; part `b` of its
//!   chunk `c` of the span has columns `16 c + 4 b .. + 4` of block `t` of both. One product of the matrix units takes part
//!   `b` of every lane, so its 16 columns are four of each block; the activations are taken in the same order.
//! * **Codes** of 4 bits: 512 bytes a tile, 16 bytes a lane, a part is a word. Its eight values are stored so that two
//!   instructions give two of them as bf16, scaled by 2^-126. Of 8 bits: twice that, first parts 0 and 1 of all lanes, then
//!   2 and 3; a part is a word of row `g` and one of row `g + 8`, of which four instructions give all values, scaled by
//!   2^-120. See `decode`; [`pack()`] solves for the stored bits.
//! * **Scales** of 8 bits: a lane's word has the bytes of rows `g` and `g + 8` for block `t` of two spans. E4M3 is stored
//!   with five exponent bits, so that it has no subnormal numbers; a block of scale 0 gets codes 0 instead. Scales of f32,
//!   of 128 columns: those of the 16 rows for two spans, not 0 either.
//! * **Rows** of a gated matrix alternate: gate rows in the upper half of a tile, what they gate in the lower half.
//!
//! Rows are padded to 16 (of a gated matrix, halves to 8), columns to two spans.

pub mod activations;
pub(crate) mod decode;
mod pack;
pub mod scaled;

use cubecl::features::MmaConfig;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;

pub use pack::{pack, unpack};

use super::{Coding, Scaling, Shape};
use crate::Buffer;

/// Rows of a tile.
pub const ROWS: usize = 16;
/// Columns of a tile.
pub const COLUMNS: usize = 64;
/// Blocks that share a load of scales: four blocks a span, two spans.
pub(crate) const BLOCKS: usize = 8;
/// Columns of a short block.
const SHORT: usize = 16;

/// Whether a device has the instructions: an NVIDIA GPU from sm_80 on.
#[must_use]
pub fn runs_on(client: &Client) -> bool {
    let operand = ElemType::Float(FloatKind::BF16);
    let mma = MmaConfig {
        a_type: operand,
        b_type: operand,
        cd_type: ElemType::Float(FloatKind::F32),
        m: 16,
        n: 8,
        k: 16,
    };
    client.name() == "cuda" && client.properties().features.matmul.mma.contains(&mma)
}

/// Whether a coding can be stored in tiles.
#[must_use]
pub fn holds(coding: Coding) -> bool {
    match coding.scaling {
        Scaling::E4m3 => coding.e2m1 && coding.block == SHORT,
        Scaling::E8m0 => (coding.e2m1 || coding.bytes) && coding.block == 32,
        Scaling::None => coding.bytes,
        Scaling::F32 => coding.bytes && coding.block == BLOCKS * SHORT,
        Scaling::Affine => false,
    }
}

/// How the values of a matrix in tiles are coded and scaled. A part of a kernel's text, which sizes are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scaled {
    /// Columns of a lane's block, 16 or 32; where there are fewer scales, 16.
    pub block: usize,
    /// How scales are coded.
    pub scaling: Scaling,
    /// Whether codes have 8 bits.
    pub bytes: bool,
}

impl Scaled {
    /// Tiles side by side in a pair of spans.
    #[must_use]
    pub const fn chunks(&self) -> usize {
        BLOCKS * self.block / COLUMNS
    }

    /// Vectors of 16 bytes of a tile that a lane holds.
    #[must_use]
    pub const fn vectors(&self) -> usize {
        if self.bytes { 2 } else { 1 }
    }

    /// Whether scales are powers of two.
    #[must_use]
    pub const fn e8m0(&self) -> bool {
        matches!(self.scaling, Scaling::E8m0)
    }

    /// Whether decoded values are multiplied with the scales of their blocks, which bf16 holds exactly.
    pub(crate) const fn in_values(&self) -> bool {
        matches!(self.scaling, Scaling::E4m3 | Scaling::E8m0)
    }

    /// Whether a pair of spans has a scale of f32 for each row, which sums are multiplied with.
    pub(crate) const fn in_sums(&self) -> bool {
        matches!(self.scaling, Scaling::F32)
    }

    /// Words of scales that a lane reads of a tile and a pair of spans.
    pub(crate) const fn scale_words(&self) -> usize {
        match self.scaling {
            Scaling::None => 0,
            Scaling::E4m3 | Scaling::E8m0 => 1,
            Scaling::F32 | Scaling::Affine => 2,
        }
    }

    /// What undoes the scaling of decoded values.
    pub(crate) const fn restore(&self) -> f32 {
        if self.bytes {
            decode::RESTORE_BYTES
        } else {
            decode::RESTORE
        }
    }
}

/// The sizes of matrices in tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// The scales.
    pub scaled: Scaled,
    /// Tiles below one another in one matrix.
    pub tiles: usize,
    /// Pairs of spans side by side.
    pub pairs: usize,
}

impl Tiling {
    /// The tiling of matrices.
    #[must_use]
    pub fn new(coding: Coding, shape: Shape) -> Self {
        let tiles = if shape.gated {
            (shape.rows / 2).div_ceil(ROWS / 2)
        } else {
            shape.rows.div_ceil(ROWS)
        };
        let block = if matches!(coding.scaling, Scaling::E4m3 | Scaling::E8m0) {
            coding.block
        } else {
            SHORT
        };
        Self {
            scaled: Scaled {
                block,
                scaling: coding.scaling,
                bytes: coding.bytes,
            },
            tiles,
            pairs: shape.width.div_ceil(BLOCKS * block),
        }
    }

    /// Columns of a row, padding included.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.pairs * BLOCKS * self.scaled.block
    }

    /// Words of the codes of `matrices` matrices.
    #[must_use]
    pub fn code_words(&self, matrices: usize) -> usize {
        let values = if self.scaled.bytes { 4 } else { 8 };
        matrices * self.tiles * ROWS * self.columns() / values
    }

    /// Words of their scales; one where there are none, since no buffer is empty.
    #[must_use]
    pub fn scale_words(&self, matrices: usize) -> usize {
        let tiles = matrices * self.tiles * self.pairs;
        match self.scaled.scaling {
            Scaling::None => 1,
            Scaling::E4m3 | Scaling::E8m0 => tiles * 32,
            Scaling::F32 | Scaling::Affine => tiles * ROWS,
        }
    }
}

/// Tiled matrices on the device.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// [`Tiling::code_words`] words.
    pub codes: Buffer,
    /// [`Tiling::scale_words`] words.
    pub scales: Buffer,
    /// A factor a row, f32.
    pub gains: Buffer,
    /// The sizes.
    pub tiling: Tiling,
    /// Rows of one matrix that are not padding.
    pub rows: usize,
}

/// The order of the numbers of a row of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ColumnOrder {
    /// As the columns of a matrix follow one another.
    Natural,
    /// As the products of warpgroups take them from a span of blocks of this size: in a chunk of 64, first columns 0 and
    /// 1 of each of the four blocks, then 2 and 3 of each, and so on; a block of 32 has its first 16 columns in one chunk
    /// and its last in the next.
    Products(usize),
}

/// How rows are rounded to bf16 for a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rounding {
    /// The order in a row.
    pub order: ColumnOrder,
    /// Whether each row is followed by what rounding took away from it.
    pub split: bool,
}

impl Rounding {
    /// Rows in the order of columns.
    #[must_use]
    pub const fn natural(split: bool) -> Self {
        Self {
            order: ColumnOrder::Natural,
            split,
        }
    }

    /// Rows of bf16 that are one row of activations.
    #[must_use]
    pub const fn halves(self) -> usize {
        if self.split { 2 } else { 1 }
    }

    /// Panics where rows of this width are no whole spans, in which the order of products puts numbers elsewhere.
    pub(crate) fn fits(self, width: usize) {
        let span = match self.order {
            ColumnOrder::Natural => 1,
            ColumnOrder::Products(block) => BLOCKS / 2 * block,
        };
        assert!(
            width.is_multiple_of(span),
            "rows of {width} numbers are no spans of {span}"
        );
    }
}

/// Rows of bf16, [`Tiling::columns`] each.
#[derive(Clone, Debug)]
pub struct Activations {
    /// `[rows, 1 or 2, columns]`.
    pub buffer: Buffer,
    /// The order in a row.
    pub order: ColumnOrder,
    /// Whether a row is two: the values rounded, and what the rounding took away, so that the sum has 16 significant
    /// bits.
    pub split: bool,
}

impl Activations {
    /// Rows in the order of columns.
    #[must_use]
    pub const fn new(buffer: Buffer, split: bool) -> Self {
        Self {
            buffer,
            order: ColumnOrder::Natural,
            split,
        }
    }

    /// Rows of bf16 that are one row of activations.
    #[must_use]
    pub const fn halves(&self) -> usize {
        self.rounding().halves()
    }

    /// Rows that were rounded in this way.
    #[must_use]
    pub const fn rounded(buffer: Buffer, rounding: Rounding) -> Self {
        Self {
            buffer,
            order: rounding.order,
            split: rounding.split,
        }
    }

    /// How they are rounded.
    #[must_use]
    pub const fn rounding(&self) -> Rounding {
        Rounding {
            order: self.order,
            split: self.split,
        }
    }
}
