//! The order for matrix units (`mma.sync.m16n8k16`, sm_80 and later): a lane reads in one load what it multiplies.
//!
//! * **Span**: the columns of four blocks, one for each `t = lane % 4`. A lane only ever meets its own block of a span,
//!   whose scale it holds itself.
//! * **Tile**: 16 rows x 64 columns of a span, 512 bytes of 4-bit codes, 16 bytes a lane. Lane `(g, t)`, `g = lane / 4`,
//!   holds rows `g` and `g + 8`; word `b` of its chunk `c` of the span has columns `16 c + 4 b .. + 4` of block `t` of
//!   both. One product of the matrix units takes word `b` of every lane, so its 16 columns are four of each block; the
//!   activations are taken in the same order.
//! * **Codes**: the eight values of a word are stored so that two instructions give two of them as bf16, scaled by
//!   2^-126: see `decode`. [`pack()`] solves for the stored bits.
//! * **Scales**: a lane's word has the bytes of rows `g` and `g + 8` for block `t` of two spans. E4M3 is stored with five
//!   exponent bits, so that it has no subnormal numbers; a block of scale 0 gets codes 0 instead.
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
    coding.e2m1 && matches!(coding.scaling, Scaling::E4m3 | Scaling::E8m0) && coding.block <= 32
}

/// How the values of a matrix in tiles are scaled. A part of a kernel's text, which sizes are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scaled {
    /// Values of a row that share a scale, 16 or 32.
    pub block: usize,
    /// Whether scales are powers of two.
    pub e8m0: bool,
}

impl Scaled {
    /// Tiles side by side in a pair of spans.
    #[must_use]
    pub const fn chunks(&self) -> usize {
        BLOCKS * self.block / COLUMNS
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
        Self {
            scaled: Scaled {
                block: coding.block,
                e8m0: coding.scaling == Scaling::E8m0,
            },
            tiles,
            pairs: shape.width.div_ceil(BLOCKS * coding.block),
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
        matrices * self.tiles * ROWS * self.columns() / 8
    }

    /// Words of their scales.
    #[must_use]
    pub fn scale_words(&self, matrices: usize) -> usize {
        matrices * self.tiles * self.pairs * 32
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
        if self.split { 2 } else { 1 }
    }
}
