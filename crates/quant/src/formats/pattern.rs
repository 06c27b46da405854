//! Names of modules as configs write them: plain names, shell globs, and regular expressions behind `re:`.

use std::fmt;

use fancy_regex::Regex;

/// A set of module names.
#[derive(Clone, Debug)]
pub struct Pattern {
    regex: Regex,
}

/// A regular expression that is none.
#[derive(Debug, thiserror::Error)]
#[error("not a regular expression: {cause}")]
pub struct PatternError {
    cause: OneLine,
}

#[derive(Debug)]
struct OneLine(String);

impl fmt::Display for OneLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = self.0.split_whitespace();
        words.try_for_each(|word| write!(f, "{word} "))
    }
}

impl Pattern {
    /// A pattern as written. A plain name or glob stands for the module and everything below it; a regular expression
    /// has to match from the start of a name, as Python's `re.match` does.
    ///
    /// # Errors
    /// When what stands behind `re:` is no regular expression.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        let regex = match text.strip_prefix("re:") {
            Some(regex) => format!("^(?:{regex})"),
            None => format!("^{}(?:\\..*)?$", translate(text)),
        };
        let regex = Regex::new(&regex).map_err(|error| PatternError {
            cause: OneLine(error.to_string()),
        })?;
        Ok(Self { regex })
    }

    /// Whether `name` is in the set. An expression that takes too long to tell does not match.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.regex.is_match(name).unwrap_or(false)
    }
}

/// A shell glob as a regular expression, as Python's `fnmatch.translate` does it: `*`, `?`, `[…]` and `[!…]`.
fn translate(glob: &str) -> String {
    let mut regex = String::new();
    let mut rest = glob;
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        match character {
            '*' => regex.push_str(".*"),
            '?' => regex.push('.'),
            '[' => match class(rest) {
                Some((class, behind)) => {
                    regex.push_str(&class);
                    rest = behind;
                }
                None => regex.push_str("\\["),
            },
            other => regex.push_str(&fancy_regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
    regex
}

/// The characters between brackets, and what stands behind them.
pub(crate) fn class(rest: &str) -> Option<(String, &str)> {
    let (not, members) = match rest.strip_prefix('!') {
        Some(members) => ("^", members),
        None => ("", rest),
    };
    // A bracket that comes first is a member.
    let first = members.chars().next()?;
    let end = first.len_utf8() + members[first.len_utf8()..].find(']')?;
    let mut inside = String::new();
    for character in members[..end].chars() {
        if matches!(character, '[' | ']' | '\\' | '^' | '&' | '~') {
            inside.push('\\');
        }
        inside.push(character);
    }
    Some((format!("[{not}{inside}]"), &members[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_globs_and_expressions() {
        let cases = [
            ("lm_head", "lm_head", true),
            ("lm_head", "talker.lm_head", false),
            ("thinker.visual", "thinker.visual.blocks.0.attn.qkv", true),
            ("thinker.vis", "thinker.visual.blocks", false),
            ("thinker.visual*", "thinker.visual.blocks.0.attn.qkv", true),
            ("*mlp.gate", "model.layers.0.mlp.gate", true),
            ("*mlp.gate", "model.layers.0.mlp.gate_proj", false),
            ("model.layers.[01]*", "model.layers.1.x", true),
            ("model.layers.[!01]*", "model.layers.1.x", false),
            ("model.layer?.q", "model.layers.q", true),
            ("a[b", "a[b", true),
            ("re:.*mlp.gate$", "model.layers.0.mlp.gate", true),
            ("re:.*mlp.gate$", "model.layers.0.mlp.gate_proj", false),
            ("re:model", "thinker.model", false),
            ("re:a|b", "b.c", true),
            (
                "re:^(?!.*experts).*",
                "model.layers.0.self_attn.q_proj",
                true,
            ),
            ("re:^(?!.*experts).*", "model.layers.0.mlp.experts.1", false),
        ];
        for (pattern, name, expected) in cases {
            let found = Pattern::new(pattern).unwrap().matches(name);
            assert_eq!(found, expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn what_is_no_expression_is_told_in_one_line() {
        let error = Pattern::new("re:(").unwrap_err().to_string();
        assert!(
            error.starts_with("not a regular expression") && !error.contains('\n'),
            "{error}"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_pattern_or_refused(text in ".{0,40}", name in "[a-z._0-9]{0,30}") {
            if let Ok(pattern) = Pattern::new(&text) {
                let _ = pattern.matches(&name);
            }
            proptest::prop_assert!(text.starts_with("re:") || Pattern::new(&text).is_ok());
        }
    }
}
