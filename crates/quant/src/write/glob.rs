//! Shell globs over module names, as they are typed.

use std::fmt;
use std::str::FromStr;

use crate::formats::{Pattern, PatternError, class};

/// A pattern of names, as [`Pattern`] has them, that is refused where it can only be a slip of the pen.
#[derive(Clone, Debug)]
pub struct Glob {
    text: String,
    pattern: Pattern,
}

/// A text that is no pattern.
#[derive(Debug, thiserror::Error)]
pub enum GlobError {
    /// There is nothing.
    #[error("expected a pattern, found nothing")]
    Empty,
    /// A bracket is not closed.
    #[error("`[` at character {0} is not closed")]
    Open(usize),
    /// A regular expression is none.
    #[error(transparent)]
    Expression(#[from] PatternError),
}

impl FromStr for Glob {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, GlobError> {
        if text.is_empty() {
            return Err(GlobError::Empty);
        }
        if !text.starts_with("re:") {
            check_brackets(text)?;
        }
        Ok(Self {
            text: text.into(),
            pattern: Pattern::new(text)?,
        })
    }
}

fn check_brackets(text: &str) -> Result<(), GlobError> {
    let mut rest = text;
    while let Some((before, inside)) = rest.split_once('[') {
        let at = text.len() - rest.len() + before.len();
        let open = || GlobError::Open(text[..at].chars().count() + 1);
        (_, rest) = class(inside).ok_or_else(open)?;
    }
    Ok(())
}

impl Glob {
    /// Whether the pattern stands for the module `name` or for one above it.
    #[must_use]
    pub fn covers(&self, name: &str) -> bool {
        self.pattern.matches(name)
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_cover_modules_and_what_is_below() {
        let cases = [
            ("*lm_head", "talker.lm_head", true),
            ("visual", "visual.blocks.0.attn.qkv", true),
            ("vis", "visual.blocks.0", false),
            ("*mlp.gate", "model.layers.0.mlp.gate_proj", false),
            ("*.layers.[0-2]", "model.layers.1.mlp", true),
            ("*.layers.?", "model.layers.12", false),
            ("a[]]b", "a]b", true),
            ("re:.*gate$", "model.layers.0.mlp.gate", true),
        ];
        for (pattern, name, expected) in cases {
            let glob: Glob = pattern.parse().unwrap();
            assert_eq!(glob.covers(name), expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn texts_that_are_no_pattern() {
        let error = |text: &str| text.parse::<Glob>().unwrap_err();
        assert!(matches!(error(""), GlobError::Empty));
        for (text, at) in [("[", 1), ("a[b", 2), ("[]", 1), ("[!]", 1), ("ä[0-9]y[", 8)] {
            assert!(
                matches!(error(text), GlobError::Open(found) if found == at),
                "{text}"
            );
        }
        assert!(matches!(error("re:("), GlobError::Expression(_)));
    }
}
