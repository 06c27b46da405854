//! What a launch computes, and how its planes share it.

use super::{Row, Weights};
use crate::packed::tiles::Scaled;

/// Planes of a cube at most.
const PLANES: usize = 32;
/// Tiles from which on a matrix is tall: a vocabulary's.
const TALL: usize = 2048;
/// Columns of the second operand.
pub(super) const COLUMNS: usize = 8;
/// Rows of a tile.
pub(super) const ROWS: usize = 16;
/// Columns of a pair of dense rows.
const DENSE: usize = 128;

/// What a launch computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Mode {
    /// One matrix.
    Dense,
    /// The chosen experts of each row: `silu(gate) * up`.
    GateUp,
    /// The chosen experts of each row, their weighted sum.
    Down,
}

/// How weights lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// Packed tiles.
    Tiles(Scaled),
    /// Rows of bf16, 16-byte aligned; `partial` when their width is no multiple of a pair.
    Rows { partial: bool },
}

impl Form {
    /// Columns that a plane takes in one step.
    pub(super) const fn pair(self) -> usize {
        match self {
            Self::Tiles(scaled) => scaled.chunks() * 64,
            Self::Rows { .. } => DENSE,
        }
    }

    /// Vectors of 16 bytes of weights that a lane takes of a tile in one step.
    pub(super) const fn vectors(self) -> usize {
        match self {
            Self::Tiles(scaled) => scaled.chunks(),
            Self::Rows { .. } => 2 * DENSE / 32,
        }
    }

    pub(super) const fn is_tiles(self) -> bool {
        matches!(self, Self::Tiles(_))
    }

    pub(super) const fn is_partial(self) -> bool {
        matches!(self, Self::Rows { partial: true })
    }

    /// The scales of tiles.
    pub(super) const fn scaled(self) -> Scaled {
        match self {
            Self::Tiles(scaled) => scaled,
            Self::Rows { .. } => panic!("rows have no scales"),
        }
    }
}

/// What a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Work {
    pub(super) mode: Mode,
    pub(super) form: Form,
    /// Tiles of a cube.
    pub(super) tiles: usize,
    /// Groups of eight columns.
    pub(super) groups: usize,
    /// Whether two columns are one row of activations.
    pub(super) split: bool,
    pub(super) planes: usize,
    /// Pairs that a plane sums; of those of all chosen experts together, if they are chosen.
    pub(super) each: usize,
    /// Whether the last plane has less.
    pub(super) ragged: bool,
    /// If the input is yet to be divided by its root mean square: how many sums of squares a lane adds.
    pub(super) squares: Option<usize>,
    /// Whether the output is added to the residual row, and prepared for the next product.
    pub(super) residual: bool,
    /// Whether a list says which experts.
    pub(super) listed: bool,
    /// Whether what the next launch reads is brought into the cache.
    pub(super) warms: bool,
    /// Whether there are more columns than a cube takes.
    pub(super) blocks: bool,
}

impl Work {
    /// The work of `jobs` jobs of `columns` columns and `slots` experts each.
    pub(super) fn new(
        mode: Mode,
        weights: &Weights,
        split: bool,
        [jobs, columns, slots]: [usize; 3],
    ) -> Self {
        let (form, pairs) = (weights.form(), weights.pairs());
        // Many planes with a pair each hide latency better than few with many; where there are many cubes, fewer and
        // longer planes cost less. Measured: see benches/NOTES.md.
        let (tiles, wanted) = match mode {
            Mode::Dense if weights.tiles(mode) >= TALL && form.is_tiles() => (2, 2),
            Mode::Dense if weights.tiles(mode) >= TALL => (1, 4),
            Mode::GateUp if form.is_tiles() => (2, 2),
            Mode::Down if jobs > 2 && form.is_tiles() => (4, 4),
            Mode::Dense | Mode::GateUp | Mode::Down => (1, 1),
        };
        let all = slots * pairs;
        let wanted = all.div_ceil(PLANES).max(wanted).min(pairs);
        // The pairs of a plane are of one expert.
        let each = (wanted..=pairs).find(|each| slots == 1 || pairs.is_multiple_of(*each));
        let each = each.unwrap_or(pairs);
        Self {
            mode,
            form,
            tiles,
            groups: columns.div_ceil(COLUMNS),
            split,
            planes: all.div_ceil(each),
            each,
            ragged: !all.is_multiple_of(each),
            squares: None,
            residual: false,
            listed: false,
            warms: false,
            blocks: false,
        }
    }

    /// Cubes have blocks of columns of their own.
    pub(super) const fn in_blocks(mut self, blocks: bool) -> Self {
        self.blocks = blocks;
        self
    }

    /// Columns of a cube at most.
    pub(super) const fn columns(&self) -> usize {
        self.groups * COLUMNS
    }

    /// The input is a row that is yet to be divided by its root mean square.
    pub(super) const fn normed(mut self, row: &Row) -> Self {
        self.squares = Some(row.width.div_ceil(ROWS).div_ceil(32));
        self
    }

    pub(super) const fn is_normed(&self) -> bool {
        self.squares.is_some()
    }

    /// How many sums of squares a lane adds.
    pub(super) const fn squares(&self) -> usize {
        match self.squares {
            Some(squares) => squares,
            None => 0,
        }
    }

    /// A residual row is written by one plane, a tile a cube.
    pub(super) const fn residual(mut self) -> Self {
        self.tiles = 1;
        self.residual = true;
        self
    }

    pub(super) const fn halves(&self) -> usize {
        if self.split { 2 } else { 1 }
    }

    /// Numbers that a plane adds to the sums of the cube.
    pub(super) const fn parts(&self) -> usize {
        self.tiles * self.groups * COLUMNS * ROWS
    }

    /// Rows whose gains differ: those of the cube, and if its planes have different experts, of each plane.
    pub(super) const fn gains(&self) -> usize {
        match self.mode {
            Mode::Down => self.planes * self.tiles * ROWS,
            Mode::Dense | Mode::GateUp => self.tiles * ROWS,
        }
    }
}
