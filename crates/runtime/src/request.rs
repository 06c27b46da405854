//! What is asked.

use std::path::PathBuf;

use burn_omni_model::processor::media::Pcm;
use burn_omni_model::processor::{self, Conversation, Features, MediaInput, Message, Role};

use crate::{Error, Sampling};

/// One part of what the user says.
#[derive(Clone, Debug)]
pub struct Content(Part);

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Audio(Media),
    Image(Media),
    Video(Media),
}

/// A medium in memory, in a file, or as an earlier turn of a conversation prepared it.
#[derive(Clone, Debug)]
pub(crate) enum Media {
    Decoded(MediaInput),
    File(PathBuf),
    Prepared(Features),
}

impl Content {
    /// Text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self(Part::Text(text.into()))
    }

    /// Samples.
    #[must_use]
    pub fn audio(pcm: Pcm) -> Self {
        Self(Part::Audio(Media::Decoded(MediaInput::Audio(pcm))))
    }

    /// An audio file: wav, flac, mp3, ogg or m4a.
    #[must_use]
    pub fn audio_file(path: impl Into<PathBuf>) -> Self {
        Self(Part::Audio(Media::File(path.into())))
    }

    /// A picture file: png, jpeg, webp or gif.
    #[must_use]
    pub fn image_file(path: impl Into<PathBuf>) -> Self {
        Self(Part::Image(Media::File(path.into())))
    }

    /// A medium in memory.
    #[must_use]
    pub fn medium(medium: MediaInput) -> Self {
        Self(match medium {
            MediaInput::Audio(_) => Part::Audio(Media::Decoded(medium)),
            MediaInput::Image(_) => Part::Image(Media::Decoded(medium)),
            MediaInput::Video(..) => Part::Video(Media::Decoded(medium)),
        })
    }

    /// A film: a folder of frames, a gif, or any file that FFmpeg reads.
    #[must_use]
    pub fn video_file(path: impl Into<PathBuf>) -> Self {
        Self(Part::Video(Media::File(path.into())))
    }
}

/// How an answer is to be spoken.
#[derive(Clone, Debug, PartialEq)]
pub struct SpeechRequest {
    /// Name of the voice; `None` is the checkpoint's own choice.
    pub voice: Option<String>,
    /// How codes are chosen; `None` takes the checkpoint's settings.
    pub sampling: Option<Sampling>,
    /// Temperature of the talker alone; 0 makes talker and code predictor greedy.
    pub temperature: Option<f32>,
    /// Longest speech in frames of 80 ms; `None` takes the checkpoint's setting.
    pub max_frames: Option<usize>,
    /// Frames of the first packet of samples.
    pub first_chunk: usize,
    /// Frames of the largest packets; those before them double, so that a player's reserve grows with them.
    pub chunk: usize,
}

impl Default for SpeechRequest {
    fn default() -> Self {
        Self {
            voice: None,
            sampling: None,
            temperature: None,
            max_frames: None,
            first_chunk: 4,
            chunk: 25,
        }
    }
}

/// What happens to a conversation that the context has no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The request is refused.
    #[default]
    Error,
    /// The oldest turns are forgotten, each question with its answer, until there is room for an answer: a quarter of the
    /// context, or as much as the answer may take. System turns and the last question stay.
    DropOldest,
}

/// A conversation whose next turn is the assistant's, and how to answer it.
#[derive(Clone, Debug)]
pub struct Request {
    pub(crate) conversation: Conversation<Media>,
    pub(crate) sampling: Option<Sampling>,
    pub(crate) max_tokens: Option<usize>,
    pub(crate) min_tokens: usize,
    pub(crate) seed: u64,
    pub(crate) speech: Option<SpeechRequest>,
    pub(crate) use_audio_in_video: bool,
    pub(crate) on_overflow: Overflow,
    /// Whether nothing but its limits ends the answer.
    pub(crate) endless: bool,
}

impl Default for Request {
    fn default() -> Self {
        Self::new()
    }
}

impl Request {
    /// An empty request.
    #[must_use]
    pub fn new() -> Self {
        Self {
            conversation: Conversation {
                messages: Vec::new(),
                tools: Vec::new(),
            },
            sampling: None,
            max_tokens: None,
            min_tokens: 0,
            seed: 0,
            speech: None,
            use_audio_in_video: false,
            on_overflow: Overflow::Error,
            endless: false,
        }
    }

    /// Appends a system turn.
    #[must_use]
    pub fn system(self, text: impl Into<String>) -> Self {
        self.message(Message::text(Role::System, text))
    }

    /// Appends a user turn.
    #[must_use]
    pub fn user(self, parts: impl IntoIterator<Item = Content>) -> Self {
        let parts = parts.into_iter().map(|Content(part)| match part {
            Part::Text(text) => processor::Content::Text(text),
            Part::Audio(medium) => processor::Content::Audio(medium),
            Part::Image(medium) => processor::Content::Image(medium),
            Part::Video(medium) => processor::Content::Video(medium),
        });
        let message = Message::parts(Role::User, parts);
        self.message(message)
    }

    /// Appends what the assistant answered before.
    #[must_use]
    pub fn assistant(self, text: impl Into<String>) -> Self {
        self.message(Message::text(Role::Assistant, text))
    }

    /// Appends a whole conversation whose media are files; relative paths are below `folder`.
    #[must_use]
    pub fn conversation(
        mut self,
        conversation: Conversation<String>,
        folder: &std::path::Path,
    ) -> Self {
        let Ok(read) = conversation
            .map_media::<_, std::convert::Infallible>(|_, path| Ok(Media::File(folder.join(path))));
        self.conversation.messages.extend(read.messages);
        self.conversation.tools.extend(read.tools);
        self
    }

    /// How tokens are chosen; without it, as the checkpoint says, and greedily where it says nothing.
    #[must_use]
    pub fn sampling(mut self, sampling: Sampling) -> Self {
        self.sampling = Some(sampling);
        self
    }

    /// Longest answer in tokens.
    #[must_use]
    pub fn max_tokens(mut self, tokens: usize) -> Self {
        self.max_tokens = Some(tokens);
        self
    }

    /// Shortest answer in tokens: before it, the tokens that end an answer are not chosen.
    #[must_use]
    pub fn min_tokens(mut self, tokens: usize) -> Self {
        self.min_tokens = tokens;
        self
    }

    /// Seed of every draw; the same seed gives the same answer. On a GPU that holds for answers given one at a time: of two at
    /// once only one has the captured step, whose cache rounds to bf16.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Asks for speech in this voice.
    #[must_use]
    pub fn speak(self, voice: impl Into<String>) -> Self {
        self.speech(SpeechRequest {
            voice: Some(voice.into()),
            ..SpeechRequest::default()
        })
    }

    /// Asks for speech.
    #[must_use]
    pub fn speech(mut self, speech: SpeechRequest) -> Self {
        self.speech = Some(speech);
        self
    }

    /// Whether the sound of films is heard (`use_audio_in_video`).
    #[must_use]
    pub fn use_audio_in_video(mut self, heard: bool) -> Self {
        self.use_audio_in_video = heard;
        self
    }

    /// What happens when the context has no room; without it the request is refused.
    #[must_use]
    pub fn on_overflow(mut self, on_overflow: Overflow) -> Self {
        self.on_overflow = on_overflow;
        self
    }

    fn message(mut self, message: Message<Media>) -> Self {
        self.conversation.messages.push(message);
        self
    }

    /// Checks what can be checked without a model.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.conversation.messages.is_empty() {
            return Err(Error::EmptyRequest);
        }
        for sampling in self
            .sampling
            .iter()
            .chain(self.speech.iter().flat_map(|speech| &speech.sampling))
        {
            sampling.check()?;
        }
        if let Some(temperature) = self.speech.as_ref().and_then(|speech| speech.temperature) {
            Sampling {
                temperature,
                ..Sampling::GREEDY
            }
            .check()?;
        }
        let positive = [
            ("max_tokens", self.max_tokens),
            (
                "max_frames",
                self.speech.as_ref().and_then(|speech| speech.max_frames),
            ),
            (
                "first_chunk",
                self.speech.as_ref().map(|speech| speech.first_chunk),
            ),
            ("chunk", self.speech.as_ref().map(|speech| speech.chunk)),
        ];
        for (field, value) in positive {
            if value == Some(0) {
                return Err(Error::BadSetting {
                    field,
                    expected: "1 or more".into(),
                    found: "0".into(),
                });
            }
        }
        Ok(())
    }
}
