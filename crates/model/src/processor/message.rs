//! A conversation as data, read from the JSON of `--messages`.

use serde_json::{Map, Value, json};

use crate::processor::content::{describe, describe_option};
use crate::processor::{Content, MediaKind, TextError};

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Instructions for the model.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

impl Role {
    /// The role's name in JSON and in chat templates.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::System, Self::User, Self::Assistant, Self::Tool]
            .into_iter()
            .find(|role| role.name() == name)
    }
}

/// What a message says. A plain text is kept apart from a list of one text because chat templates
/// tell them apart: in the history rules of `spec E.4` only a user message of plain text is a
/// query.
#[derive(Debug, Clone, PartialEq)]
pub enum MessageContent<M = String> {
    /// Plain text.
    Text(String),
    /// Parts in order.
    Parts(Vec<Content<M>>),
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct Message<M = String> {
    /// Who speaks.
    pub role: Role,
    /// What is said; `None` only where an assistant does nothing but call tools.
    pub content: Option<MessageContent<M>>,
    /// Every other field (`tool_calls`, `reasoning_content`, `name`, …), passed to the chat
    /// template untouched.
    pub extra: Map<String, Value>,
}

/// A list of messages, with the tools that the model may call.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Conversation<M = String> {
    /// Messages, oldest first.
    pub messages: Vec<Message<M>>,
    /// JSON signatures of tools, passed to the chat template untouched; empty means none.
    pub tools: Vec<Value>,
}

impl Conversation<String> {
    /// Reads a list of `{role, content}`, or an object with `messages` and optionally `tools`.
    /// Media stay what was typed.
    pub fn from_json(text: &str) -> Result<Self, TextError> {
        let value = serde_json::from_str(text).map_err(|error| TextError::BadConversation {
            expected: "JSON",
            found: error.to_string(),
        })?;
        Self::from_value(value)
    }

    /// The same from parsed JSON.
    pub fn from_value(value: Value) -> Result<Self, TextError> {
        let (messages, tools) = match value {
            Value::Array(messages) => (messages, Vec::new()),
            Value::Object(mut object) => {
                let Some(Value::Array(messages)) = object.shift_remove("messages") else {
                    return Err(bad_conversation(
                        "an object with a list `messages`",
                        &Value::Object(object),
                    ));
                };
                let tools = match object.shift_remove("tools") {
                    None | Some(Value::Null) => Vec::new(),
                    Some(Value::Array(tools)) => tools,
                    Some(other) => return Err(bad_conversation("`tools` to be a list", &other)),
                };
                if let Some(name) = object.keys().next() {
                    return Err(TextError::BadConversation {
                        expected: "only the fields `messages` and `tools`",
                        found: format!("`{name}`"),
                    });
                }
                (messages, tools)
            }
            other => return Err(bad_conversation("a list of messages", &other)),
        };
        let messages = messages
            .into_iter()
            .enumerate()
            .map(|(index, value)| Message::from_value(index, value));
        Ok(Self {
            messages: messages.collect::<Result<_, _>>()?,
            tools,
        })
    }
}

impl Conversation<String> {
    /// The JSON that [`Conversation::from_value`] reads the same conversation from.
    pub fn to_value(&self) -> Value {
        let messages = self.messages.iter().map(Message::to_value).collect();
        if self.tools.is_empty() {
            return Value::Array(messages);
        }
        json!({ "messages": Value::Array(messages), "tools": self.tools })
    }
}

impl<M> Conversation<M> {
    /// Forgets the oldest question with what follows it up to the next; whether there was one besides the last.
    pub fn drop_oldest(&mut self) -> bool {
        let asks = |message: &Message<M>| message.role == Role::User;
        let mut questions = (0..self.messages.len()).filter(|i| asks(&self.messages[*i]));
        let (Some(oldest), Some(next)) = (questions.next(), questions.next()) else {
            return false;
        };
        drop(questions);
        self.messages.drain(oldest..next);
        true
    }

    /// All media in order of appearance.
    pub fn media(&self) -> impl Iterator<Item = (MediaKind, &M)> {
        self.messages.iter().flat_map(Message::media)
    }

    /// The same conversation with every medium replaced, in order of appearance: a path becomes
    /// what was decoded from it.
    pub fn map_media<N, E>(
        self,
        mut replace: impl FnMut(MediaKind, M) -> Result<N, E>,
    ) -> Result<Conversation<N>, E> {
        let messages = self
            .messages
            .into_iter()
            .map(|message| message.map_media(&mut replace));
        Ok(Conversation {
            messages: messages.collect::<Result<_, _>>()?,
            tools: self.tools,
        })
    }
}

impl<M> Message<M> {
    /// A message of plain text.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self {
            role,
            content: Some(MessageContent::Text(text.into())),
            extra: Map::new(),
        }
    }

    /// A message of parts.
    pub fn parts(role: Role, parts: impl IntoIterator<Item = Content<M>>) -> Self {
        Self {
            role,
            content: Some(MessageContent::Parts(parts.into_iter().collect())),
            extra: Map::new(),
        }
    }

    /// All media in order of appearance.
    pub fn media(&self) -> impl Iterator<Item = (MediaKind, &M)> {
        let parts = match &self.content {
            Some(MessageContent::Parts(parts)) => parts.as_slice(),
            _ => &[],
        };
        parts.iter().filter_map(Content::medium)
    }

    fn map_media<N, E>(
        self,
        replace: &mut impl FnMut(MediaKind, M) -> Result<N, E>,
    ) -> Result<Message<N>, E> {
        let content = match self.content {
            None => None,
            Some(MessageContent::Text(text)) => Some(MessageContent::Text(text)),
            Some(MessageContent::Parts(parts)) => {
                let parts = parts.into_iter().map(|part| part.map_medium(replace));
                Some(MessageContent::Parts(parts.collect::<Result<_, _>>()?))
            }
        };
        Ok(Message {
            role: self.role,
            content,
            extra: self.extra,
        })
    }

    /// The message as the chat template sees it. A medium is shown as its kind: templates ask only
    /// what a part is.
    pub(crate) fn to_template_value(&self) -> Value {
        let mut object = Map::new();
        object.insert("role".into(), self.role.name().into());
        match &self.content {
            None => {}
            Some(MessageContent::Text(text)) => {
                object.insert("content".into(), text.as_str().into());
            }
            Some(MessageContent::Parts(parts)) => {
                let parts = parts.iter().map(Content::to_template_value).collect();
                object.insert("content".into(), Value::Array(parts));
            }
        }
        object.extend(
            self.extra
                .iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        Value::Object(object)
    }
}

impl Message<String> {
    fn to_value(&self) -> Value {
        let mut object = Map::new();
        object.insert("role".into(), self.role.name().into());
        let content = self.content.as_ref().map(|content| match content {
            MessageContent::Text(text) => text.as_str().into(),
            MessageContent::Parts(parts) => parts.iter().map(Content::to_value).collect(),
        });
        object.extend(content.map(|content: Value| ("content".into(), content)));
        object.extend(self.extra.clone());
        Value::Object(object)
    }

    fn from_value(index: usize, value: Value) -> Result<Self, TextError> {
        let bad = |field: String, expected, found| TextError::BadMessage {
            message: index,
            field,
            expected,
            found,
        };
        let Value::Object(mut extra) = value else {
            return Err(bad(
                "message".into(),
                "an object with `role` and `content`",
                describe(&value),
            ));
        };
        let role = extra.shift_remove("role");
        let role = role
            .as_ref()
            .and_then(Value::as_str)
            .and_then(Role::from_name)
            .ok_or_else(|| {
                let found = describe_option(role.as_ref());
                bad(
                    "role".into(),
                    "`system`, `user`, `assistant` or `tool`",
                    found,
                )
            })?;
        let content = match extra.shift_remove("content") {
            Some(Value::String(text)) => Some(MessageContent::Text(text)),
            Some(Value::Array(parts)) => {
                let parts = parts.into_iter().enumerate().map(|(part, value)| {
                    Content::from_value(value).map_err(|e| {
                        bad(format!("content[{part}]{}", e.field), e.expected, e.found)
                    })
                });
                Some(MessageContent::Parts(parts.collect::<Result<_, _>>()?))
            }
            None | Some(Value::Null)
                if role == Role::Assistant && extra.contains_key("tool_calls") =>
            {
                None
            }
            other => {
                let found = describe_option(other.as_ref());
                return Err(bad("content".into(), "a text or a list of parts", found));
            }
        };
        Ok(Self {
            role,
            content,
            extra,
        })
    }
}

fn bad_conversation(expected: &'static str, value: &Value) -> TextError {
    TextError::BadConversation {
        expected,
        found: describe(value),
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
