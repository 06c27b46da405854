//! The weights of speech, with captured frames.

use burn_omni_model::code2wav::Code2Wav;
use burn_omni_model::config::{Config, SpecialIds, SpeechIds, TalkerConfig};
use burn_omni_model::talker::{Talker, TalkerState, TurnIds};
use burn_omni_quant::checkpoint::Component;

use crate::Error;
use crate::engine::Loader;
use crate::exclusive::{Exclusive, Taken};
use crate::kept::KeptTalker;

/// Rows of the talker that captured frames hold: a prompt, and eleven minutes of speech.
pub(crate) const CAPTURED_ROWS: usize = 8192;

/// Talker, code predictor and code2wav.
#[derive(Debug)]
pub(crate) struct SpeechModel {
    pub(crate) talker: Talker,
    pub(crate) code2wav: Code2Wav,
    pub(crate) turn_ids: TurnIds,
    pub(crate) ids: SpeechIds,
    /// What talker and code predictor remember of an answer, with captured frames; for one at a time.
    captured: Option<Exclusive<TalkerState>>,
}

/// A state of one answer.
pub(crate) enum Held<'a, T> {
    /// The one whose frames are captured.
    Captured(Taken<'a, T>),
    Own(Box<T>),
}

impl<T> Held<'_, T> {
    pub(crate) fn state(&mut self) -> &mut T {
        match self {
            Self::Captured(state) => state,
            Self::Own(state) => state,
        }
    }
}

impl SpeechModel {
    pub(crate) fn load(
        loader: &Loader<'_>,
        config: &Config,
        ids: &SpecialIds,
    ) -> Result<Self, Error> {
        let known = "a model that can speak has both configs and all ids";
        let (talker_config, code2wav) = (
            config.talker.as_ref().expect(known),
            config.code2wav.as_ref().expect(known),
        );
        let talker = loader.component(Component::Talker, |weights| {
            Talker::load(weights, talker_config)
        })?;
        let code2wav = loader.component(Component::Code2Wav, |weights| {
            Code2Wav::load(weights, code2wav)
        })?;
        Ok(Self::new(talker, code2wav, talker_config, ids))
    }

    /// A model that was made elsewhere.
    ///
    /// # Panics
    /// When the ids are those of a model that cannot speak.
    pub(crate) fn new(
        talker: Talker,
        code2wav: Code2Wav,
        config: &TalkerConfig,
        ids: &SpecialIds,
    ) -> Self {
        let speech = ids.speech.expect("a model that can speak has all ids");
        Self {
            turn_ids: TurnIds::new(ids.im_start, &speech, config),
            ids: speech,
            talker,
            code2wav,
            captured: None,
        }
    }

    /// Captures frames, where the device can do that.
    pub(crate) fn capture(&mut self) {
        let state = self.talker.captured_state(CAPTURED_ROWS);
        self.captured = state.map(Exclusive::new);
    }

    /// Whether frames are captured.
    pub(crate) fn is_captured(&self) -> bool {
        self.captured.is_some()
    }

    /// A state of the talker with room for so many rows, which has seen none.
    pub(crate) fn talker_state(&self, rows: usize) -> Held<'_, TalkerState> {
        let mut held = self.resume(rows, true, &mut KeptTalker::default());
        held.state().clear();
        held
    }

    /// Whether so many rows have room in the captured cache, and it is whole.
    pub(crate) fn can_hold(&self, rows: usize) -> bool {
        let captured = self.captured.as_ref();
        rows <= CAPTURED_ROWS && captured.is_some_and(Exclusive::is_whole)
    }

    /// A state of the talker with room for so many rows: the one that was kept, if that can be, with what it has seen.
    /// `captured` says whether it may be the captured one.
    pub(crate) fn resume(
        &self,
        rows: usize,
        captured: bool,
        kept: &mut KeptTalker,
    ) -> Held<'_, TalkerState> {
        let ticket = kept.ticket.take();
        let captured = self.captured.as_ref().filter(|_| captured);
        let captured = captured.and_then(|captured| captured.take(ticket));
        if let Some(mut state) = captured.filter(|state| state.capacity() >= rows) {
            kept.state = None;
            if !state.is_untouched() {
                state.clear();
            }
            return Held::Captured(state);
        }
        let state = kept.state.take();
        let mut state = state.unwrap_or_else(|| self.talker.state(rows));
        state.reserve(rows);
        Held::Own(Box::new(state))
    }
}

impl Held<'_, TalkerState> {
    /// Leaves the rows to who goes on behind them.
    pub(crate) fn leave(self, kept: &mut KeptTalker) {
        (kept.state, kept.ticket) = match self {
            Self::Captured(state) => (None, Some(state.ticket())),
            Self::Own(state) => (Some(*state), None),
        };
    }
}
