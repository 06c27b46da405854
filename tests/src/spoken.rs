//! An answer on its way through the talker.

use burn::tensor::{Tensor, s};
use burn_omni::Sampling;
use burn_omni::sampler::{Random, Sampler};
use burn_omni_model::processor::{Medium, Positions, Prompt, positions, special_tokens};
use burn_omni_model::talker::{
    ReplyStart, SpeechMarks, TalkerPrompt, TalkerStep, ThinkerRows, TurnIds, Turns,
};

use crate::compare::values;
use crate::parts::Parts;

/// Penalty on first codes that occurred.
const PENALTY: f32 = 1.05;

/// The talker's input for one answer.
#[derive(Debug)]
pub struct Spoken<'a> {
    parts: &'a Parts,
    /// The turns that it hears.
    pub turns: Turns,
    /// Its prompt, `[rows, hidden]`.
    pub rows: Tensor<2>,
    /// The places of these rows.
    pub positions: Positions,
    /// The rows of text after the prompt, the end mark included, `[tokens, hidden]`.
    pub text: Tensor<2>,
    marks: SpeechMarks,
}

/// A frame in the making.
#[derive(Debug)]
pub struct Frame<'a> {
    /// What the talker said of it.
    pub step: &'a TalkerStep,
    /// One code a group.
    pub codes: &'a [u32],
    /// The scores that the code predictor chose from, `[groups - 1, codes]`.
    pub logits: &'a [f32],
    /// The talker's next input.
    pub next: &'a Tensor<2>,
}

impl<'a> Spoken<'a> {
    /// The talker's input for the answer `tokens` to a prompt.
    ///
    /// # Panics
    /// When the voice is unknown or the prompt is not one.
    #[must_use]
    pub fn new(parts: &'a Parts, prompt: &Prompt, tokens: &[u32], voice: &str) -> Self {
        let (thinker, talker) = (&parts.thinking().thinker, &parts.talking().talker);
        let config = parts.talker_config();
        let speech = parts.ids.speech.as_ref().expect("the model speaks");
        let turn_ids = TurnIds::new(parts.ids.im_start, speech, config);
        let turns = Turns::new(&prompt.ids, &turn_ids).expect("the turn is the assistant's");
        let marks = [speech.tts_pad, speech.tts_bos, speech.tts_eos];
        let marks = talker.marks(thinker.embed_text(&marks));
        let rows = talker.prompt_rows(TalkerPrompt {
            turns: &turns,
            thinker: heard(parts, prompt),
            reply: ReplyStart {
                first: thinker.embed_text(&tokens[..1]),
                marks: &marks,
                speaker: config.speaker(voice).expect("the voice is known"),
            },
        });
        let mut text = vec![marks.eos.clone()];
        let spoken = &tokens[1..tokens.len() - 1];
        if !spoken.is_empty() {
            text.insert(0, talker.text_rows(thinker.embed_text(spoken)));
        }
        let ids = turns.talker_ids(&prompt.ids, speech.tts_pad);
        Self {
            parts,
            positions: place(parts, prompt, &ids),
            text: Tensor::cat(text, 0),
            marks,
            turns,
            rows,
        }
    }

    /// The places on each axis.
    #[must_use]
    pub fn axes(&self) -> [&[f32]; 3] {
        [&self.positions.t, &self.positions.h, &self.positions.w]
    }

    /// The greedy frames, at most `limit`; each is shown.
    ///
    /// # Panics
    /// When a score is not a number.
    pub fn frames(&self, limit: usize, mut show: impl FnMut(Frame<'_>)) -> Vec<Vec<u32>> {
        let talker = &self.parts.talking().talker;
        let config = self.parts.talker_config();
        let (codes, eos) = (
            config.code_predictor_config.vocab_size,
            config.codec_eos_token_id,
        );
        let penalty = Sampling {
            repetition_penalty: PENALTY,
            ..Sampling::GREEDY
        };
        let mut sampler = Sampler::new(penalty, Random::new(0, 0));
        let mut state = talker.state(self.turns.talker_rows() + limit);
        let mut predictor = talker.predictor_state();
        let mut step = talker.prefill(&mut state, self.rows.clone(), self.axes());
        let mut frames = Vec::new();
        while frames.len() < limit {
            let allowed = |id| id < codes || id == eos as usize;
            let first = sampler.sample(values(step.logits.clone()), allowed);
            if first == eos {
                break;
            }
            let mut logits = Vec::new();
            let mut choose = |_, scores: Vec<f32>| {
                logits.extend(&scores);
                Sampler::new(Sampling::GREEDY, Random::new(0, 0)).sample(scores, |_| true)
            };
            let frame = talker.frame(&mut predictor, step.hidden.clone(), first, &mut choose);
            let [texts, _] = self.text.dims();
            let text = match frames.len() {
                t if t < texts => self.text.clone().slice(s![t..=t, ..]),
                _ => self.marks.pad.clone(),
            };
            let next = frame.feedback + text;
            show(Frame {
                step: &step,
                codes: &frame.codes,
                logits: &logits,
                next: &next,
            });
            frames.push(frame.codes);
            step = talker.step(&mut state, next);
        }
        frames
    }
}

/// The thinker's rows of a prompt.
fn heard(parts: &Parts, prompt: &Prompt) -> ThinkerRows {
    let thinker = &parts.thinking().thinker;
    let at = &prompt.positions;
    let rope = thinker.rope([&at.t, &at.h, &at.w]);
    let rows = thinker.embed(prompt);
    let mut state = thinker.state(prompt.ids.len());
    let output = thinker.forward(&rows, &rope, &mut state);
    ThinkerRows {
        embeds: rows.embeds,
        hidden: output.accepted.expect("the talker asks for it"),
    }
}

/// The places of the talker's rows; all media of the golden cases are the user's. The reference does not tell its talker
/// that a film has sound, and lays such a prompt out like text.
fn place(parts: &Parts, prompt: &Prompt, ids: &[u32]) -> Positions {
    let sound = |medium: &Medium| {
        matches!(
            medium,
            Medium::Video {
                audio_tokens: Some(_),
                ..
            }
        )
    };
    if prompt.media.iter().any(sound) {
        let t: Vec<f32> = (0..ids.len()).map(|row| row as f32).collect();
        return Positions {
            h: t.clone(),
            w: t.clone(),
            t,
            delta: 0.0,
        };
    }
    let tokens = special_tokens(&parts.config.thinker);
    positions(ids, &prompt.media, &tokens).expect("the case is sound")
}
