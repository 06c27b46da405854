//! One part of a message: text or a medium.

use std::fmt;

use serde_json::{Value, json};

/// The kinds of media that a message can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaKind {
    /// Speech or sound.
    Audio,
    /// A still picture.
    Image,
    /// Moving pictures, with or without their sound.
    Video,
}

impl MediaKind {
    /// All kinds, in the order in which the reference scans for them.
    pub const ALL: [Self; 3] = [Self::Audio, Self::Image, Self::Video];

    /// The kind's name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Image => "image",
            Self::Video => "video",
        }
    }

    /// The token that stands for one row of this kind in a prompt.
    pub fn placeholder(self) -> &'static str {
        match self {
            Self::Audio => "<|audio_pad|>",
            Self::Image => "<|image_pad|>",
            Self::Video => "<|video_pad|>",
        }
    }
}

impl fmt::Display for MediaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One part of a message. `M` is what stands for a medium: a path as typed, an index, decoded
/// samples.
#[derive(Debug, Clone, PartialEq)]
pub enum Content<M = String> {
    /// Text, verbatim.
    Text(String),
    /// A clip.
    Audio(M),
    /// A picture.
    Image(M),
    /// A film.
    Video(M),
}

/// An error within one part, before the indices of message and part are known.
pub(crate) struct PartError {
    pub(crate) field: String,
    pub(crate) expected: &'static str,
    pub(crate) found: String,
}

impl<M> Content<M> {
    /// The medium, if this part is one.
    pub fn medium(&self) -> Option<(MediaKind, &M)> {
        match self {
            Self::Text(_) => None,
            Self::Audio(medium) => Some((MediaKind::Audio, medium)),
            Self::Image(medium) => Some((MediaKind::Image, medium)),
            Self::Video(medium) => Some((MediaKind::Video, medium)),
        }
    }

    /// The part that holds `medium`.
    pub fn from_medium(kind: MediaKind, medium: M) -> Self {
        match kind {
            MediaKind::Audio => Self::Audio(medium),
            MediaKind::Image => Self::Image(medium),
            MediaKind::Video => Self::Video(medium),
        }
    }

    pub(crate) fn map_medium<N, E>(
        self,
        replace: &mut impl FnMut(MediaKind, M) -> Result<N, E>,
    ) -> Result<Content<N>, E> {
        let (kind, medium) = match self {
            Self::Text(text) => return Ok(Content::Text(text)),
            Self::Audio(medium) => (MediaKind::Audio, medium),
            Self::Image(medium) => (MediaKind::Image, medium),
            Self::Video(medium) => (MediaKind::Video, medium),
        };
        Ok(Content::from_medium(kind, replace(kind, medium)?))
    }

    pub(crate) fn to_template_value(&self) -> Value {
        let (name, value) = match self {
            Self::Text(text) => ("text", text.as_str()),
            Self::Audio(_) => ("audio", "audio"),
            Self::Image(_) => ("image", "image"),
            Self::Video(_) => ("video", "video"),
        };
        json!({ "type": name, name: value })
    }
}

impl Content<String> {
    pub(crate) fn to_value(&self) -> Value {
        match self {
            Self::Text(text) => json!({ "type": "text", "text": text }),
            Self::Audio(path) | Self::Image(path) | Self::Video(path) => {
                let name = self.medium().map_or("text", |(kind, _)| kind.name());
                json!({ "type": name, name: path })
            }
        }
    }

    /// Reads `{type, text|audio|image|video: value}`; a part with one field says itself what it is.
    pub(crate) fn from_value(value: Value) -> Result<Self, PartError> {
        const PART: &str = "an object with `type` and `text`, `audio`, `image` or `video`";
        const KINDS: &str = "`text`, `audio`, `image` or `video`";
        let Value::Object(mut part) = value else {
            return Err(PartError::new("", PART, describe(&value)));
        };
        let name = match part.shift_remove("type") {
            Some(Value::String(name)) => name,
            None if part.len() == 1 => part.keys().next().cloned().unwrap_or_default(),
            other => {
                return Err(PartError::new(
                    "type",
                    KINDS,
                    describe_option(other.as_ref()),
                ));
            }
        };
        let kind = MediaKind::ALL.into_iter().find(|kind| kind.name() == name);
        if kind.is_none() && name != "text" {
            return Err(PartError::new("type", KINDS, format!("`{name}`")));
        }
        let text = match part.shift_remove(&name) {
            Some(Value::String(text)) => text,
            other => {
                return Err(PartError::new(
                    &name,
                    "a text",
                    describe_option(other.as_ref()),
                ));
            }
        };
        // An ignored option (a frame rate, a crop) would change the answer without a word.
        if let Some((other, value)) = part.iter().next() {
            return Err(PartError::new(other, "no such field", describe(value)));
        }
        Ok(match kind {
            None => Self::Text(text),
            Some(kind) => Self::from_medium(kind, text),
        })
    }
}

impl PartError {
    fn new(field: &str, expected: &'static str, found: String) -> Self {
        let field = if field.is_empty() {
            String::new()
        } else {
            format!(".{field}")
        };
        Self {
            field,
            expected,
            found,
        }
    }
}

/// A field in a few words, for an error message.
pub(crate) fn describe_option(value: Option<&Value>) -> String {
    value.map_or_else(|| "nothing".into(), describe)
}

/// A JSON value in a few words, for an error message.
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "a boolean".into(),
        Value::Number(_) => "a number".into(),
        Value::String(text) if text.chars().count() <= 40 => format!("`{}`", text.escape_debug()),
        Value::String(_) => "a text".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
    }
}
