//! Shell globs over module names.

use std::fmt;
use std::str::FromStr;

/// A pattern of names: `*` is any text, `?` any character, `[ab]`, `[a-c]` and `[!a]` one of some characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    text: String,
    tokens: Vec<Token>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Text,
    Any,
    Class {
        excluded: bool,
        ranges: Vec<(char, char)>,
    },
    Char(char),
}

/// A text that is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// There is nothing.
    #[error("expected a pattern, found nothing")]
    Empty,
    /// A bracket is not closed.
    #[error("`[` at character {0} is not closed")]
    Open(usize),
}

impl FromStr for Glob {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, GlobError> {
        if text.is_empty() {
            return Err(GlobError::Empty);
        }
        let characters: Vec<char> = text.chars().collect();
        let mut tokens = Vec::new();
        let mut at = 0;
        while let Some(&character) = characters.get(at) {
            at += 1;
            tokens.push(match character {
                '*' => Token::Text,
                '?' => Token::Any,
                '[' => {
                    let (class, length) = class(&characters[at..]).ok_or(GlobError::Open(at))?;
                    at += length;
                    class
                }
                other => Token::Char(other),
            });
        }
        Ok(Self {
            text: text.into(),
            tokens,
        })
    }
}

/// The characters between brackets, and how many were read with the closing one, which is a member where it comes first.
fn class(rest: &[char]) -> Option<(Token, usize)> {
    let excluded = rest.first() == Some(&'!');
    let start = usize::from(excluded);
    let end = start + 1 + rest.get(start + 1..)?.iter().position(|&c| c == ']')?;
    let mut ranges = Vec::new();
    let mut members = &rest[start..end];
    while let [first, behind @ ..] = members {
        (members, _) = match behind {
            ['-', last, behind @ ..] => (behind, ranges.push((*first, *last))),
            behind => (behind, ranges.push((*first, *first))),
        };
    }
    Some((Token::Class { excluded, ranges }, end + 1))
}

impl Token {
    fn is(&self, character: char) -> bool {
        match self {
            Self::Text | Self::Any => true,
            Self::Class { excluded, ranges } => {
                let mut ranges = ranges.iter();
                ranges.any(|&(first, last)| (first..=last).contains(&character)) != *excluded
            }
            Self::Char(own) => *own == character,
        }
    }
}

impl Glob {
    /// Whether the pattern stands for the module `name` or for one above it.
    #[must_use]
    pub fn covers(&self, name: &str) -> bool {
        let ends = name.match_indices('.').map(|(end, _)| end);
        ends.chain([name.len()])
            .any(|end| self.matches(&name[..end]))
    }

    /// Whether the whole of `name` is as the pattern says.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let (mut token, mut at) = (0, 0);
        // Where the last `*` stands, and up to where it reaches so far.
        let mut star = None;
        while at < name.len() {
            match self.tokens.get(token) {
                Some(Token::Text) => {
                    star = Some((token, at));
                    token += 1;
                }
                Some(own) if own.is(name[at]) => {
                    token += 1;
                    at += 1;
                }
                _ => {
                    let Some((place, reached)) = &mut star else {
                        return false;
                    };
                    *reached += 1;
                    (token, at) = (*place + 1, *reached);
                }
            }
        }
        self.tokens[token..].iter().all(|own| *own == Token::Text)
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

    fn glob(text: &str) -> Glob {
        text.parse().unwrap()
    }

    #[test]
    fn patterns_cover_modules_and_what_is_below() {
        let cases = [
            ("lm_head", "lm_head", true),
            ("lm_head", "talker.lm_head", false),
            ("*lm_head", "talker.lm_head", true),
            ("visual", "visual.blocks.0.attn.qkv", true),
            ("vis", "visual.blocks.0", false),
            ("vis*", "visual.blocks.0", true),
            ("*mlp.gate", "model.layers.0.mlp.gate", true),
            ("*mlp.gate", "model.layers.0.mlp.gate_proj", false),
            ("*.layers.[01].*", "model.layers.1.mlp", true),
            ("*.layers.[0-2]", "model.layers.1.mlp", true),
            ("*.layers.[!01].*", "model.layers.1.mlp", false),
            ("*.layers.?", "model.layers.12", false),
            ("*.layers.??", "model.layers.12.mlp", true),
            ("a[]]b", "a]b", true),
            ("a[!]]b", "a]b", false),
            ("*a*b*c", "xxaxxbxxbxxc", true),
            ("*a*b*c", "xxaxxcxxb", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(glob(pattern).covers(name), expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn texts_that_are_no_pattern() {
        assert_eq!("".parse::<Glob>(), Err(GlobError::Empty));
        for (text, at) in [("[", 1), ("a[b", 2), ("[]", 1), ("[!]", 1), ("x[0-9]y[", 8)] {
            assert_eq!(text.parse::<Glob>(), Err(GlobError::Open(at)), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_pattern_or_refused(text in "[a-c*?\\[\\]!.-]{0,12}", name in "[a-c.]{0,20}") {
            if let Ok(glob) = text.parse::<Glob>() {
                let _ = glob.covers(&name);
            }
        }

        #[test]
        fn a_plain_name_is_itself_alone(name in "[a-z._0-9]{1,20}", other in "[a-z._0-9]{1,20}") {
            proptest::prop_assert!(glob(&name).matches(&name));
            proptest::prop_assert_eq!(glob(&name).matches(&other), name == other);
        }
    }
}
