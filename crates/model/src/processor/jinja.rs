//! Jinja as the reference configures it: the parts of Python that chat templates rely on.

use std::time::SystemTime;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value};
use minijinja_contrib::pycompat;

use crate::processor::{python_json, strftime};

/// Instructions that one rendering may take. The longest real conversation takes some thousands a
/// message; an endless loop is over in under a second.
const FUEL: u64 = 10_000_000;

/// The environment of `transformers.utils.chat_template_utils`: block trimming, loop controls,
/// Python's string and map methods, Python's `tojson`, `raise_exception`. No auto-escape; undefined
/// values print as nothing.
pub(crate) fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build();
    env.set_syntax(syntax.expect("the default delimiters are valid"));
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.set_unknown_method_callback(pycompat::unknown_method_callback);
    env.set_fuel(Some(FUEL));
    env.add_filter("tojson", python_json::tojson);
    env.add_function("raise_exception", raise_exception);
    env
}

/// JSON as the engine's value; keys keep their order, integers stay integers.
pub(crate) fn value(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(flag) => Value::from(*flag),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(integer), _) => Value::from(integer),
            (None, Some(integer)) => Value::from(integer),
            (None, None) => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(items) => items.iter().map(value).collect(),
        serde_json::Value::Object(fields) => Value::from_pairs(
            fields
                .iter()
                .map(|(name, field)| (name.as_str(), value(field))),
        ),
    }
}

/// A function that formats `now` as Python's `datetime.strftime` does, in UTC.
pub(crate) fn strftime_now(now: SystemTime) -> Value {
    Value::from_function(move |format: String| strftime::format(&format, now))
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

#[cfg(test)]
#[path = "jinja_tests.rs"]
mod tests;
