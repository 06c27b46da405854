//! Text ↔ token ids: the byte-level BPE of the Qwen2 family (spec E.3).

use std::path::Path;
use std::sync::Arc;

use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{PreTokenizerWrapper, SplitDelimiterBehavior};

use crate::processor::text_files::TextFiles;
use crate::processor::vocabulary::{SPLIT_PATTERN, Vocabulary, char_byte};
use crate::processor::{TextError, TextStream};

/// A tokenizer; cloning it copies a handle.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
}

impl Tokenizer {
    /// Loads `tokenizer.json`, or `vocab.json` and `merges.txt`, with the added tokens of
    /// `tokenizer_config.json`. The pipeline (NFC → split → bytes → merges) is built in code for
    /// both, as the reference does.
    pub fn load(dir: &Path) -> Result<Self, TextError> {
        let vocabulary = Vocabulary::load(&TextFiles::new(dir))?;
        let file = vocabulary.file;
        let bad = |field: &str, error: tokenizers::Error| TextError::BadFile {
            file: file.clone(),
            field: field.to_owned(),
            expected: "a byte-level BPE".to_owned(),
            found: error.to_string(),
        };
        let bpe = BPE::builder().vocab_and_merges(vocabulary.vocab, vocabulary.merges);
        let bpe = bpe.build().map_err(|error| bad("merges", error))?;
        let mut inner = tokenizers::Tokenizer::new(bpe);
        inner
            .with_normalizer(Some(NFC))
            .map_err(|error| bad("normalizer", error))?;
        let split = Split::new(
            SplitPattern::Regex(SPLIT_PATTERN.into()),
            SplitDelimiterBehavior::Isolated,
            false,
        );
        let split = split.map_err(|error| bad("pre_tokenizer", error))?;
        let bytes = ByteLevel::new(false, true, false);
        inner.with_pre_tokenizer(Some(Sequence::new(vec![
            PreTokenizerWrapper::Split(split),
            PreTokenizerWrapper::ByteLevel(bytes),
        ])));
        inner.with_decoder(Some(bytes));
        let added = vocabulary.added.into_iter().map(|(_, token)| token);
        inner
            .add_tokens(added)
            .map_err(|error| bad("added tokens", error))?;
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The ids of `text`. The spelling of a special token within the text becomes that token, as in
    /// the reference.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(TextError::Tokenize)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `ids`; bytes that are not UTF-8 become U+FFFD, ids without a token nothing.
    /// `skip_special` leaves out special tokens, but not tags such as `<think>` and `<tool_call>`,
    /// which are not special.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let bytes: Vec<u8> = ids
            .iter()
            .flat_map(|id| self.token_bytes(*id, skip_special))
            .collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A decoder for ids that arrive one by one.
    pub fn stream(&self, skip_special: bool) -> TextStream {
        TextStream::new(self.clone(), skip_special)
    }

    /// The id of a token by its spelling, such as `<|im_end|>`; ordinary tokens are spelt in the
    /// byte alphabet.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Ids that have a token: the embedding may have more rows.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The bytes that `id` stands for; none where it has no token or is left out.
    pub(crate) fn token_bytes(&self, id: u32, skip_special: bool) -> Vec<u8> {
        let Some(token) = self.inner.id_to_token(id) else {
            return Vec::new();
        };
        let added = self.inner.get_added_vocabulary();
        if skip_special && added.is_special_token(&token) {
            return Vec::new();
        }
        // An added token is spelt as itself where it has a character outside the byte alphabet.
        token
            .chars()
            .map(char_byte)
            .collect::<Option<Vec<u8>>>()
            .unwrap_or_else(|| token.into_bytes())
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .finish()
    }
}

#[cfg(test)]
#[path = "tokenizer_tests.rs"]
mod tests;
