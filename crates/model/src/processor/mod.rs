//! Request → prompt, on the CPU.
//!
//! The text half: [`Conversation`] (JSON) → [`ChatTemplate::render`] → [`Tokenizer::encode`] →
//! [`expand`] (one placeholder becomes as many as its medium has rows) → [`positions`()] (three axes
//! a token). [`TextStream`] is the way back: ids → text.

pub mod media;

mod content;
mod jinja;
mod medium;
mod message;
mod placeholders;
mod positions;
mod prompt;
mod python_json;
#[cfg(test)]
mod reference_fixture;
mod strftime;
mod template;
mod text_error;
mod text_files;
mod text_stream;
mod tokenizer;
mod untrained;
mod vocabulary;

pub use content::{Content, MediaKind};
pub use medium::{Grid, Medium};
pub use message::{Conversation, Message, MessageContent, Role};
pub use placeholders::{ExpandedPrompt, MediaSpan, SpecialTokens, expand};
pub use positions::{Positions, positions};
pub use prompt::{Features, MediaInput, Processor, ProcessorError, Prompt, special_tokens};
pub use template::{ChatTemplate, RenderOptions};
pub use text_error::TextError;
pub use text_stream::TextStream;
pub use tokenizer::Tokenizer;
pub use untrained::side_files;
