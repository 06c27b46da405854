//! The chat template: a conversation → the text of the prompt.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::SystemTime;

use minijinja::{Environment, Error, Value};
use serde_json::Map;

use crate::processor::jinja;
use crate::processor::text_files::TextFiles;
use crate::processor::{Message, TextError};

const TEMPLATE_NAME: &str = "chat_template";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// The behaviour that `spec E.4` documents, for checkpoints without a template of their own.
pub(super) const FALLBACK: &str = include_str!("fallback_template.jinja");

/// What a template is rendered with besides the messages.
#[derive(Debug, Clone, Default)]
pub struct RenderOptions {
    /// JSON signatures of the tools that the model may call; empty means none.
    pub tools: Vec<serde_json::Value>,
    /// Ends the prompt with the opening of an assistant turn.
    pub add_generation_prompt: bool,
    /// The time that `strftime_now` gives, in UTC; `None` is the system's clock. Only templates
    /// that print a date ask.
    pub now: Option<SystemTime>,
    /// Further variables of the template, such as `enable_thinking`.
    pub variables: Map<String, serde_json::Value>,
}

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Special tokens by name (`eos_token`, `audio_token`, …), which the reference also hands to
    /// the template.
    special_tokens: BTreeMap<String, String>,
    /// Where the template came from, for messages.
    file: String,
    fallback: bool,
}

impl ChatTemplate {
    /// Takes the checkpoint's template from `chat_template.json`, else `chat_template.jinja`, else
    /// `tokenizer_config.json` (the reference's order), else the compiled-in one: then
    /// [`ChatTemplate::is_fallback`] is true.
    pub fn load(dir: &Path) -> Result<Self, TextError> {
        let files = TextFiles::new(dir);
        let config = match files.read(TOKENIZER_CONFIG)? {
            Some(text) => parse_json(TOKENIZER_CONFIG, &text)?,
            None => serde_json::Value::Null,
        };
        let found = find_template(&files, &config)?;
        let fallback = found.is_none();
        let (file, source) = found.unwrap_or_else(|| ("built-in template".into(), FALLBACK.into()));
        let mut template = Self::compile(&file, source)?;
        template.special_tokens = special_tokens(&config);
        template.fallback = fallback;
        Ok(template)
    }

    /// Compiles a template from its text; no special token is known to it.
    pub fn from_source(source: &str) -> Result<Self, TextError> {
        Self::compile("chat template", source.to_owned())
    }

    /// The compiled-in template.
    pub fn built_in() -> Result<Self, TextError> {
        Self::from_source(FALLBACK).map(|template| Self {
            fallback: true,
            ..template
        })
    }

    /// The checkpoint has no template of its own: worth a warning, since a model follows the one
    /// that it was trained with.
    pub fn is_fallback(&self) -> bool {
        self.fallback
    }

    /// The prompt of `messages`, placeholders not yet expanded. Fails where the template refuses
    /// the conversation.
    pub fn render<M>(
        &self,
        messages: &[Message<M>],
        options: &RenderOptions,
    ) -> Result<String, TextError> {
        let mut context: BTreeMap<String, Value> = self
            .special_tokens
            .iter()
            .map(|(name, token)| (name.clone(), Value::from(token.as_str())))
            .collect();
        for (name, value) in &options.variables {
            context.insert(name.clone(), jinja::value(value));
        }
        let messages: Value = messages
            .iter()
            .map(|message| jinja::value(&message.to_template_value()))
            .collect();
        let tools = match options.tools.as_slice() {
            [] => Value::from(()),
            tools => tools.iter().map(jinja::value).collect(),
        };
        context.insert("messages".into(), messages);
        context.insert("tools".into(), tools);
        context.insert("documents".into(), Value::from(()));
        context.insert(
            "add_generation_prompt".into(),
            Value::from(options.add_generation_prompt),
        );
        context.insert(
            "strftime_now".into(),
            jinja::strftime_now(options.now.unwrap_or_else(SystemTime::now)),
        );
        // A template is a file of somebody else's, and the engine has panicked on some.
        let rendered = catch_unwind(AssertUnwindSafe(|| {
            let template = self.environment.get_template(TEMPLATE_NAME)?;
            template.render(context)
        }));
        let reason = match rendered {
            Ok(Ok(text)) => return Ok(text),
            Ok(Err(error)) => one_line(&error),
            Err(_) => "the template engine fails on an expression".into(),
        };
        Err(TextError::Render {
            file: self.file.clone(),
            reason,
        })
    }

    fn compile(file: &str, source: String) -> Result<Self, TextError> {
        let mut environment = jinja::environment();
        environment
            .add_template_owned(TEMPLATE_NAME, source)
            .map_err(|error| TextError::BadTemplate {
                file: file.to_owned(),
                reason: one_line(&error),
            })?;
        Ok(Self {
            environment,
            special_tokens: BTreeMap::new(),
            file: file.to_owned(),
            fallback: false,
        })
    }
}

/// (file, source) of the checkpoint's template.
fn find_template(
    files: &TextFiles<'_>,
    tokenizer_config: &serde_json::Value,
) -> Result<Option<(String, String)>, TextError> {
    const JSON: &str = "chat_template.json";
    const JINJA: &str = "chat_template.jinja";
    if let Some(text) = files.read(JSON)? {
        let value = parse_json(JSON, &text)?;
        let source = template_field(JSON, &value)?;
        return source.map_or_else(
            || Err(bad_field(JSON, "chat_template", "a template", "nothing")),
            |source| Ok(Some((JSON.to_owned(), source))),
        );
    }
    if let Some(source) = files.read(JINJA)? {
        return Ok(Some((JINJA.to_owned(), source)));
    }
    let source = template_field(TOKENIZER_CONFIG, tokenizer_config)?;
    Ok(source.map(|source| (TOKENIZER_CONFIG.to_owned(), source)))
}

/// Field `chat_template`: a text, or a list of named templates of which `default` is the one.
fn template_field(file: &str, value: &serde_json::Value) -> Result<Option<String>, TextError> {
    use serde_json::Value::{Array, Null, String};
    match value.get("chat_template") {
        None | Some(Null) => Ok(None),
        Some(String(source)) => Ok(Some(source.clone())),
        Some(Array(named)) => {
            let default = named.iter().find(|entry| entry["name"] == "default");
            match default.map(|entry| &entry["template"]) {
                Some(String(source)) => Ok(Some(source.clone())),
                _ => Err(bad_field(
                    file,
                    "chat_template",
                    "a template named `default`",
                    "none",
                )),
            }
        }
        Some(_) => Err(bad_field(file, "chat_template", "a text", "another type")),
    }
}

/// What transformers calls `special_tokens_map`: the named tokens of `tokenizer_config.json`.
fn special_tokens(config: &serde_json::Value) -> BTreeMap<String, String> {
    const NAMES: [&str; 7] = [
        "bos_token",
        "eos_token",
        "unk_token",
        "sep_token",
        "pad_token",
        "cls_token",
        "mask_token",
    ];
    let token = |value: &serde_json::Value| {
        let text = value
            .as_str()
            .or_else(|| value.get("content").and_then(|content| content.as_str()));
        text.map(str::to_owned)
    };
    let named = NAMES
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), token(config.get(name)?)?)));
    let extra = config
        .get("extra_special_tokens")
        .and_then(|extra| extra.as_object());
    let extra = extra
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), token(value)?)));
    named.chain(extra).collect()
}

fn parse_json(file: &str, text: &str) -> Result<serde_json::Value, TextError> {
    serde_json::from_str(text).map_err(|error| bad_field(file, "file", "JSON", &error.to_string()))
}

fn bad_field(file: &str, field: &str, expected: &str, found: &str) -> TextError {
    TextError::BadFile {
        file: file.to_owned(),
        field: field.to_owned(),
        expected: expected.to_owned(),
        found: found.to_owned(),
    }
}

/// The engine's message without its multi-line source listing.
fn one_line(error: &Error) -> String {
    let mut reason = error
        .detail()
        .map_or_else(|| error.kind().to_string(), str::to_owned);
    if let Some(line) = error.line() {
        reason.push_str(&format!(" (line {line})"));
    }
    reason.replace('\n', " ")
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
