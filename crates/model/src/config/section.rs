//! Typed access to one object of a config file; every error carries the dotted path of the field.

use std::fmt;
use std::path::Path;

use serde_json::{Map, Value};

use super::ConfigError;

/// No size of a model comes near this; what is above it is a slip, or meant to exhaust memory.
const LARGEST_SIZE: usize = 1 << 24;

/// Largest count or width that is accepted; products of two of them fit in 64 bits.
const MAX_SIZE: u64 = i32::MAX as u64;

/// One JSON object with its place in its file. A `null` counts as absent.
#[derive(Clone, Debug)]
pub(super) struct Section<'a> {
    file: &'a Path,
    path: String,
    fields: &'a Map<String, Value>,
}

impl<'a> Section<'a> {
    /// The object `json`, found at `path` of `file`; an empty path is the whole file.
    pub(super) fn new(file: &'a Path, path: &str, json: &'a Value) -> Result<Self, ConfigError> {
        let fields = json.as_object().ok_or_else(|| ConfigError::InvalidValue {
            file: file.into(),
            field: if path.is_empty() {
                "(whole file)".into()
            } else {
                path.into()
            },
            expected: "an object".into(),
            found: shown(json),
        })?;
        Ok(Self {
            file,
            path: path.into(),
            fields,
        })
    }

    /// Dotted path of a field of this section.
    pub(super) fn field(&self, key: &str) -> String {
        let key = key.escape_debug();
        if self.path.is_empty() {
            key.to_string()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// How another section's messages refer to a field of this one.
    pub(super) fn reference(&self, key: &str, value: impl fmt::Display) -> String {
        format!("`{}` ({value})", self.field(key))
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.fields.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// The value, or the error for a missing field.
    pub(super) fn required<T>(&self, key: &str, value: Option<T>) -> Result<T, ConfigError> {
        value.ok_or_else(|| ConfigError::MissingField {
            file: self.file.into(),
            field: self.field(key),
        })
    }

    /// The value converted by `read`, where it is present.
    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        read(value)
            .map(Some)
            .ok_or_else(|| ConfigError::InvalidValue {
                file: self.file.into(),
                field: self.field(key),
                expected: expected.into(),
                found: shown(value),
            })
    }

    pub(super) fn section(&self, key: &str) -> Result<Section<'a>, ConfigError> {
        let section = self.optional_section(key)?;
        self.required(key, section)
    }

    pub(super) fn optional_section(&self, key: &str) -> Result<Option<Section<'a>>, ConfigError> {
        self.get(key)
            .map(|json| Section::new(self.file, &self.field(key), json))
            .transpose()
    }

    /// A count or width, at least 1.
    pub(super) fn size(&self, key: &str) -> Result<usize, ConfigError> {
        self.required(key, self.optional_size(key)?)
    }

    pub(super) fn optional_size(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        self.typed(key, "a whole number from 1 to 16777216", |value| {
            size(value).filter(|n| (1..=LARGEST_SIZE).contains(n))
        })
    }

    /// A count that may be 0.
    pub(super) fn optional_count(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        self.typed(key, "a whole number", size)
    }

    /// A size that has two names; both may be present when they agree.
    pub(super) fn size_of(&self, keys: [&str; 2]) -> Result<usize, ConfigError> {
        let values = [self.optional_size(keys[0])?, self.optional_size(keys[1])?];
        if let [Some(first), Some(second)] = values
            && first != second
        {
            return Err(self.contradiction(keys[0], first, self.reference(keys[1], second)));
        }
        self.required(keys[0], values[0].or(values[1]))
    }

    pub(super) fn sizes(&self, key: &str) -> Result<Vec<usize>, ConfigError> {
        let sizes = self.typed(key, "a list of whole numbers of at least 1", |value| {
            list(value, |item| size(item).filter(|&n| n > 0))
        })?;
        self.required(key, sizes)
    }

    /// A list of positions, which start at 0.
    pub(super) fn indexes(&self, key: &str) -> Result<Vec<usize>, ConfigError> {
        let indexes = self.typed(key, "a list of whole numbers", |value| list(value, size))?;
        self.required(key, indexes)
    }

    pub(super) fn optional_sizes3(&self, key: &str) -> Result<Option<[usize; 3]>, ConfigError> {
        self.typed(key, "a list of 3 whole numbers", |value| {
            list(value, size)?.try_into().ok()
        })
    }

    /// A token id.
    pub(super) fn id(&self, key: &str) -> Result<u32, ConfigError> {
        self.required(key, self.optional_id(key)?)
    }

    pub(super) fn optional_id(&self, key: &str) -> Result<Option<u32>, ConfigError> {
        self.typed(key, "a token id", id)
    }

    /// Token ids, written as one number or as a list.
    pub(super) fn optional_ids(&self, key: &str) -> Result<Option<Vec<u32>>, ConfigError> {
        self.typed(key, "a token id or a list of them", |value| {
            id(value).map(|id| vec![id]).or_else(|| list(value, id))
        })
    }

    /// A finite number above 0.
    pub(super) fn positive(&self, key: &str) -> Result<f64, ConfigError> {
        self.required(key, self.optional_positive(key)?)
    }

    pub(super) fn optional_positive(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.optional_number(key, "a number above 0", |number| number > 0.0)
    }

    pub(super) fn optional_number(
        &self,
        key: &str,
        expected: &str,
        accept: impl Fn(f64) -> bool,
    ) -> Result<Option<f64>, ConfigError> {
        self.typed(key, expected, |value| {
            value
                .as_f64()
                .filter(|number| number.is_finite() && accept(*number))
        })
    }

    pub(super) fn bool(&self, key: &str) -> Result<bool, ConfigError> {
        self.required(key, self.optional_bool(key)?)
    }

    pub(super) fn optional_bool(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub(super) fn text(&self, key: &str) -> Result<&'a str, ConfigError> {
        let text = self.typed(key, "a text", Value::as_str)?;
        self.required(key, text)
    }

    /// The keys of this object.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.fields.keys().map(String::as_str)
    }

    /// Refuses any value of `key` but `supported`; an absent key is fine.
    pub(super) fn only(&self, key: &str, supported: &Value) -> Result<(), ConfigError> {
        match self.get(key) {
            Some(found) if !same(found, supported) => {
                Err(self.unsupported(key, &shown(found), &shown(supported)))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a list that has any other item than `supported`; an absent key is fine.
    pub(super) fn only_repeated(&self, key: &str, supported: &Value) -> Result<(), ConfigError> {
        match self.get(key) {
            Some(found)
                if found
                    .as_array()
                    .is_none_or(|l| l.iter().any(|i| i != supported)) =>
            {
                let supported = format!("a list of {}", shown(supported));
                Err(self.unsupported(key, &shown(found), &supported))
            }
            _ => Ok(()),
        }
    }

    /// Requires an id to be a row of a table, whose size is a field of `limit`.
    pub(super) fn id_below(
        &self,
        key: &str,
        id: u32,
        limit: (&Section<'_>, &str, usize),
    ) -> Result<(), ConfigError> {
        let (section, size_key, size) = limit;
        if usize::try_from(id).is_ok_and(|id| id < size) {
            return Ok(());
        }
        let size = section.reference(size_key, size);
        Err(self.contradiction(key, id, format!("an id below {size}")))
    }

    /// Requires `model_type` to be `supported`.
    pub(super) fn model_type(&self, supported: &'static str) -> Result<(), ConfigError> {
        match self.text("model_type")? {
            found if found == supported => Ok(()),
            found => Err(ConfigError::UnknownModel {
                file: self.file.into(),
                field: self.field("model_type"),
                found: shown(&Value::from(found)),
                supported,
            }),
        }
    }

    /// As [`Section::model_type`], but a component may lack it or have an empty one.
    pub(super) fn optional_model_type(&self, supported: &'static str) -> Result<(), ConfigError> {
        match self.typed("model_type", "a text", Value::as_str)? {
            None | Some("") => Ok(()),
            Some(_) => self.model_type(supported),
        }
    }

    pub(super) fn contradiction(
        &self,
        key: &str,
        found: impl fmt::Display,
        expected: impl Into<String>,
    ) -> ConfigError {
        ConfigError::Contradiction {
            file: self.file.into(),
            field: self.field(key),
            expected: expected.into(),
            found: found.to_string(),
        }
    }

    fn unsupported(&self, key: &str, found: &str, supported: &str) -> ConfigError {
        ConfigError::Unsupported {
            file: self.file.into(),
            field: self.field(key),
            found: found.into(),
            supported: supported.into(),
        }
    }
}

/// A whole number; later tools write some of them as `13.0`.
fn size(value: &Value) -> Option<usize> {
    whole(value).and_then(|number| usize::try_from(number).ok())
}

fn id(value: &Value) -> Option<u32> {
    whole(value).and_then(|number| u32::try_from(number).ok())
}

fn whole(value: &Value) -> Option<u64> {
    let number = value.as_u64().or_else(|| {
        let float = value.as_f64().filter(|float| float.fract() == 0.0)?;
        // The text of a whole f64 has no exponent and no fraction, so this refuses the rest.
        format!("{float:.0}").parse().ok()
    });
    number.filter(|&number| number <= MAX_SIZE)
}

fn list<T>(value: &Value, read: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    value.as_array()?.iter().map(read).collect()
}

fn same(found: &Value, supported: &Value) -> bool {
    match (found.as_f64(), supported.as_f64()) {
        (Some(found), Some(supported)) => (found - supported).abs() == 0.0,
        _ => found == supported,
    }
}

/// A value for a message: one line of JSON, cut when long.
fn shown(value: &Value) -> String {
    const LONGEST: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}
