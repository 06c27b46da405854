//! The names of the modules that stay as they are, in few words.

use std::collections::BTreeSet;

/// Modules of one folder that stay as they are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ignored {
    /// This one.
    Module(String),
    /// All whose names begin so.
    Beginning(String),
    /// All with this name, whatever the numbers in it are; `*` stands for a number.
    Numbered(String),
}

impl Ignored {
    /// As a shell glob, for ModelOpt's lists.
    pub(super) fn glob(&self) -> String {
        match self {
            Self::Module(name) | Self::Numbered(name) => name.clone(),
            Self::Beginning(name) => format!("{name}*"),
        }
    }

    /// As a name or a regular expression, for the lists of compressed-tensors.
    pub(super) fn regex(&self) -> String {
        let plain = |name: &str| name.replace('.', "\\.");
        match self {
            Self::Module(name) => name.clone(),
            Self::Beginning(name) => format!("re:{}.*", plain(name)),
            Self::Numbered(name) => format!("re:{}$", plain(name).replace('*', "[0-9]+")),
        }
    }
}

/// Words for all of `ignored` that are true of none of `quantized`.
pub(super) fn summarize<'a>(
    ignored: &BTreeSet<&'a str>,
    quantized: &BTreeSet<&'a str>,
) -> Vec<Ignored> {
    // Names are sorted, so those that begin alike follow one another.
    let begins = |start: &'a str| {
        let mut behind = quantized.range(start..);
        behind.next().is_some_and(|name| name.starts_with(start))
    };
    let numbered: BTreeSet<String> = quantized.iter().map(|name| unnumbered(name)).collect();
    let words = ignored.iter().map(|&name| {
        let above = name.match_indices('.').map(|(end, _)| &name[..end]);
        if let Some(start) = above.into_iter().find(|start| !begins(start)) {
            return Ignored::Beginning(start.into());
        }
        let pattern = unnumbered(name);
        if pattern != name && !numbered.contains(&pattern) {
            Ignored::Numbered(pattern)
        } else {
            Ignored::Module(name.into())
        }
    });
    words.collect::<BTreeSet<_>>().into_iter().collect()
}

/// A name with `*` for its numbers.
fn unnumbered(name: &str) -> String {
    let part = |part: &str| match part.bytes().all(|byte| byte.is_ascii_digit()) {
        true => "*".to_owned(),
        false => part.to_owned(),
    };
    name.split('.').map(part).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write::Glob;

    const QUANTIZED: [&str; 4] = [
        "model.layers.0.mlp.experts.0.up_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.10.self_attn.k_proj",
        "model.layers.10.self_attn.q_proj",
    ];
    const IGNORED: [&str; 9] = [
        "audio_tower.layers.0.fc1",
        "lm_head",
        "model.embed_tokens",
        "model.layers.0.mlp.gate",
        "model.layers.0.self_attn.q_proj",
        "model.layers.1.mlp.gate",
        "model.layers.1.self_attn.k_proj",
        "visual.blocks.0.attn.qkv",
        "visual.merger.mlp.0",
    ];

    #[test]
    fn words_are_few_and_true() {
        let words = summarize(&IGNORED.into(), &QUANTIZED.into());
        let globs: Vec<_> = words.iter().map(Ignored::glob).collect();
        let expected = [
            "lm_head",
            "model.embed_tokens",
            "model.layers.1.self_attn.k_proj",
            "audio_tower*",
            "model.layers.0.self_attn*",
            "model.layers.1.mlp*",
            "visual*",
            "model.layers.*.mlp.gate",
        ];
        assert_eq!(globs, expected);
        let globs: Vec<Glob> = globs.iter().map(|glob| glob.parse().unwrap()).collect();
        let covered = |name: &str| globs.iter().any(|glob| glob.covers(name));
        assert!(IGNORED.iter().all(|name| covered(name)));
        assert!(!QUANTIZED.iter().any(|name| covered(name)));
    }

    #[test]
    fn regular_expressions() {
        assert_eq!(Ignored::Module("a.0.b".into()).regex(), "a.0.b");
        assert_eq!(Ignored::Beginning("a.b".into()).regex(), "re:a\\.b.*");
        assert_eq!(
            Ignored::Numbered("a.*.b".into()).regex(),
            "re:a\\.[0-9]+\\.b$"
        );
    }
}
