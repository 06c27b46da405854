//! The next token of some scores, chosen on the device: repetition penalty, bans, temperature, top-k, top-p and one draw, in
//! this order, as transformers' processors have it.
//!
//! What tokens are chosen by lies on the device ([`Chooser::start`]), and what changes with every token is changed there: a
//! captured launch serves every request. Scores become whole numbers in the same order.
//!
//! Up to [`SMALL`] scores are one launch of one cube. More are two: many cubes penalize them and find the largest of every
//! group, then one cube looks into the groups only that can have candidates. For it the largest keys of 256 parts are
//! compared with one another: the `top_k` largest keys are not below the `top_k`-th of these, and few others are. What
//! is left is compared with one another too. Where that is much, limits are found digit by digit instead, from counts or from
//! weights in fixed point. No result depends on the order in which units add.

mod compare;
mod digits;
mod finish;
mod random;
pub mod rules;
mod score;
mod units;

use cubecl::bytes::Bytes;
use cubecl::prelude::*;

use crate::Buffer;
use crate::control::Control;

/// Scores that one launch chooses among: they fit into the shared memory of a cube.
pub const SMALL: usize = 4096;
/// Groups of more scores: their list fits there.
const GROUPS: usize = 4096;
/// Scores of a group at least.
const GROUP: usize = 64;
/// Scores at most, so that no sum of weights overflows.
pub const MOST: usize = (1 << 18) - 1;

/// How tokens are chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Choosing {
    /// Divisor of the scores; 0 chooses the first of the largest, and nothing is drawn.
    pub temperature: f32,
    /// Only so many of the largest are candidates, and those that equal the last of them; 0 is all.
    pub top_k: u32,
    /// Only the smallest set of candidates whose probabilities reach this stays; 1 is all.
    pub top_p: f32,
    /// Positive scores of `seen` tokens are divided by this, negative ones multiplied.
    pub penalty: f32,
    /// Key of the random numbers: the low half first.
    pub seed: [u32; 2],
    /// Which of many streams of them.
    pub stage: u32,
    /// Numbers that were drawn before.
    pub draws: u64,
    /// Tokens that occurred. The chosen ones are added on the device.
    pub seen: Vec<u32>,
    /// Tokens that are not chosen.
    pub banned: Vec<u32>,
    /// Choices for which that holds; `u32::MAX` for all.
    pub bans: u32,
}

impl Choosing {
    /// The first of the largest scores, always.
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        penalty: 1.0,
        seed: [0; 2],
        stage: 0,
        draws: 0,
        seen: Vec::new(),
        banned: Vec::new(),
        bans: u32::MAX,
    };
}

// Where what lies in the state.
const TEMPERATURE: usize = 0;
const TOP_K: usize = 1;
const TOP_P: usize = 2;
const PENALTY: usize = 3;
const SEED: usize = 4;
const STAGE: usize = 6;
const DRAWS: usize = 7;
const BANS: usize = 9;
/// Tokens chosen since the start.
const CHOSEN: usize = 10;
/// Bits of the tokens that occurred; behind them those of the banned ones.
const SEEN: usize = 16;

/// Chooses tokens of one vocabulary.
#[derive(Clone, Debug)]
pub struct Chooser {
    vocabulary: usize,
    form: Form,
    /// Scores in whole numbers, zero behind the vocabulary, and the largest of each group.
    keys: Buffer,
    peaks: Buffer,
    state: Buffer,
}

/// Where a choice goes.
#[derive(Clone, Copy, Debug)]
pub enum Chosen<'a> {
    /// It is remembered as the last token, which moves on to the next position.
    Token(&'a Control),
    /// It becomes one of some codes, u32.
    Code(&'a Buffer, usize),
}

/// What the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Form {
    /// Units of the cube that chooses, a square of a power of two.
    units: usize,
    /// Scores of a group; zero where all are in shared memory.
    group: usize,
    /// Numbers in shared memory.
    room: usize,
    /// Whether the choice is a token of [`Control`].
    moves: bool,
}

impl Form {
    /// Units whose sums are one sum.
    fn side(self) -> usize {
        1 << (self.units.ilog2() / 2)
    }
}

impl Chooser {
    /// Chooses greedily until it is started.
    ///
    /// # Panics
    /// When there are more than [`MOST`] tokens.
    #[must_use]
    pub fn new(client: &Client, vocabulary: usize) -> Self {
        assert!(vocabulary <= MOST, "{vocabulary} tokens are too many");
        let most = client.properties().hardware.max_units_per_cube;
        let units = if most >= 1024 { 1024 } else { 256 };
        let form = if vocabulary <= SMALL {
            Form {
                units,
                group: 0,
                room: vocabulary.next_power_of_two(),
                moves: false,
            }
        } else {
            Form {
                units,
                group: vocabulary.div_ceil(GROUPS).next_power_of_two().max(GROUP),
                room: GROUPS,
                moves: false,
            }
        };
        let groups = match form.group {
            0 => 1,
            group => vocabulary.div_ceil(group),
        };
        let room = |count| Buffer::empty(client, u32::elem_type_native(), count);
        Self {
            keys: room(groups * form.group),
            peaks: room(groups),
            state: Buffer::numbers(client, &words(&Choosing::GREEDY, vocabulary)),
            vocabulary,
            form,
        }
    }

    /// Chooses in this way from now on.
    pub fn start(&self, client: &Client, choosing: &Choosing) {
        let words = words(choosing, self.vocabulary);
        client.write(&self.state.handle, Bytes::from_elems(words));
    }

    /// Chooses a token; `u32::MAX` where a score, banned or not, is NaN or infinite.
    ///
    /// - scores: f32 `[vocabulary]`
    pub fn launch(&self, client: &Client, scores: &Buffer, chosen: Chosen<'_>) {
        if self.form.group > 0 {
            score::launch(client, self, scores);
        }
        finish::launch(client, self, scores, chosen);
    }

    fn groups(&self) -> usize {
        match self.form.group {
            0 => 0,
            group => self.vocabulary.div_ceil(group),
        }
    }
}

/// Words of a bit a token.
const fn marks(vocabulary: usize) -> usize {
    vocabulary.div_ceil(32)
}

/// The state of a chooser.
fn words(choosing: &Choosing, vocabulary: usize) -> Vec<u32> {
    let mut words = vec![0; SEEN + 2 * marks(vocabulary)];
    words[TEMPERATURE] = choosing.temperature.to_bits();
    words[TOP_K] = choosing.top_k;
    words[TOP_P] = choosing.top_p.to_bits();
    words[PENALTY] = choosing.penalty.to_bits();
    words[SEED..SEED + 2].copy_from_slice(&choosing.seed);
    words[STAGE] = choosing.stage;
    words[DRAWS] = choosing.draws as u32;
    words[DRAWS + 1] = (choosing.draws >> 32) as u32;
    words[BANS] = choosing.bans;
    let lists = [&choosing.seen, &choosing.banned];
    for (first, ids) in [SEEN, SEEN + marks(vocabulary)].into_iter().zip(lists) {
        for id in ids.iter().map(|id| *id as usize) {
            // Tokens that have no score cannot be chosen either.
            if id < vocabulary {
                words[first + id / 32] |= 1 << (id % 32);
            }
        }
    }
    words
}
