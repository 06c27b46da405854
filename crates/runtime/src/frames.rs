//! The frames of one speech, one after another: the device makes them by itself, or the host chooses one code after another.

use burn::tensor::Tensor;
use burn_omni_model::code_predictor::PredictorState;
use burn_omni_model::config::TalkerConfig;
use burn_omni_model::talker::{Talker, TalkerState, TalkerStep};

use crate::decoding::failed;
use crate::numbers::{finite, values};
use crate::sampler::{Random, Sampler};
use crate::schedule::Stage;
use crate::{Error, Sampling};

/// How the residual codes are drawn when the talker samples (docs/spec/talker-code2wav.md D.3).
const PREDICTOR_SAMPLING: Sampling = Sampling {
    temperature: 1.0,
    top_k: 50,
    top_p: 0.8,
    repetition_penalty: 1.0,
};
/// What has scores of residual codes.
const PREDICTOR: &str = "the code predictor";
/// Numbers of the draws.
const TALKER_DRAWS: u32 = 1;
const PREDICTOR_DRAWS: u32 = 2;

/// What a first code can be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Codes {
    /// Codes of a group.
    pub(crate) count: usize,
    /// Scores that there are.
    pub(crate) vocabulary: usize,
    /// The end mark, where a speech may end.
    pub(crate) end: Option<u32>,
}

impl Codes {
    pub(crate) fn of(config: &TalkerConfig, endless: bool) -> Self {
        Self {
            count: config.code_predictor_config.vocab_size,
            vocabulary: config.text_config.vocab_size,
            end: (!endless).then_some(config.codec_eos_token_id),
        }
    }

    fn allows(self, id: usize) -> bool {
        id < self.count || self.end.is_some_and(|end| end as usize == id)
    }

    fn banned(self) -> Vec<u32> {
        let all = 0..u32::try_from(self.vocabulary).unwrap_or(u32::MAX);
        all.filter(|id| !self.allows(*id as usize)).collect()
    }
}

/// Makes the frames of a speech.
pub(crate) struct Frames<'a> {
    talker: &'a Talker,
    state: &'a mut TalkerState,
    codes: Codes,
    first: Sampler,
    others: Sampler,
    /// Where the host chooses.
    predictor: Option<PredictorState>,
    feedback: Option<Tensor<2>>,
}

impl<'a> Frames<'a> {
    /// Frames whose codes depend on the seed alone.
    pub(crate) fn new(
        talker: &'a Talker,
        state: &'a mut TalkerState,
        codes: Codes,
        (sampling, seed): (Sampling, u64),
    ) -> Self {
        let residual = if sampling.temperature == 0.0 {
            Sampling::GREEDY
        } else {
            PREDICTOR_SAMPLING
        };
        let sampler = |sampling, draws| Sampler::new(sampling, Random::new(seed, draws));
        Self {
            predictor: (!state.makes_frames()).then(|| talker.predictor_state()),
            talker,
            state,
            codes,
            first: sampler(sampling, TALKER_DRAWS),
            others: sampler(residual, PREDICTOR_DRAWS),
            feedback: None,
        }
    }

    /// The frame behind a pass, by its scores; `None` when the speech ends.
    pub(crate) fn behind(&mut self, step: TalkerStep) -> Result<Option<Vec<u32>>, Error> {
        let logits = values(step.logits);
        finite(Stage::Talker.name(), &logits)?;
        let codes = self.codes;
        let first = self.first.sample(logits, |id| codes.allows(id));
        if codes.end == Some(first) {
            return Ok(None);
        }
        if self.predictor.is_some() {
            return self.chosen(step.hidden, first).map(Some);
        }
        let ways = [
            &self.first.choosing(codes.banned(), usize::MAX),
            &self.others.choosing(Vec::new(), 0),
        ];
        self.state.start_frames(step.hidden, first, ways);
        self.made()
    }

    /// The next frame, behind this row of text; `None` when the speech ends.
    pub(crate) fn next(&mut self, text: Tensor<2>) -> Result<Option<Vec<u32>>, Error> {
        match self.feedback.take() {
            Some(feedback) => {
                let step = self.talker.step(self.state, feedback + text);
                self.behind(step)
            }
            None => {
                let next = self.state.next_frame(text);
                next.map_err(|error| failed(Stage::Talker, error))?;
                self.made()
            }
        }
    }

    /// The frame that the device makes.
    fn made(&self) -> Result<Option<Vec<u32>>, Error> {
        let codes = self.state.frame_codes();
        let codes = codes.map_err(|error| failed(Stage::Talker, error))?;
        // Behind the end mark the other codes mean nothing.
        if self.codes.end == Some(codes[0]) {
            return Ok(None);
        }
        match codes.iter().position(|code| *code == u32::MAX) {
            None => Ok(Some(codes)),
            Some(first) => Err(Error::NotFinite {
                stage: if first == 0 {
                    Stage::Talker.name()
                } else {
                    PREDICTOR
                },
            }),
        }
    }

    /// The frame that the host chooses code by code.
    fn chosen(&mut self, hidden: Tensor<2>, first: u32) -> Result<Vec<u32>, Error> {
        let sampler = &mut self.others;
        let mut sound = Ok(());
        let mut sample = |_, logits: Vec<f32>| {
            if sound.is_ok() {
                sound = finite(PREDICTOR, &logits);
            }
            sampler.sample(logits, |_| true)
        };
        let predictor = self.predictor.as_mut();
        let predictor = predictor.expect("the host chooses with a predictor of its own");
        let frame = self.talker.frame(predictor, hidden, first, &mut sample);
        sound?;
        self.feedback = Some(frame.feedback);
        Ok(frame.codes)
    }
}
