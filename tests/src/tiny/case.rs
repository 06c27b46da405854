//! The conversations of `golden.json`, and what the reference says about them.

use std::collections::BTreeMap;

use burn_omni::{Content, Request, Sampling, SpeechRequest};
use burn_omni_model::processor::media::Video;
use burn_omni_model::processor::{self, Conversation, MediaInput, Message, Role};
use serde::Deserialize;

use super::media;

/// A conversation with what the reference made of it.
#[derive(Debug, Deserialize)]
pub struct Case {
    /// Turns, oldest first.
    pub messages: Vec<Turn>,
    /// The voice, when the answer is spoken.
    pub speak: Option<String>,
    /// Frames a second of the films; the reference takes 1 when nothing is said.
    pub fps: Option<f64>,
    /// The sound of the film.
    pub track: Option<Part>,
    /// What came out.
    #[serde(flatten)]
    pub facts: Facts,
}

/// What the reference made of a conversation.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the README of the golden values says it")]
pub struct Facts {
    pub prompt_ids: Vec<u32>,
    pub output_ids: Vec<u32>,
    pub rope_delta: f32,
    pub finish: String,
    #[serde(default)]
    pub mel: Vec<MelFacts>,
    #[serde(default)]
    pub image_grid_thw: Vec<[usize; 3]>,
    #[serde(default)]
    pub video_grid_thw: Vec<[usize; 3]>,
    pub image_mean_u8: Option<f64>,
    pub video_mean_u8: Option<f64>,
    #[serde(default)]
    pub second_per_grid: Vec<f32>,
    pub rows: BTreeMap<String, Vec<usize>>,
    pub talker_rope_delta: Option<f32>,
    pub frames: Option<usize>,
    pub talker_finish: Option<String>,
    pub samples: Option<usize>,
    pub wav_mean_abs: Option<f64>,
}

/// Size and content of a clip's log-mel.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the README of the golden values says it")]
pub struct MelFacts {
    pub frames: usize,
    pub mean: f64,
    pub mean_abs: f64,
}

/// One message.
#[derive(Debug, Deserialize)]
pub struct Turn {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: Words,
}

/// What a message says.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Words {
    /// Plain text.
    Text(String),
    /// Parts in order.
    Parts(Vec<Part>),
}

/// Text, or a medium by the numbers it is drawn from.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
#[expect(missing_docs, reason = "the fields are the arguments of the generator")]
pub enum Part {
    Text {
        text: String,
    },
    Audio {
        samples: u32,
        seed: u32,
    },
    Image {
        height: u32,
        width: u32,
        seed: u32,
    },
    Video {
        frames: u32,
        height: u32,
        width: u32,
        seed: u32,
    },
}

impl Case {
    /// The conversation with its media drawn.
    ///
    /// # Panics
    /// When a role is unknown.
    #[must_use]
    pub fn conversation(&self) -> Conversation<MediaInput> {
        let message = |turn: &Turn| {
            let role = match turn.role.as_str() {
                "system" => Role::System,
                "user" => Role::User,
                "assistant" => Role::Assistant,
                other => panic!("role {other}"),
            };
            match &turn.content {
                Words::Text(text) => Message::text(role, text),
                Words::Parts(parts) => {
                    Message::parts(role, parts.iter().map(|part| self.part(part)))
                }
            }
        };
        Conversation {
            messages: self.messages.iter().map(message).collect(),
            tools: Vec::new(),
        }
    }

    /// The case as a request for text, greedy, with at most so many tokens.
    ///
    /// # Panics
    /// When a role is unknown.
    #[must_use]
    pub fn text_request(&self, tokens: usize) -> Request {
        let mut request = Request::new().sampling(Sampling::GREEDY).max_tokens(tokens);
        for turn in &self.messages {
            request = match (turn.role.as_str(), &turn.content) {
                ("system", Words::Text(text)) => request.system(text),
                ("assistant", Words::Text(text)) => request.assistant(text),
                ("user", Words::Parts(parts)) => {
                    request.user(parts.iter().map(|part| match self.part(part) {
                        processor::Content::Text(text) => Content::text(text),
                        processor::Content::Audio(medium)
                        | processor::Content::Image(medium)
                        | processor::Content::Video(medium) => Content::medium(medium),
                    }))
                }
                other => panic!("no request has {other:?}"),
            };
        }
        request
    }

    /// The case as a request whose answer is spoken, where the reference's is: greedy everywhere, with at most so many
    /// tokens and frames.
    ///
    /// # Panics
    /// When a role is unknown.
    #[must_use]
    pub fn request(&self, [tokens, frames]: [usize; 2]) -> Request {
        let request = self.text_request(tokens);
        match &self.speak {
            Some(voice) => request.speech(SpeechRequest {
                voice: Some(voice.clone()),
                temperature: Some(0.0),
                max_frames: Some(frames),
                ..SpeechRequest::default()
            }),
            None => request,
        }
    }

    fn part(&self, part: &Part) -> processor::Content<MediaInput> {
        match *part {
            Part::Text { ref text } => processor::Content::Text(text.clone()),
            Part::Audio { samples, seed } => {
                processor::Content::Audio(MediaInput::Audio(media::clip(samples, seed)))
            }
            Part::Image {
                height,
                width,
                seed,
            } => processor::Content::Image(MediaInput::Image(media::image(height, width, seed))),
            Part::Video {
                frames,
                height,
                width,
                seed,
            } => {
                let film = Video {
                    frames: media::video(frames, height, width, seed),
                    fps: Some(self.fps.unwrap_or(1.0)),
                };
                let sound = self.track.as_ref().map(|track| match *track {
                    Part::Audio { samples, seed } => media::clip(samples, seed),
                    _ => panic!("a track is a clip"),
                });
                processor::Content::Video(MediaInput::Video(film, sound))
            }
        }
    }
}
