//! The talker's loop: the answer's tokens become frames of codes, with the code predictor.

use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;

use burn::tensor::{Tensor, s};
use burn_omni_model::config::{SpeechIds, TalkerConfig};
use burn_omni_model::processor::{Medium, Positions, positions, special_tokens};
use burn_omni_model::talker::{
    ReplyStart, SpeechMarks, TalkerPlace, TalkerPrompt, TalkerState, TalkerStep, ThinkerRows, Turns,
};

use crate::frames::{Codes, Frames};
use crate::kept::KeptTalker;
use crate::pipeline::{Heard, Job, Said, Spoken};
use crate::schedule::Stage;
use crate::speech::{Held, SpeechModel};
use crate::stages::Stages;
use crate::stream::Stopped;
use crate::turns::Seat;
use crate::{Error, FinishReason, Sampling, Speech, SpeechRequest};

/// The talker at work on one answer.
pub(crate) struct Talking<'a> {
    job: &'a Job<'a>,
    seat: &'a Seat<'a>,
    voice: Voice<'a>,
    speaks: SyncSender<Spoken>,
}

/// What speech begins with.
pub(crate) struct Voice<'a> {
    speech: &'a SpeechModel,
    config: &'a TalkerConfig,
    /// Codec token of the voice.
    speaker: u32,
    request: &'a SpeechRequest,
    sampling: Sampling,
}

/// What the loop leaves.
pub(crate) struct Talked {
    /// Codes and how they end; samples are not counted here.
    pub(crate) speech: Speech,
    pub(crate) busy: Duration,
}

impl<'a> Voice<'a> {
    /// The voice that is asked for.
    pub(crate) fn new(stages: &'a Stages, request: &'a SpeechRequest) -> Result<Self, Error> {
        let known = "the request was checked";
        let config = stages.config.talker.as_ref().expect(known);
        let found = match request.voice.as_deref() {
            Some(voice) => config.speaker(voice),
            None => config.default_speaker().map(|(_, id)| id),
        };
        Ok(Self {
            speech: stages.speech.as_ref().expect(known),
            config,
            speaker: found.expect(known),
            request,
            sampling: talker_sampling(stages, request).check()?,
        })
    }
}

impl<'a> Talking<'a> {
    pub(crate) fn new(
        job: &'a Job<'a>,
        seat: &'a Seat<'a>,
        voice: Voice<'a>,
        speaks: SyncSender<Spoken>,
    ) -> Self {
        Self {
            job,
            seat,
            voice,
            speaks,
        }
    }

    /// Speaks the tokens as they are said.
    pub(crate) fn talk(
        self,
        said: &Receiver<Said>,
        kept: &mut KeptTalker,
    ) -> Result<Talked, Stopped> {
        let mut speech = Speech::default();
        if let (Some(heard), Said::Token(first)) = self.begin(said)? {
            let max_frames = self.max_frames();
            let begin = || -> Result<_, Error> {
                let marks = self.marks();
                let (held, step) = self.prefill((&heard, first), &marks, max_frames, kept)?;
                Ok((marks, held, step))
            };
            let (marks, mut held, step) = self.seat.turn_until_done(begin)??;
            drop(heard);
            let state = held.state();
            let outcome = self.frames((state, step), said, &marks, &mut speech);
            // What failed may have left rows that are none.
            if !matches!(outcome, Err(Stopped::Failed(_))) {
                held.leave(kept);
            }
            outcome?;
        }
        self.job.progress.spoken(speech.codes.len());
        self.give(Spoken::End)?;
        let busy = self.seat.busy();
        Ok(Talked { speech, busy })
    }

    /// Makes frames until the speech ends. A frame takes the token of its number; where that is not yet known the loop
    /// waits, and only behind the last comes the end mark, then padding (docs/spec/talker-code2wav.md B.5, F.1).
    fn frames(
        &self,
        (state, step): (&mut TalkerState, TalkerStep),
        said: &Receiver<Said>,
        marks: &SpeechMarks,
        speech: &mut Speech,
    ) -> Result<(), Stopped> {
        let max_frames = self.max_frames();
        let codes = Codes::of(self.voice.config, self.job.request.endless);
        let way = (self.voice.sampling, self.job.request.seed);
        let mut frames = Frames::new(&self.voice.speech.talker, state, codes, way);
        let mut text = Text::Said;
        let mut step = Some(step);
        speech.finish_reason = FinishReason::Length;
        while speech.codes.len() < max_frames {
            let frame = self.seat.turn_of(1, || match step.take() {
                Some(step) => frames.behind(step),
                None => frames.next(self.row(text, marks)),
            })??;
            let Some(codes) = frame else {
                speech.finish_reason = FinishReason::Stop;
                break;
            };
            speech.codes.push(codes.clone());
            self.give(Spoken::Frame(codes))?;
            if speech.codes.len() < max_frames {
                text = self.next(text, said)?;
            }
        }
        Ok(())
    }

    /// Waits for the prompt and what is said first.
    fn begin(&self, said: &Receiver<Said>) -> Result<(Option<Box<Heard>>, Said), Stopped> {
        let mut heard = None;
        loop {
            match self.hear(said)? {
                Said::Heard(prompt) => heard = Some(prompt),
                other => return Ok((heard, other)),
            }
        }
    }

    /// Waits for what is said next; a thinker that says no more without an end was ended.
    fn hear(&self, said: &Receiver<Said>) -> Result<Said, Stopped> {
        Ok(self.seat.receive(said)?)
    }

    /// The text of the next frame.
    fn next(&self, text: Text, said: &Receiver<Said>) -> Result<Text, Stopped> {
        Ok(match text {
            Text::End | Text::Pad => Text::Pad,
            Text::Said | Text::Token(_) => match self.hear(said)? {
                Said::Token(id) => Text::Token(id),
                Said::Heard(_) | Said::End => Text::End,
            },
        })
    }

    fn give(&self, spoken: Spoken) -> Result<(), Stopped> {
        Ok(self.seat.send(&self.speaks, spoken)?)
    }

    /// The rows of the marks of speech.
    fn marks(&self) -> SpeechMarks {
        let SpeechIds {
            tts_pad,
            tts_bos,
            tts_eos,
            ..
        } = self.voice.speech.ids;
        let thinker = &self.job.stages.thinker;
        let marks = thinker.embed_text(&[tts_pad, tts_bos, tts_eos]);
        self.voice.speech.talker.marks(marks)
    }

    /// Passes the talker's prompt, but for the rows that were kept.
    fn prefill(
        &self,
        (heard, first): (&Heard, u32),
        marks: &SpeechMarks,
        max_frames: usize,
        kept: &mut KeptTalker,
    ) -> Result<(Held<'a, TalkerState>, TalkerStep), Error> {
        let SpeechModel {
            talker, turn_ids, ..
        } = self.voice.speech;
        let turns = Turns::new(&heard.prompt.ids, turn_ids).map_err(|error| Error::Stage {
            stage: Stage::Talker.name(),
            cause: error.to_string(),
        })?;
        let rows = talker.prompt_rows(TalkerPrompt {
            turns: &turns,
            thinker: ThinkerRows {
                embeds: heard.embeds.clone(),
                hidden: heard.accepted.clone(),
            },
            reply: ReplyStart {
                first: self.job.stages.thinker.embed_text(&[first]),
                marks,
                speaker: self.voice.speaker,
            },
        });
        let positions = self.positions(heard, &turns)?;
        let common = kept.common(&heard.prompt, &turns, &positions);
        let rows_at_most = turns.talker_rows() + max_frames;
        let captured = self.job.captured.speech;
        let mut held = self.voice.speech.resume(rows_at_most, captured, kept);
        let state = held.state();
        // Without the state there is nothing to go on behind.
        let common = common.min(state.rows());
        let axes = [&positions.t, &positions.h, &positions.w];
        let passed = axes.iter().flat_map(|axis| &axis[..common]);
        let last = passed.copied().fold(-1.0, f32::max);
        state.rewind(TalkerPlace::new(common, last + 1.0));
        let rows = rows.slice(s![common.., ..]);
        let step = talker.prefill(state, rows, axes.map(|axis| &axis[common..]));
        kept.begin(heard.prompt.clone(), &turns, positions);
        Ok((held, step))
    }

    /// Positions of the talker's prompt: those of its own ids with the media of the user's turns
    /// (docs/spec/talker-code2wav.md B.7). As in the reference, which does not tell the talker that a film has sound, such
    /// a film is laid out like text.
    fn positions(&self, heard: &Heard, turns: &Turns) -> Result<Positions, Error> {
        let prompt = &heard.prompt;
        let ids = turns.talker_ids(&prompt.ids, self.voice.speech.ids.tts_pad);
        let in_a_turn = |row: usize| {
            turns
                .user()
                .binary_search_by_key(&row, |(row, _)| *row)
                .is_ok()
        };
        let media: Vec<Medium> = prompt
            .spans
            .iter()
            .filter(|span| in_a_turn(span.range.start))
            .map(|span| prompt.media[span.medium])
            .collect();
        let sounding = |medium: &Medium| {
            matches!(
                medium,
                Medium::Video {
                    audio_tokens: Some(_),
                    ..
                }
            )
        };
        if media.iter().any(sounding) {
            let t: Vec<f32> = (0..ids.len()).map(|row| row as f32).collect();
            return Ok(Positions {
                h: t.clone(),
                w: t.clone(),
                t,
                delta: 0.0,
            });
        }
        let tokens = special_tokens(&self.job.stages.config.thinker);
        positions(&ids, &media, &tokens).map_err(|error| Error::Processor(error.into()))
    }

    /// The row of a frame's text.
    fn row(&self, text: Text, marks: &SpeechMarks) -> Tensor<2> {
        match text {
            Text::Token(id) => {
                // One by one, so that the speed of the thinker changes no sum.
                let embed = self.job.stages.thinker.embed_text(&[id]);
                self.voice.speech.talker.text_rows(embed)
            }
            Text::End => marks.eos.clone(),
            Text::Said | Text::Pad => marks.pad.clone(),
        }
    }

    fn max_frames(&self) -> usize {
        self.job.stages.max_frames(self.voice.request)
    }
}

/// The text of a frame.
#[derive(Clone, Copy)]
enum Text {
    /// It was part of the prompt.
    Said,
    Token(u32),
    End,
    Pad,
}

/// The request's sampling, else the checkpoint's, else the reference's (docs/spec/talker-code2wav.md C.6).
fn talker_sampling(stages: &Stages, request: &SpeechRequest) -> Sampling {
    let generation = &stages.config.generation;
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
