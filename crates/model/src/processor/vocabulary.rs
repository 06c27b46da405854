//! The files of a byte-level BPE, read and checked.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::Value;
use tokenizers::AddedToken;
use tokenizers::models::bpe::{Merges, Vocab};

use crate::processor::TextError;
use crate::processor::text_files::TextFiles;

const TOKENIZER_JSON: &str = "tokenizer.json";
const VOCAB_JSON: &str = "vocab.json";
const MERGES_TXT: &str = "merges.txt";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// Splits a text before the merges, as `transformers.models.qwen2.tokenization_qwen2` does (spec
/// E.3).
pub(crate) const SPLIT_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Everything that tells one byte-level BPE from another.
pub(crate) struct Vocabulary {
    /// Which files it came from, for messages.
    pub(crate) file: String,
    /// Token → id, tokens spelt in the byte alphabet; holds the added tokens too.
    pub(crate) vocab: Vocab,
    /// Pairs to merge, best first.
    pub(crate) merges: Merges,
    /// Tokens that are matched in the text itself, with their ids.
    pub(crate) added: Vec<(u32, AddedToken)>,
}

impl Vocabulary {
    /// Reads `tokenizer.json`, else `vocab.json` and `merges.txt`; added tokens also from
    /// `tokenizer_config.json`.
    pub(crate) fn load(files: &TextFiles<'_>) -> Result<Self, TextError> {
        let mut vocabulary = match files.read(TOKENIZER_JSON)? {
            Some(text) => Self::from_tokenizer_json(&text)?,
            None => match (files.read(VOCAB_JSON)?, files.read(MERGES_TXT)?) {
                (Some(vocab), Some(merges)) => Self::from_vocab_and_merges(&vocab, &merges)?,
                _ => {
                    let expected = "tokenizer.json, or vocab.json and merges.txt";
                    return Err(TextError::MissingFile {
                        dir: files.dir(),
                        expected,
                    });
                }
            },
        };
        if let Some(text) = files.read(TOKENIZER_CONFIG)? {
            vocabulary.add_config_tokens(&text)?;
        }
        vocabulary.finish()
    }

    fn from_tokenizer_json(text: &str) -> Result<Self, TextError> {
        let json: TokenizerJson = parse(TOKENIZER_JSON, text)?;
        json.check_pipeline()?;
        let merges = json.model.merges.into_iter().map(|merge| merge.0).collect();
        let added = json
            .added_tokens
            .into_iter()
            .map(|token| (token.id, token.token))
            .collect();
        Ok(Self {
            file: TOKENIZER_JSON.into(),
            vocab: json.model.vocab,
            merges,
            added,
        })
    }

    fn from_vocab_and_merges(vocab: &str, merges: &str) -> Result<Self, TextError> {
        let vocab: Vocab = parse(VOCAB_JSON, vocab)?;
        let lines = merges
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.starts_with("#version") && !line.is_empty());
        let merges = lines.map(|(index, line)| {
            split_merge(line).ok_or_else(|| {
                bad(
                    MERGES_TXT,
                    format!("line {}", index + 1),
                    "two tokens",
                    format!("`{line}`"),
                )
            })
        });
        let merges = merges.collect::<Result<_, _>>()?;
        Ok(Self {
            file: format!("{VOCAB_JSON} and {MERGES_TXT}"),
            vocab,
            merges,
            added: Vec::new(),
        })
    }

    /// Adds the tokens of `added_tokens_decoder` that are not known yet.
    fn add_config_tokens(&mut self, text: &str) -> Result<(), TextError> {
        let config: Value = parse(TOKENIZER_CONFIG, text)?;
        let Some(decoder) = config.get("added_tokens_decoder") else {
            return Ok(());
        };
        let field = || "added_tokens_decoder".to_owned();
        let Some(decoder) = decoder.as_object() else {
            return Err(bad(
                TOKENIZER_CONFIG,
                field(),
                "an object",
                "another type".into(),
            ));
        };
        for (id, token) in decoder {
            let field = || format!("added_tokens_decoder.{id}");
            let number = id
                .parse()
                .map_err(|_| bad(TOKENIZER_CONFIG, field(), "a token id", format!("`{id}`")))?;
            let token: AddedToken = serde_json::from_value(token.clone()).map_err(|error| {
                bad(
                    TOKENIZER_CONFIG,
                    field(),
                    "an added token",
                    error.to_string(),
                )
            })?;
            if !self
                .added
                .iter()
                .any(|(_, known)| known.content == token.content)
            {
                self.added.push((number, token));
            }
        }
        Ok(())
    }

    /// Gives every added token its own id, and refuses what the BPE would panic on or silently
    /// drop.
    fn finish(mut self) -> Result<Self, TextError> {
        self.added.sort_by_key(|(id, _)| *id);
        self.vocab.extend(
            self.added
                .iter()
                .map(|(id, token)| (token.content.clone(), *id)),
        );
        self.check_added()?;
        let no_byte = |byte: &u8| !self.vocab.contains_key(&byte_char(*byte).to_string());
        if let Some(byte) = (0..=u8::MAX).find(no_byte) {
            let field = format!("vocabulary entry `{}`", byte_char(byte));
            return Err(bad(
                &self.file,
                field,
                format!("a token for byte {byte}"),
                "none".into(),
            ));
        }
        let mut merged = String::new();
        for (left, right) in &self.merges {
            merged.clear();
            merged.extend([left.as_str(), right.as_str()]);
            if !self.vocab.contains_key(&merged) {
                let expected = format!("a token `{merged}` in the vocabulary");
                return Err(bad(&self.file, "merges".into(), expected, "none".into()));
            }
        }
        Ok(self)
    }

    fn check_added(&self) -> Result<(), TextError> {
        let ids: BTreeMap<u32, &str> = self
            .added
            .iter()
            .map(|(id, token)| (*id, token.content.as_str()))
            .collect();
        let clash = self
            .vocab
            .iter()
            .find(|(token, id)| ids.get(id).is_some_and(|added| added != token));
        let Some((token, id)) = clash else {
            return Ok(());
        };
        let field = format!("added token `{}`", ids[id]);
        Err(bad(
            &self.file,
            field,
            "an id of its own",
            format!("id {id} of `{token}`"),
        ))
    }
}

/// The fields of `tokenizer.json` that are read; the pipeline is checked against the one that is
/// built in code.
#[derive(Deserialize)]
struct TokenizerJson {
    #[serde(default)]
    added_tokens: Vec<AddedTokenEntry>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    model: ModelJson,
}

#[derive(Deserialize)]
struct AddedTokenEntry {
    id: u32,
    #[serde(flatten)]
    token: AddedToken,
}

#[derive(Deserialize)]
struct ModelJson {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    vocab: Vocab,
    merges: Vec<Merge>,
}

impl TokenizerJson {
    /// Refuses a tokenizer of another family, which would otherwise give wrong ids without a word.
    fn check_pipeline(&self) -> Result<(), TextError> {
        let check = |field: &str, found: &Value, expected: &[&str]| {
            let found = found.as_str().unwrap_or("none");
            if expected.contains(&found) {
                return Ok(());
            }
            Err(bad(
                TOKENIZER_JSON,
                field.into(),
                format!("`{}`", expected[0]),
                format!("`{found}`"),
            ))
        };
        let kind = self.model.kind.as_deref().unwrap_or("BPE");
        check("model.type", &Value::from(kind), &["BPE"])?;
        check("normalizer.type", &self.normalizer["type"], &["NFC"])?;
        check("decoder.type", &self.decoder["type"], &["ByteLevel"])?;
        check(
            "post_processor.type",
            &self.post_processor["type"],
            &["ByteLevel", "none"],
        )?;
        let steps = &self.pre_tokenizer["pretokenizers"];
        check(
            "pre_tokenizer.pretokenizers[0].pattern.Regex",
            &steps[0]["pattern"]["Regex"],
            &[SPLIT_PATTERN],
        )?;
        check(
            "pre_tokenizer.pretokenizers[1].type",
            &steps[1]["type"],
            &["ByteLevel"],
        )
    }
}

/// One merge: `"a b"` in older files, `["a", "b"]` in newer ones.
struct Merge((String, String));

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MergeVisitor)
    }
}

struct MergeVisitor;

impl<'de> Visitor<'de> for MergeVisitor {
    type Value = Merge;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("two tokens")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Merge, E> {
        split_merge(text)
            .map(Merge)
            .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merge, A::Error> {
        let missing = || serde::de::Error::invalid_length(0, &"two tokens");
        let left = seq.next_element()?.ok_or_else(missing)?;
        let right = seq.next_element()?.ok_or_else(missing)?;
        Ok(Merge((left, right)))
    }
}

fn split_merge(line: &str) -> Option<(String, String)> {
    let (left, right) = line.split_once(' ')?;
    (!left.is_empty() && !right.is_empty() && !right.contains(' '))
        .then(|| (left.to_owned(), right.to_owned()))
}

/// The character that spells `byte` in a byte-level vocabulary (the GPT-2 alphabet).
pub(crate) fn byte_char(byte: u8) -> char {
    match byte {
        b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
        // The 68 bytes that do not print follow from U+0100 on: 0..=32, 127..=160, 173.
        0..=0x20 => shifted(u32::from(byte)),
        0x7F..=0xA0 => shifted(u32::from(byte) - 0x7F + 33),
        0xAD => shifted(67),
    }
}

fn shifted(index: u32) -> char {
    char::from_u32(0x100 + index).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte that `c` spells, or `None` where `c` is not of the alphabet.
pub(crate) fn char_byte(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => u8::try_from(code).ok(),
        code @ 0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        code @ 0x121..=0x142 => u8::try_from(code - 0x121 + 0x7F).ok(),
        0x143 => Some(0xAD),
        _ => None,
    }
}

fn parse<'a, T: Deserialize<'a>>(file: &str, text: &'a str) -> Result<T, TextError> {
    serde_json::from_str(text)
        .map_err(|error| bad(file, "file".into(), "a tokenizer's JSON", error.to_string()))
}

fn bad(file: &str, field: String, expected: impl Into<String>, found: String) -> TextError {
    TextError::BadFile {
        file: file.to_owned(),
        field,
        expected: expected.into(),
        found,
    }
}
