//! Products with matrices of 4- and 8-bit values.
//!
//! There are two orders in memory. **Rows**: as in the checkpoint, read by kernels that run everywhere. **Tiles**: what
//! the matrix units of NVIDIA GPUs take without a detour, see [`tiles`]. [`Order::of`] says which one a device uses.

pub mod rows;
pub mod tiles;

use cubecl::prelude::*;

/// Columns of a row are stored in multiples of this many.
pub const COLUMNS: usize = 64;

/// How the factor of a block is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scaling {
    /// There is none.
    None,
    /// A byte of four exponent and three mantissa bits, bias 7.
    E4m3,
    /// A byte, a power of two, bias 127.
    E8m0,
    /// An f32.
    F32,
    /// An f32 factor and an f32 offset.
    Affine,
}

/// How a matrix is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Coding {
    /// Whether a code is an E4M3 byte; otherwise it has 4 bits.
    pub bytes: bool,
    /// Whether a 4-bit code is E2M1.
    pub e2m1: bool,
    /// How the factor of a block is coded.
    pub scaling: Scaling,
    /// Values of a row that share a factor.
    pub block: usize,
}

/// The sizes of one or several matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Matrices that follow one another.
    pub matrices: usize,
    /// Rows of one.
    pub rows: usize,
    /// Columns of one.
    pub width: usize,
    /// Whether the first half of the rows are gates and the second half what they gate.
    pub gated: bool,
}

/// The order of a matrix in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// Row after row.
    Rows,
    /// Tiles for matrix units.
    Tiles,
}

impl Order {
    /// The order for a device and a coding.
    #[must_use]
    pub fn of(client: &Client, coding: Coding) -> Self {
        if tiles::runs_on(client) && tiles::holds(coding) {
            Self::Tiles
        } else {
            Self::Rows
        }
    }
}
