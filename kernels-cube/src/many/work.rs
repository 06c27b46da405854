//! What a launch computes, and how cubes and planes share it.

use super::stage::STAGES;
use crate::matrix_units::Instructions;
use crate::packed::tiles::{ColumnOrder, Scaled};

/// Cubes that keep the multiprocessors of a large GPU busy.
const BUSY: usize = 384;
/// Cubes of two warpgroups that a GPU of warpgroups has room for.
const ALL: usize = 264;
/// Columns of one product of the matrix units.
pub(super) const GROUP: usize = 8;
/// Vectors of eight bf16 in a column of a chunk.
pub(super) const VECTORS: usize = 8;

/// How much a cube computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blocking {
    /// Planes below one another, each with tiles of its own.
    pub down: usize,
    /// Planes side by side, each with columns of its own.
    pub across: usize,
    /// Tiles of a plane.
    pub tiles: usize,
    /// Groups of eight columns of a plane.
    pub groups: usize,
}

impl Blocking {
    /// The blocking for about `columns` columns of a matrix with this many tiles below one another.
    ///
    /// Large blocks do more with what they load; small ones keep more multiprocessors busy.
    #[must_use]
    pub const fn of(columns: usize, tiles: usize) -> Self {
        let (down, tiles_each, groups) = match columns {
            0..=16 => (8, 1, 2),
            17..=32 => (8, 1, 4),
            33..=64 => (4, 1, 8),
            _ if tiles < BUSY * 8 && columns.div_ceil(128) * tiles.div_ceil(8) < BUSY => (4, 1, 8),
            _ => (4, 2, 16),
        };
        Self {
            down,
            across: 1,
            tiles: tiles_each,
            groups,
        }
    }

    /// The same for rows in an order.
    pub(super) const fn in_order(order: ColumnOrder, columns: usize, tiles: usize) -> Self {
        if matches!(order, ColumnOrder::Natural) {
            return Self::of(columns, tiles);
        }
        let mut groups = match columns {
            0..=16 => 2,
            17..=32 => 4,
            33..=64 => 8,
            _ => 16,
        };
        // Two warpgroups, and two cubes a multiprocessor; where that leaves multiprocessors without work, one warpgroup, then
        // fewer columns.
        let few = tiles < BUSY * 8 && columns.div_ceil(groups * GROUP) * tiles.div_ceil(8) < ALL;
        if tiles < BUSY * 8
            && groups > 8
            && columns.div_ceil(groups * GROUP) * tiles.div_ceil(4) < ALL
        {
            groups /= 2;
        }
        Self {
            down: if few || columns <= 16 { 4 } else { 8 },
            across: 1,
            tiles: 1,
            groups,
        }
    }

    /// Whether its planes are warpgroups, each with one or two tiles a plane and all columns of the cube.
    pub(super) const fn is_of_warpgroups(&self) -> bool {
        self.across == 1
            && self.down.is_multiple_of(4)
            && matches!(self.tiles, 1 | 2)
            && self.groups <= 32
    }

    /// Columns of a cube.
    #[must_use]
    pub const fn columns(&self) -> usize {
        self.across * self.groups * GROUP
    }

    pub(super) const fn planes(&self) -> usize {
        self.down * self.across
    }

    pub(super) const fn units(&self) -> usize {
        self.planes() * 32
    }

    /// Vectors of a chunk.
    pub(super) const fn vectors(&self) -> usize {
        self.columns() * VECTORS
    }

    /// Vectors of a chunk that a unit copies.
    pub(super) const fn copies(&self) -> usize {
        self.vectors().div_ceil(self.units())
    }
}

/// What a launch computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Mode {
    /// One matrix, all rows.
    Dense,
    /// `silu(gate) * up` of the listed rows.
    GateUp,
    /// The listed rows with their weights, each for itself.
    Down,
}

/// How weights lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// Packed tiles.
    Tiles {
        /// How their values are scaled.
        scaled: Scaled,
        /// Whether the product is added to rows.
        onto: bool,
    },
    /// Rows of bf16.
    Rows {
        /// Whether several rows of `x` make an output row.
        taps: bool,
        /// Whether something is added to an output row.
        bias: bool,
        /// Whether the product is added to rows.
        onto: bool,
    },
}

impl Form {
    pub(super) const fn is_tiles(self) -> bool {
        matches!(self, Self::Tiles { .. })
    }

    pub(super) const fn has_taps(self) -> bool {
        matches!(self, Self::Rows { taps: true, .. })
    }

    pub(super) const fn has_bias(self) -> bool {
        matches!(self, Self::Rows { bias: true, .. })
    }

    pub(super) const fn has_onto(self) -> bool {
        matches!(
            self,
            Self::Tiles { onto: true, .. } | Self::Rows { onto: true, .. }
        )
    }

    /// The scales of tiles.
    pub(super) const fn scaled(self) -> Scaled {
        match self {
            Self::Tiles { scaled, .. } => scaled,
            Self::Rows { .. } => panic!("rows have no scales"),
        }
    }
}

/// What a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Work {
    pub(super) mode: Mode,
    pub(super) form: Form,
    pub(super) blocking: Blocking,
    /// Whether two columns are one row of activations.
    pub(super) split: bool,
    pub(super) instructions: Instructions,
}

impl Work {
    pub(super) const fn halves(&self) -> usize {
        if self.split { 2 } else { 1 }
    }

    /// Listed rows that a cube writes.
    pub(super) const fn targets(&self) -> usize {
        match self.mode {
            Mode::Down => self.blocking.columns() / self.halves(),
            Mode::Dense | Mode::GateUp => 1,
        }
    }

    /// Copies of a chunk whose rows are listed.
    pub(super) const fn sources(&self) -> usize {
        match self.mode {
            Mode::GateUp => self.blocking.copies() * self.blocking.units(),
            Mode::Dense | Mode::Down => 1,
        }
    }

    /// Chunks that are copied before they are multiplied. Where products of a chunk are still under way when the next one
    /// begins, its place is not free yet.
    pub(super) const fn ahead(&self) -> usize {
        if self.instructions.are_of_warpgroups() {
            STAGES - 2
        } else {
            STAGES - 1
        }
    }

    /// Half chunks of weights in rows that are loaded before they are multiplied: small blocks have registers for some, and little
    /// else to do until they come.
    pub(super) const fn halves_ahead(&self) -> usize {
        let size = self.blocking.tiles * self.blocking.groups;
        // Compilers of plain code have enough to do with a quarter of that.
        let size = match self.instructions {
            Instructions::Plain => size * 4,
            _ => size,
        };
        match size {
            0..=8 => 4,
            9..=16 => 2,
            _ => 1,
        }
    }

    /// Bytes of which the place of the columns is a multiple.
    pub(super) const fn alignment(&self) -> usize {
        if self.instructions.are_of_warpgroups() {
            1024
        } else {
            16
        }
    }

    /// Which vectors of a column change places in every other column: the lanes of a plane read the same vectors of
    /// neighbouring columns, two a lane from tiles and one a lane from rows, and are to meet different banks.
    pub(super) const fn swizzle(&self) -> usize {
        if self.form.is_tiles() { 1 } else { 4 }
    }
}
