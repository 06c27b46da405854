//! What a launch computes, and how its planes share it.

use cubecl::client::Client;

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
/// Vectors of weights that a plane has room for.
const ROOM: usize = 8;
/// Pairs whose activations a plane has room for.
const EARLY: usize = 3;
/// Columns that a plane takes of gates and what they gate.
const GATED: usize = 256;
/// Turns that planes take to ask for weights of down, and of gates: measured, see benches/NOTES.md.
const TURNS: [usize; 2] = [6, 2];
/// Bytes of a cube's weights for which turns are a cycle apart. A multiprocessor of an H200 gets about 18 in a cycle; turns
/// that are shorter than what they ask for takes were best. Measured on no other card.
const BYTES_A_CYCLE: usize = 25;
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
            Self::Tiles(scaled) => scaled.chunks() * scaled.vectors(),
            Self::Rows { .. } => 2 * DENSE / 32,
        }
    }

    pub(super) const fn is_tiles(self) -> bool {
        matches!(self, Self::Tiles(_))
    }

    /// Vectors of activations of a column between one of its four lanes and the next.
    pub(super) const fn apart(self) -> usize {
        match self {
            Self::Tiles(scaled) => scaled.block / 8,
            Self::Rows { .. } => 1,
        }
    }

    /// Where the `n`-th vector of activations of a lane and a pair is behind its first.
    pub(super) const fn vector(self, n: usize) -> usize {
        match self {
            // Two of a chunk of 64 columns, or four where a block is in two chunks; a span behind is the next.
            Self::Tiles(scaled) if scaled.block == 16 => n / 2 * 8 + n % 2,
            Self::Tiles(_) => n / 4 * 16 + n % 4,
            Self::Rows { .. } => n * 4,
        }
    }

    /// Words of scales that a lane takes of a tile in one step.
    pub(super) const fn scales(self) -> usize {
        match self {
            Self::Tiles(scaled) => scaled.scale_words(),
            Self::Rows { .. } => 0,
        }
    }

    /// Whether codes have 8 bits.
    pub(super) const fn is_bytes(self) -> bool {
        matches!(self, Self::Tiles(Scaled { bytes: true, .. }))
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
    /// Whether there is but one row of activations.
    pub(super) single: bool,
    pub(super) planes: usize,
    /// Planes of one expert.
    pub(super) of_expert: usize,
    /// Pairs that a plane sums; of those of all chosen experts together, if they are chosen.
    pub(super) each: usize,
    /// Whether the last plane has less.
    pub(super) ragged: bool,
    /// If the input is yet to be divided by its root mean square: how many sums of squares a lane adds.
    pub(super) squares: Option<usize>,
    /// Whether the output is added to the residual row, and prepared for the next product.
    pub(super) residual: bool,
    /// Whether the outputs of several rows are added to others.
    pub(super) onto: bool,
    /// Whether a list says which experts.
    pub(super) listed: bool,
    /// Whether there are more columns than a cube takes.
    pub(super) blocks: bool,
    /// Whether a plane has room for all its weights, and loads them before it multiplies any.
    pub(super) stays: bool,
    /// Whether it loads its activations before them: what a plane asks for comes back in the order of asking, and the
    /// second cache has activations.
    pub(super) early: bool,
    /// Vectors of its weights that it asks for last, and multiplies the others meanwhile.
    pub(super) late: usize,
    /// How many turns planes take at most to ask for their weights, see [`turn`](super::turn).
    pub(super) turns: usize,
    /// Whether packed weights pass the first cache by.
    pub(super) passes: bool,
    /// Whether lanes without a column jump over the loads of activations.
    pub(super) jumps: bool,
}

/// Tiles of a cube, and pairs of a plane if there are as many.
const fn shape(mode: Mode, form: Form, [tall, single]: [bool; 2], jobs: usize) -> (usize, usize) {
    // Many planes with a pair each hide latency better than few with many; where there are many cubes, fewer and
    // longer planes cost less. Measured: see benches/NOTES.md.
    match mode {
        Mode::Dense if tall && form.is_bytes() => (ROOM / form.vectors(), 1),
        Mode::Dense if tall && form.is_tiles() && single => (1, 2),
        Mode::Dense if tall && form.is_tiles() => (2, 2),
        Mode::Dense if tall => (1, 4),
        Mode::GateUp if form.is_tiles() && jobs == 1 => (1, GATED / form.pair()),
        Mode::GateUp if form.is_tiles() => (2, GATED / form.pair()),
        Mode::Down if jobs > 2 && form.is_bytes() => (2, 4),
        Mode::Down if jobs > 2 && form.is_tiles() => (4, 4),
        Mode::Dense | Mode::GateUp | Mode::Down => (1, 1),
    }
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
        let bytes = form.is_bytes();
        let tall = mode == Mode::Dense && weights.tiles(mode) >= TALL;
        let single = columns == if split { 2 } else { 1 };
        let (tiles, wanted) = shape(mode, form, [tall, single], jobs);
        let all = slots * pairs;
        let wanted = all.div_ceil(PLANES).max(wanted).min(pairs);
        // The pairs of a plane are of one expert.
        let each = (wanted..=pairs).find(|each| slots == 1 || pairs.is_multiple_of(*each));
        let each = each.unwrap_or(pairs);
        // One row of activations through many experts, and a vocabulary: a cube on its own has too little to do to hide what
        // its loads wait for; and scales of 8-bit codes, which the compiler loads late. Elsewhere its order was faster.
        let once = mode != Mode::Dense && jobs == 1;
        let patient = once || tall || (bytes && form.scales() > 0);
        let stays = form.is_tiles() && each * tiles * form.vectors() <= ROOM && patient;
        let ragged = !all.is_multiple_of(each);
        let early = form.is_tiles()
            && tiles == 1
            && each <= EARLY
            && (once || mode == Mode::Dense && single && !tall);
        // Others gain nothing by it or lose. Measured: see benches/NOTES.md. What is early has one tile.
        let in_parts = mode == Mode::Down && single && stays && early && !ragged;
        Self {
            mode,
            form,
            tiles,
            groups: columns.div_ceil(COLUMNS),
            split,
            single,
            planes: all.div_ceil(each),
            of_expert: all.div_ceil(each) / slots,
            each,
            ragged,
            squares: None,
            residual: false,
            onto: false,
            listed: false,
            blocks: false,
            stays,
            early,
            late: if in_parts {
                each * form.vectors() / 2
            } else {
                0
            },
            turns: match mode {
                Mode::Down if in_parts => TURNS[0],
                Mode::GateUp if tiles > 1 && single => TURNS[1],
                Mode::Dense | Mode::GateUp | Mode::Down => 1,
            },
            passes: match mode {
                Mode::Dense => single || tall && !bytes,
                Mode::GateUp | Mode::Down => once,
            },
            // Where all loads of tiles come first, the jump is in their way; rows have no registers left for more columns. Not
            // below a condition: a compiler that made two of it would find the names of its registers twice.
            jumps: mode == Mode::Dense
                && all.is_multiple_of(each)
                && if form.is_tiles() { !patient } else { single },
        }
    }

    /// The experts are those of so many rows of activations: planes take turns for one, several have many more cubes.
    pub(super) const fn of_rows(mut self, rows: usize) -> Self {
        if rows > 1 {
            self.turns = 1;
        }
        self
    }

    /// There are so many cubes: planes take turns where they are enough to keep the memory busy.
    pub(super) fn crowded(mut self, client: &Client, cubes: usize) -> Self {
        let multiprocessors = client.properties().hardware.num_streaming_multiprocessors;
        if cubes < multiprocessors.unwrap_or(0) as usize * 3 / 4 {
            self.turns = 1;
        }
        self
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

    /// How a load of weights passes the caches: packed ones are read once, so that the first cache has no use for them; of
    /// rows of bf16 it holds a line for the next load, which brings its neighbour along.
    pub(super) const fn hints(&self) -> &'static str {
        match self.form {
            Form::Tiles(_) if self.passes => ".L1::no_allocate",
            Form::Tiles(_) => "",
            Form::Rows { .. } => ".L1::evict_first.L2::128B",
        }
    }

    /// Cycles of a turn.
    pub(super) const fn turn(&self) -> usize {
        let vectors = self.planes * self.each * self.tiles * self.form.vectors();
        vectors * 32 * 16 / self.turns / BYTES_A_CYCLE
    }

    /// Whether vector number `n` of the plane's weights is one of the last.
    pub(super) const fn is_late(&self, n: usize) -> bool {
        n + self.late >= self.each * self.form.vectors() && self.late > 0
    }

    /// Which of `count` loads is the `n`-th.
    pub(super) const fn nth(&self, n: usize, count: usize) -> usize {
        if self.stays { n } else { count - 1 - n }
    }

    /// How many pairs a step's loads are ahead of the one from which they count.
    pub(super) const fn ahead(&self, step: usize) -> usize {
        if self.ragged { 0 } else { step }
    }

    /// Vectors of activations of a pair.
    pub(super) const fn values(&self) -> usize {
        self.groups * self.form.pair() / 32
    }

    pub(super) const fn halves(&self) -> usize {
        if self.split { 2 } else { 1 }
    }

    /// Numbers that a plane adds to the sums of the cube.
    pub(super) const fn parts(&self) -> usize {
        if self.single {
            self.tiles * ROWS
        } else {
            self.tiles * self.groups * COLUMNS * ROWS
        }
    }

    /// Numbers that all planes add; of one row, what both halves of a plane's lanes read.
    pub(super) const fn all_parts(&self) -> usize {
        (self.planes * self.parts()).next_multiple_of(2 * ROWS)
    }

    /// How often the first plane adds, two tiles at a time.
    pub(super) const fn rounds(&self) -> usize {
        self.tiles.div_ceil(2)
    }
}
