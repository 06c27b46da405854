//! Where the next token of an answer comes from: a step that the device captured, or one pass after another.

use burn_omni_model::thinker::{Rows, TextState, Thinker};
use burn_omni_ops::decode::{Choosing, DecodeError, Decoder, NodeTime, Place};

use crate::Error;
use crate::exclusive::{Exclusive, Taken};
use crate::kept::KeptThinker;
use crate::numbers::values;
use crate::schedule::Stage;

/// A captured step and its caches, for one answer at a time.
#[derive(Debug)]
pub(crate) struct Captured(Exclusive<Steps>);

/// The captured step, and the state that a prompt fills for it.
#[derive(Debug)]
pub(crate) struct Steps {
    state: TextState,
    decoder: Decoder,
}

impl Captured {
    /// The captured step of a thinker for `context` tokens, where its device can capture one.
    pub(crate) fn new(thinker: &Thinker, context: usize) -> Option<Self> {
        let (state, decoder) = thinker.decoder(context)?;
        Some(Self(Exclusive::new(Steps { state, decoder })))
    }

    /// Whether no panic has left it without its caches.
    pub(crate) fn is_usable(&self) -> bool {
        self.0.is_whole()
    }

    /// Where the time of a step goes behind `len` rows, unless an answer uses it; what it kept is none afterwards.
    pub(crate) fn times(&self, len: usize) -> Result<Vec<NodeTime>, Error> {
        let Some(mut steps) = self.0.take(None) else {
            return Ok(Vec::new());
        };
        steps.state.truncate(0);
        let times = steps.decoder.times(len);
        times.map_err(|error| failed(Stage::Thinker, error))
    }

    /// The step, unless another answer uses it or it has less room.
    fn take(&self, rows: usize, ticket: Option<u64>) -> Option<Taken<'_, Steps>> {
        let steps = self.0.take(ticket)?;
        (steps.decoder.capacity() >= rows).then_some(steps)
    }
}

/// The decoder of one answer.
pub(crate) enum Decoding<'a> {
    /// The captured step; whether it goes from token to token by itself.
    Captured(Taken<'a, Steps>, bool),
    /// Passes over a state of its own.
    Eager(TextState),
}

/// What comes behind a token.
pub(crate) enum Next {
    /// The token that the device chose.
    Token(u32),
    /// The scores of all tokens.
    Scores(Vec<f32>),
}

impl<'a> Decoding<'a> {
    /// A decoder with room for `rows`, which has seen none.
    pub(crate) fn new(thinker: &Thinker, captured: Option<&'a Captured>, rows: usize) -> Self {
        Self::resume(thinker, captured, rows, &mut KeptThinker::default())
    }

    /// A decoder with room for `rows`; those it has seen are in its state, which is the one that was kept if that can be.
    pub(crate) fn resume(
        thinker: &Thinker,
        captured: Option<&'a Captured>,
        rows: usize,
        kept: &mut KeptThinker,
    ) -> Self {
        let ticket = kept.ticket.take();
        let steps = captured.and_then(|captured| captured.take(rows, ticket));
        if let Some(mut steps) = steps {
            kept.state = None;
            if !steps.is_untouched() {
                steps.state.truncate(0);
            }
            return Self::Captured(steps, false);
        }
        let state = kept.state.take();
        let mut state = state.unwrap_or_else(|| thinker.state(rows));
        state.reserve(rows);
        Self::Eager(state)
    }

    /// Leaves the rows to who goes on behind them.
    pub(crate) fn leave(self, kept: &mut KeptThinker) {
        match self {
            Self::Captured(steps, _) => kept.leave(None, Some(steps.ticket())),
            Self::Eager(state) => kept.leave(Some(state), None),
        }
    }

    /// The state that the prompt fills.
    pub(crate) fn state(&mut self) -> &mut TextState {
        match self {
            Self::Captured(steps, _) => &mut steps.state,
            Self::Eager(state) => state,
        }
    }

    /// Passes a token. A captured step goes on from the first one by itself, and chooses in the way that `choosing` says then.
    pub(crate) fn pass(
        &mut self,
        thinker: &Thinker,
        place: Place,
        choosing: impl FnOnce() -> Choosing,
    ) -> Result<Next, Error> {
        match self {
            Self::Captured(steps, running) => {
                // The step writes the rows, and the state counts them.
                steps.state.advance(1);
                let decoder = &mut steps.decoder;
                if !*running {
                    decoder.start(place, &choosing());
                    *running = true;
                }
                let next = decoder.next_token();
                let next = next.map_err(|error| failed(Stage::Thinker, error))?;
                Ok(Next::Token(next))
            }
            Self::Eager(state) => {
                let rope = thinker.rope([&[place.position]; 3]);
                let row = Rows::text(thinker.embed_text(&[place.token]));
                let output = thinker.forward(&row, &rope, state);
                Ok(Next::Scores(values(output.logits)))
            }
        }
    }
}

/// What a captured pass of a stage says.
pub(crate) fn failed(stage: Stage, error: DecodeError) -> Error {
    let stage = stage.name();
    match error {
        DecodeError::NotFinite => Error::NotFinite { stage },
        DecodeError::Device(cause) => Error::stage(stage, cause),
    }
}
