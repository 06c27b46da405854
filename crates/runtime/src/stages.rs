//! The loaded components, and what every request needs to know of them.

use std::path::Path;

use burn::tensor::{Device, StreamId};
use burn_omni_model::config::{Config, SpecialIds};
use burn_omni_model::processor::Prompt;
use burn_omni_model::talker;
use burn_omni_model::thinker::Thinker;

use crate::budget::{Budget, Captures, RowBytes, Rows};
use crate::decoding::Captured;
use crate::kept::Kept;
use crate::memory::{ELEMENT, prefill_rows, talker_row, thinker_row};
use crate::speech::SpeechModel;
use crate::turns::Turns;
use crate::{Error, KvDtype, MemoryPlan, Request, Sampling, SpeechRequest};

/// Longest answer when neither the request nor the checkpoint says it (the reference's `thinker_max_new_tokens`).
const MAX_NEW_TOKENS: usize = 1024;

/// The reference's `talker_max_new_tokens`, where the checkpoint has none.
const MAX_NEW_CODES: usize = 4096;

/// The loaded components.
#[derive(Debug)]
pub(crate) struct Stages {
    pub(crate) config: Config,
    pub(crate) ids: SpecialIds,
    /// The thinker's step on the device; before the weights, which it works on.
    pub(crate) captured: Option<Captured>,
    pub(crate) thinker: Thinker,
    pub(crate) speech: Option<SpeechModel>,
    /// Longest sequence of prompt and answer.
    pub(crate) context: usize,
    /// How the thinker's keys and values are stored.
    pub(crate) kv: KvDtype,
    pub(crate) device: Device,
    /// The queue of the device on which the weights were made. Work on another one would wait for events at every launch,
    /// and have memory pools of its own.
    pub(crate) stream: StreamId,
}

impl Stages {
    /// Does work of a loop on its queue of the device: the one place that says which. All loops have the same, because
    /// what they hand over lies in that queue's memory and is written in its order.
    pub(crate) fn on_queue<T>(&self, work: impl FnOnce() -> T) -> T {
        self.stream.executes(work)
    }

    /// The turns at the device.
    pub(crate) fn turns(&self) -> Turns {
        let device = self.device.clone();
        Turns::new(self.is_shared(), move || wait(&device))
    }

    /// Whether the device does one thing at a time: all GPUs, which are those that keep pools of memory.
    fn is_shared(&self) -> bool {
        let usage = self.on_queue(|| self.device.memory_pool_usage());
        usage.is_some()
    }

    /// Prompt rows that pass the thinker at a time, fewer while a speech on the same device must not wait.
    pub(crate) fn prefill_rows(&self, beside_speech: bool) -> usize {
        prefill_rows(self.captured.is_some() && !beside_speech)
    }

    /// Whether this token ends an answer.
    pub(crate) fn ends(&self, id: u32) -> bool {
        self.end_marks().any(|mark| mark == id)
    }

    /// The tokens that end an answer.
    pub(crate) fn end_marks(&self) -> impl Iterator<Item = u32> {
        let also = self.config.generation.eos_token_id.iter().flatten();
        std::iter::once(self.ids.im_end).chain(also.copied())
    }

    /// Longest answer of a request in tokens, whatever the context has room for.
    pub(crate) fn max_tokens(&self, request: &Request) -> usize {
        let configured = self.config.generation.max_new_tokens;
        let wanted = request.max_tokens.or(configured);
        wanted.unwrap_or(MAX_NEW_TOKENS).max(1)
    }

    /// Longest speech of a request in frames: its own limit, else the checkpoint's, whose last code the reference never
    /// expands.
    pub(crate) fn max_frames(&self, speech: &SpeechRequest) -> usize {
        let configured = self.config.generation.talker_max_new_tokens;
        let configured = configured.unwrap_or(MAX_NEW_CODES).saturating_sub(1);
        let talker = self.config.talker.as_ref();
        let most = talker.map_or(0, |talker| talker.text_config.max_position_embeddings);
        speech.max_frames.unwrap_or(configured).min(most)
    }

    /// Rows of the thinker that the prompt of a request and its longest answer have.
    pub(crate) fn rows(&self, request: &Request, prompt: &Prompt) -> usize {
        let length = prompt.ids.len();
        length + self.max_tokens(request).min(self.context - length)
    }

    /// Rows that the caches of an answer need, which goes on behind what is kept.
    pub(crate) fn cache_rows(&self, request: &Request, prompt: &Prompt, kept: &Kept) -> Rows {
        let spoken = request.speech.as_ref().zip(self.speech.as_ref());
        let talker = spoken.map_or(0, |(speech, model)| {
            let turns = talker::Turns::new(&prompt.ids, &model.turn_ids);
            turns.map_or(0, |turns| turns.talker_rows()) + self.max_frames(speech)
        });
        let heard = self.speech.is_some() && (spoken.is_some() || !prompt.spans.is_empty());
        let kept = kept.rows();
        let accepted = if heard { prompt.ids.len() } else { 0 };
        Rows {
            thinker: self.rows(request, prompt).max(kept.thinker),
            talker: talker.max(kept.talker),
            accepted: accepted.max(kept.accepted),
        }
    }

    /// The captured caches that an answer of so many rows can use, when no other answer has them.
    pub(crate) fn captures(&self, request: &Request, rows: Rows) -> Captures {
        let speech = self.speech.as_ref().filter(|_| request.speech.is_some());
        Captures {
            thinker: self.captured.as_ref().is_some_and(Captured::is_usable),
            speech: speech.is_some_and(|speech| speech.can_hold(rows.talker)),
        }
    }

    /// The room for caches that a memory limit leaves.
    pub(crate) fn budget(&self, plan: &MemoryPlan, limit: Option<u64>) -> Budget {
        let captured = Captures {
            thinker: self.captured.is_some(),
            speech: self.speech.as_ref().is_some_and(SpeechModel::is_captured),
        };
        match limit {
            Some(limit) => Budget::of(plan, self.row_bytes(), captured, limit),
            None => Budget::endless(self.row_bytes()),
        }
    }

    /// Bytes of rows in caches that are not captured.
    pub(crate) fn row_bytes(&self) -> RowBytes {
        let talker = self
            .config
            .talker
            .as_ref()
            .filter(|_| self.speech.is_some());
        let hidden = self.config.thinker.text_config.hidden_size as u64;
        RowBytes {
            thinker: thinker_row(&self.config) * self.kv.bytes(false),
            talker: talker.map_or(0, talker_row) * ELEMENT,
            accepted: talker.map_or(0, |_| hidden * ELEMENT),
        }
    }

    /// The checkpoint's sampling, with the reference's values where it has none; greedy unless `do_sample` is set.
    pub(crate) fn sampling(&self) -> Sampling {
        let generation = &self.config.generation;
        let drawn = generation.do_sample == Some(true);
        Sampling {
            temperature: if drawn {
                generation.temperature.unwrap_or(1.0) as f32
            } else {
                0.0
            },
            top_k: generation.top_k.unwrap_or(50),
            top_p: generation.top_p.unwrap_or(1.0) as f32,
            repetition_penalty: generation.repetition_penalty.unwrap_or(1.0) as f32,
        }
    }
}

/// Waits until a device has done what was queued; an error is what it said, in one line.
pub(crate) fn wait(device: &Device) -> Result<(), String> {
    device.sync().map_err(|error| {
        let text = error.to_string();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        lines.join(" ")
    })
}

/// The names of the voices.
pub(crate) fn voices(config: &Config) -> Vec<String> {
    let talker = config.talker.iter();
    talker
        .flat_map(|talker| talker.speaker_id.keys().cloned())
        .collect()
}

/// The codec id of a voice of a checkpoint, or of its own choice.
pub(crate) fn speaker(dir: &Path, config: &Config, voice: Option<&str>) -> Result<u32, Error> {
    let (Some(talker), Some(_)) = (&config.talker, &config.code2wav) else {
        let missing = match &config.talker {
            None => "talker",
            Some(_) => "code2wav",
        };
        return Err(Error::CannotSpeak {
            dir: dir.into(),
            missing,
        });
    };
    let found = match voice {
        Some(voice) => talker.speaker(voice),
        None => talker.default_speaker().map(|(_, id)| id),
    };
    found.ok_or_else(|| Error::UnknownVoice {
        voice: voice.unwrap_or_default().to_owned(),
        voices: voices(config),
    })
}
