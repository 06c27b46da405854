//! The answer's tokens become frames of codes, and frames become samples.

use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::Instant;

use burn::tensor::{Tensor, s};
use burn_omni_model::code_predictor::PredictorState;
use burn_omni_model::code2wav::{Code2Wav, Code2WavState};
use burn_omni_model::config::{Config, SpecialIds, SpeechIds, TalkerConfig};
use burn_omni_model::processor::{Medium, Positions, positions, special_tokens};
use burn_omni_model::talker::{
    ReplyStart, SpeechMarks, Talker, TalkerPrompt, TalkerState, TalkerStep, ThinkerRows, TurnIds,
    Turns,
};
use burn_omni_quant::checkpoint::Component;

use crate::engine::{Loader, Model};
use crate::pipeline::{PREDICTOR_STAGE, TALKER_STAGE, Thought, finite, values};
use crate::sampler::{Random, Sampler};
use crate::stream::{Sink, Stopped};
use crate::{Answer, Error, Event, FinishReason, Sampling, Speech, SpeechRequest};

/// How the residual codes are drawn when the talker samples (docs/spec/talker-code2wav.md D.3).
const PREDICTOR_SAMPLING: Sampling = Sampling {
    temperature: 1.0,
    top_k: 50,
    top_p: 0.8,
    repetition_penalty: 1.0,
};
/// Rows of the talker that captured passes hold: a prompt, and eleven minutes of speech.
pub(crate) const CAPTURED_ROWS: usize = 8192;
/// The reference's `talker_max_new_tokens`, where the checkpoint has none.
const MAX_NEW_CODES: usize = 4096;

/// Talker, code predictor and code2wav.
#[derive(Debug)]
pub(crate) struct SpeechModel {
    pub(crate) talker: Talker,
    pub(crate) code2wav: Code2Wav,
    turn_ids: TurnIds,
    ids: SpeechIds,
    /// Captured passes and their caches, for one answer at a time each.
    captured: Option<CapturedStates>,
}

/// What talker and code predictor remember of an answer, with captured passes.
#[derive(Debug)]
struct CapturedStates {
    talker: Mutex<TalkerState>,
    predictor: Mutex<PredictorState>,
}

/// A state of one answer.
pub(crate) enum Held<'a, T> {
    /// The one whose pass is captured.
    Captured(MutexGuard<'a, T>),
    Own(Box<T>),
}

impl<'a, T> Held<'a, T> {
    /// The captured one, unless another answer has it or it does not serve; else an own one.
    fn new(
        captured: Option<&'a Mutex<T>>,
        serves: impl FnOnce(&T) -> bool,
        own: impl FnOnce() -> T,
    ) -> Self {
        let captured = captured.and_then(|state| match state.try_lock() {
            Ok(state) => Some(state),
            // The next answer starts anew.
            Err(TryLockError::Poisoned(state)) => Some(state.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        });
        match captured.filter(|state| serves(state)) {
            Some(state) => Self::Captured(state),
            None => Self::Own(Box::new(own())),
        }
    }

    /// Whether its pass is captured.
    pub(crate) fn is_captured(&self) -> bool {
        matches!(self, Self::Captured(_))
    }

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

    /// Captures the passes of a frame, where the device can do that.
    pub(crate) fn capture(&mut self) {
        self.captured = self
            .talker
            .captured_state(CAPTURED_ROWS)
            .and_then(|talker| {
                Some(CapturedStates {
                    talker: Mutex::new(talker),
                    predictor: Mutex::new(self.talker.captured_predictor_state()?),
                })
            });
    }

    /// Whether the passes of a frame are captured.
    pub(crate) fn is_captured(&self) -> bool {
        self.captured.is_some()
    }

    /// An empty state of the talker with room for so many rows.
    pub(crate) fn talker_state(&self, rows: usize) -> Held<'_, TalkerState> {
        let captured = self.captured.as_ref().map(|captured| &captured.talker);
        let mut held = Held::new(
            captured,
            |state| state.capacity() >= rows,
            || self.talker.state(rows),
        );
        held.state().clear();
        held
    }

    /// A state of the code predictor.
    pub(crate) fn predictor_state(&self) -> Held<'_, PredictorState> {
        let captured = self.captured.as_ref().map(|captured| &captured.predictor);
        Held::new(captured, |_| true, || self.talker.predictor_state())
    }
}

/// One answer being spoken.
pub(crate) struct Speaker<'a> {
    model: &'a Model,
    speech: &'a SpeechModel,
    request: &'a SpeechRequest,
    speaker: u32,
    eos: u32,
    codes: usize,
    marks: SpeechMarks,
    talker_sampler: Sampler,
    predictor_sampler: Sampler,
}

/// Frames on their way to becoming samples.
struct Packets<'a> {
    code2wav: &'a Code2Wav,
    state: Code2WavState,
    waiting: Vec<Vec<u32>>,
    /// Frames of the next packet.
    size: usize,
}

impl<'a> Speaker<'a> {
    pub(crate) fn new(
        model: &'a Model,
        request: &'a SpeechRequest,
        seed: u64,
    ) -> Result<Self, Error> {
        let speaker = model.speaker(request.voice.as_deref())?;
        let known = "a voice was found";
        let config = model.config.talker.as_ref().expect(known);
        let sampling = talker_sampling(model, request).check()?;
        let residual = if sampling.temperature == 0.0 {
            Sampling::GREEDY
        } else {
            PREDICTOR_SAMPLING
        };
        let speech = model.speech.as_ref().expect(known);
        let SpeechIds {
            tts_pad,
            tts_bos,
            tts_eos,
            ..
        } = speech.ids;
        let marks = model.thinker.embed_text(&[tts_pad, tts_bos, tts_eos]);
        Ok(Self {
            model,
            speech,
            marks: speech.talker.marks(marks),
            request,
            speaker,
            eos: config.codec_eos_token_id,
            codes: config.code_predictor_config.vocab_size,
            talker_sampler: Sampler::new(sampling, Random::new(seed, TALKER_STAGE)),
            predictor_sampler: Sampler::new(residual, Random::new(seed, PREDICTOR_STAGE)),
        })
    }

    /// Speaks all tokens of the answer but the last, which the reference never feeds.
    pub(crate) fn speak(
        mut self,
        thought: &Thought,
        sink: &Sink,
        started: Instant,
        answer: &mut Answer,
    ) -> Result<(), Stopped> {
        let mut speech = Speech::default();
        let spoken = thought
            .token_ids
            .split_last()
            .map_or(&[][..], |(_, spoken)| spoken);
        let Some((first, rest)) = spoken.split_first() else {
            answer.speech = Some(speech);
            return Ok(());
        };
        let begun = Instant::now();
        let mut packets = Packets {
            code2wav: &self.speech.code2wav,
            state: self.speech.code2wav.state(),
            waiting: Vec::new(),
            size: self.request.first_chunk,
        };
        let max_frames = self.max_frames();
        let (mut held, mut step) = self.prefill(thought, *first, max_frames)?;
        let mut predictor = self.speech.predictor_state();
        let text = self.text(rest);
        speech.finish_reason = FinishReason::Length;
        for index in 0..max_frames {
            sink.check()?;
            let Some((codes, feedback)) = self.frame(&step, predictor.state())? else {
                speech.finish_reason = FinishReason::Stop;
                break;
            };
            packets.waiting.push(codes.clone());
            speech.codes.push(codes);
            if packets.waiting.len() == packets.size {
                packets.size = self.request.chunk;
                packets.give(&mut speech, sink, started, answer)?;
            }
            if index + 1 < max_frames {
                step = self
                    .speech
                    .talker
                    .step(held.state(), feedback + self.text_row(&text, index));
            }
        }
        packets.give(&mut speech, sink, started, answer)?;
        answer.timings.talker = begun.elapsed() - answer.timings.code2wav;
        answer.usage.audio_frames = speech.codes.len();
        answer.speech = Some(speech);
        Ok(())
    }

    /// Passes the talker's prompt.
    fn prefill(
        &self,
        thought: &Thought,
        first: u32,
        max_frames: usize,
    ) -> Result<(Held<'a, TalkerState>, TalkerStep), Error> {
        let SpeechModel {
            talker, turn_ids, ..
        } = self.speech;
        let stage = |cause: String| Error::Stage {
            stage: "talker",
            cause,
        };
        let turns =
            Turns::new(&thought.prompt.ids, turn_ids).map_err(|error| stage(error.to_string()))?;
        let rows = talker.prompt_rows(TalkerPrompt {
            turns: &turns,
            thinker: ThinkerRows {
                embeds: thought.embeds.clone(),
                hidden: thought.accepted.clone(),
            },
            reply: ReplyStart {
                first: self.model.thinker.embed_text(&[first]),
                marks: &self.marks,
                speaker: self.speaker,
            },
        });
        let positions = self.positions(thought, &turns)?;
        let mut held = self.speech.talker_state(turns.talker_rows() + max_frames);
        let state = held.state();
        let step = talker.prefill(state, rows, [&positions.t, &positions.h, &positions.w]);
        Ok((held, step))
    }

    /// Positions of the talker's prompt: those of its own ids with the media of the user's turns (docs/spec/talker-code2wav.md B.7). As in the reference, which does not tell the talker that a film has sound, such a film is
    /// laid out like text.
    fn positions(&self, thought: &Thought, turns: &Turns) -> Result<Positions, Error> {
        let prompt = &thought.prompt;
        let ids = turns.talker_ids(&prompt.ids, self.speech.ids.tts_pad);
        let heard = |row: usize| {
            turns
                .user()
                .binary_search_by_key(&row, |(row, _)| *row)
                .is_ok()
        };
        let media: Vec<Medium> = prompt
            .spans
            .iter()
            .filter(|span| heard(span.range.start))
            .map(|span| prompt.media[span.medium])
            .collect();
        if media.iter().any(|medium| {
            matches!(
                medium,
                Medium::Video {
                    audio_tokens: Some(_),
                    ..
                }
            )
        }) {
            let t: Vec<f32> = (0..ids.len()).map(|row| row as f32).collect();
            return Ok(Positions {
                h: t.clone(),
                w: t.clone(),
                t,
                delta: 0.0,
            });
        }
        let tokens = special_tokens(&self.model.config.thinker);
        positions(&ids, &media, &tokens).map_err(|error| Error::Processor(error.into()))
    }

    /// The rows of text after the first token, one a frame; the end mark follows them.
    fn text(&self, rest: &[u32]) -> Tensor<2> {
        let end = self.marks.eos.clone();
        if rest.is_empty() {
            return end;
        }
        Tensor::cat(
            vec![
                self.speech
                    .talker
                    .text_rows(self.model.thinker.embed_text(rest)),
                end,
            ],
            0,
        )
    }

    /// The text row of a frame: padding once the text is at its end.
    fn text_row(&self, text: &Tensor<2>, frame: usize) -> Tensor<2> {
        let [rows, _] = text.dims();
        if frame < rows {
            text.clone().slice(s![frame..=frame, ..])
        } else {
            self.marks.pad.clone()
        }
    }

    /// The next frame's codes and the talker's next input; `None` when the speech ends.
    fn frame(
        &mut self,
        step: &TalkerStep,
        predictor: &mut PredictorState,
    ) -> Result<Option<(Vec<u32>, Tensor<2>)>, Error> {
        let (codes, eos) = (self.codes, self.eos);
        let allowed = |id: usize| id < codes || id == eos as usize;
        let logits = values(step.logits.clone());
        finite("the talker", &logits)?;
        let first = self.talker_sampler.sample(logits, allowed);
        if first == eos {
            return Ok(None);
        }
        let sampler = &mut self.predictor_sampler;
        let mut sound = Ok(());
        let mut sample = |_, logits: Vec<f32>| {
            if sound.is_ok() {
                sound = finite("the code predictor", &logits);
            }
            sampler.sample(logits, |_| true)
        };
        let frame = self
            .speech
            .talker
            .frame(predictor, step.hidden.clone(), first, &mut sample);
        sound?;
        Ok(Some((frame.codes, frame.feedback)))
    }

    /// The request's limit, else the checkpoint's, whose last code the reference never expands.
    fn max_frames(&self) -> usize {
        let longest = self
            .model
            .config
            .talker
            .as_ref()
            .map_or(usize::MAX, |talker| {
                talker.text_config.max_position_embeddings
            });
        let configured = self
            .model
            .config
            .generation
            .talker_max_new_tokens
            .unwrap_or(MAX_NEW_CODES);
        self.request
            .max_frames
            .unwrap_or(configured.saturating_sub(1))
            .min(longest)
    }
}

impl Packets<'_> {
    /// Decodes the frames that wait and gives their samples out.
    fn give(
        &mut self,
        speech: &mut Speech,
        sink: &Sink,
        started: Instant,
        answer: &mut Answer,
    ) -> Result<(), Stopped> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        let samples = self
            .code2wav
            .push(&mut self.state, &std::mem::take(&mut self.waiting))
            .map_err(|error| Error::Stage {
                stage: "code2wav",
                cause: error.to_string(),
            })?;
        finite("code2wav", &samples)?;
        answer.timings.code2wav += begun.elapsed();
        answer
            .timings
            .first_audio
            .get_or_insert_with(|| started.elapsed());
        speech.samples += samples.len();
        Ok(sink.send(Event::Audio(samples))?)
    }
}

/// The request's sampling, else the checkpoint's, else the reference's (docs/spec/talker-code2wav.md C.6).
fn talker_sampling(model: &Model, request: &SpeechRequest) -> Sampling {
    let generation = &model.config.generation;
    let sampling = request.sampling.unwrap_or(Sampling {
        temperature: generation.talker_temperature.unwrap_or(0.9) as f32,
        top_k: generation.talker_top_k.unwrap_or(50),
        top_p: generation.talker_top_p.unwrap_or(1.0) as f32,
        repetition_penalty: generation.talker_repetition_penalty.unwrap_or(1.05) as f32,
    });
    Sampling {
        temperature: request.temperature.unwrap_or(sampling.temperature),
        ..sampling
    }
}
