//! The talker and its code predictor with the trained demo model against the reference.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod common;

use burn::tensor::{Tensor, s};
use burn_omni_model::config::{SpecialIds, SpeechIds};
use burn_omni_model::processor::{Grid, Medium, Positions, positions, special_tokens};
use burn_omni_model::talker::{
    Heard, ReplyStart, SpeechMarks, Talker, TalkerPrompt, ThinkerRows, TurnIds, Turns,
};
use common::{Case, Demo, Golden, assert_close, spoken, values};

/// Frames that the reference was allowed.
const MAX_FRAMES: usize = 120;

/// A case on its way through the talker.
struct Spoken<'a> {
    demo: &'a Demo,
    talker: &'a Talker,
    case: &'a Case,
    ids: SpeechIds,
    turns: Turns,
    marks: SpeechMarks,
}

impl<'a> Spoken<'a> {
    fn new(demo: &'a Demo, talker: &'a Talker, case: &'a Case) -> Self {
        let config = demo.config.talker.as_ref().unwrap();
        let SpecialIds {
            im_start, speech, ..
        } = demo.config.clone().resolve_ids(|_| None).unwrap();
        let ids = speech.unwrap();
        let turns = Turns::new(&case.prompt_ids, &TurnIds::new(im_start, &ids, config)).unwrap();
        let marks = talker.marks(demo.embed(&[ids.tts_pad, ids.tts_bos, ids.tts_eos]));
        Self {
            demo,
            talker,
            case,
            ids,
            turns,
            marks,
        }
    }

    fn has_media(&self) -> bool {
        self.turns
            .user()
            .iter()
            .any(|(_, heard)| *heard == Heard::Media)
    }

    fn prompt_rows(&self, taps: Option<&Golden>) -> Tensor<2> {
        let config = self.demo.config.talker.as_ref().unwrap();
        let thinker = match taps {
            Some(taps) => ThinkerRows {
                embeds: taps.tensor("thinker_hidden.0"),
                hidden: taps.tensor(&format!("thinker_hidden.{}", config.accept_hidden_layer)),
            },
            None => {
                let embeds = self.demo.embed(&self.case.prompt_ids);
                ThinkerRows {
                    hidden: embeds.clone(),
                    embeds,
                }
            }
        };
        let speaker = config.speaker(self.case.speaker.as_ref().unwrap()).unwrap();
        self.talker.prompt_rows(TalkerPrompt {
            turns: &self.turns,
            thinker,
            reply: ReplyStart {
                first: self.demo.embed(&self.case.output_ids[..1]),
                marks: &self.marks,
                speaker,
            },
        })
    }

    /// The text of the frames, `[frames, hidden]`: after it comes the padding mark.
    fn text(&self) -> Tensor<2> {
        let spoken = &self.case.output_ids[1..self.case.output_ids.len() - 1];
        if spoken.is_empty() {
            return self.marks.eos.clone();
        }
        let rows = self.talker.text_rows(self.demo.embed(spoken));
        Tensor::cat(vec![rows, self.marks.eos.clone()], 0)
    }

    fn positions(&self, taps: Option<&Golden>) -> Positions {
        let ids = self
            .turns
            .talker_ids(&self.case.prompt_ids, self.ids.tts_pad);
        let config = &self.demo.config.thinker;
        let mut media = Vec::new();
        // A clip takes positions as text does, so only a picture needs to be told of.
        let ids: Vec<u32> = ids
            .into_iter()
            .map(|id| {
                if id == config.audio_start_token_id {
                    0
                } else {
                    id
                }
            })
            .collect();
        if ids.contains(&config.image_token_id) {
            let grid = taps.unwrap().integers("image_grid_thw");
            let [t, h, w] = grid[..] else {
                panic!("one picture")
            };
            media.push(Medium::Image {
                grid: Grid { t, h, w },
            });
        }
        positions(&ids, &media, &special_tokens(config)).unwrap()
    }

    /// The frames of the greedy loop.
    fn greedy(&self, taps: Option<&Golden>) -> Vec<Vec<u32>> {
        let config = self.demo.config.talker.as_ref().unwrap();
        let (rows, text) = (self.prompt_rows(taps), self.text());
        let mut state = self.talker.state(self.turns.talker_rows() + MAX_FRAMES);
        let mut frame_state = self.talker.predictor_state();
        let at = self.positions(taps);
        let mut step = self.talker.prefill(&mut state, rows, [&at.t, &at.h, &at.w]);
        let mut first_codes: Vec<u32> = Vec::new();
        let mut frames = Vec::new();
        while frames.len() < MAX_FRAMES {
            let code = first_code(self.case, config, values(step.logits), &first_codes);
            if code == config.codec_eos_token_id {
                break;
            }
            first_codes.push(code);
            let mut sample = |_: usize, logits: Vec<f32>| argmax(&logits);
            let frame = self
                .talker
                .frame(&mut frame_state, step.hidden, code, &mut sample);
            let t = frames.len();
            let text = if t < text.dims()[0] {
                text.clone().slice(s![t..=t, ..])
            } else {
                self.marks.pad.clone()
            };
            frames.push(frame.codes);
            step = self.talker.step(&mut state, frame.feedback + text);
        }
        frames
    }
}

/// The best first code, with the penalty on repeated ones and without the codec's other tokens.
fn first_code(
    case: &Case,
    config: &burn_omni_model::config::TalkerConfig,
    mut logits: Vec<f32>,
    before: &[u32],
) -> u32 {
    let penalty = case.talker_repetition_penalty.unwrap();
    let mut seen = before.to_vec();
    seen.sort_unstable();
    seen.dedup();
    for code in seen {
        let logit = &mut logits[code as usize];
        *logit = if *logit > 0.0 {
            *logit / penalty
        } else {
            *logit * penalty
        };
    }
    let codes = config.code_predictor_config.vocab_size;
    for (id, logit) in logits.iter_mut().enumerate().skip(codes) {
        if id != config.codec_eos_token_id as usize {
            *logit = f32::NEG_INFINITY;
        }
    }
    argmax(&logits)
}

fn argmax(logits: &[f32]) -> u32 {
    let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]).then(b.cmp(a)));
    u32::try_from(best.unwrap()).unwrap()
}

#[test]
fn prompt_text_and_first_logits_are_those_of_the_reference() {
    let demo = Demo::open();
    let talker = demo.talker();
    for case in spoken() {
        let Some(taps) = case.taps() else { continue };
        let spoken = Spoken::new(&demo, &talker, &case);
        let close = |what: &str, found: Tensor<2>, golden: &str| {
            let what = format!("{} {what}", case.id);
            assert_close(&what, &values(found), taps.values(golden), 1e-4);
        };
        let rows = spoken.prompt_rows(Some(&taps));
        close("prompt", rows.clone(), "talker_prefix");
        close("text", spoken.text(), "talker_trailing_text");
        let at = spoken.positions(Some(&taps));
        let mut state = talker.state(rows.dims()[0]);
        let step = talker.prefill(&mut state, rows.clone(), [&at.t, &at.h, &at.w]);
        close("logits", step.logits.clone(), "talker_first_logits");

        // In parts, and again after going back.
        let mut parts = talker.state(rows.dims()[0]);
        let axes = [&at.t, &at.h, &at.w];
        let _ = talker.prefill(
            &mut parts,
            rows.clone().slice(s![..5, ..]),
            axes.map(|x| &x[..5]),
        );
        let place = parts.place();
        for _ in 0..2 {
            let rest = rows.clone().slice(s![5.., ..]);
            let again = talker.prefill(&mut parts, rest, axes.map(|x| &x[5..]));
            let what = format!("{} in parts", case.id);
            assert_close(
                &what,
                &values(again.hidden),
                &values(step.hidden.clone()),
                1e-5,
            );
            assert_eq!(parts.place(), state.place());
            parts.rewind(place);
        }
    }
}

#[test]
fn greedy_speech_has_the_codes_of_the_reference() {
    let demo = Demo::open();
    let talker = demo.talker();
    let mut compared = 0;
    for case in spoken() {
        let taps = case.taps();
        let spoken = Spoken::new(&demo, &talker, &case);
        if spoken.has_media() && taps.is_none() {
            continue; // needs the thinker
        }
        assert_eq!(spoken.greedy(taps.as_ref()), case.frames(), "{}", case.id);
        compared += 1;
    }
    println!("{compared} cases");
    assert!(compared >= 3);
}
