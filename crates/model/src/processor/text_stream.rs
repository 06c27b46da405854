//! Token ids → text as they arrive.

use crate::processor::Tokenizer;

/// Turns ids into text one by one. A character whose bytes are spread over several tokens is held
/// back until it is whole, so what comes out is always complete UTF-8 and adds up to
/// [`Tokenizer::decode`] of all ids.
#[derive(Debug)]
pub struct TextStream {
    tokenizer: Tokenizer,
    skip_special: bool,
    /// Bytes that begin a character.
    pending: Vec<u8>,
}

impl TextStream {
    pub(crate) fn new(tokenizer: Tokenizer, skip_special: bool) -> Self {
        Self {
            tokenizer,
            skip_special,
            pending: Vec::new(),
        }
    }

    /// The text that `id` completes, if any.
    pub fn push(&mut self, id: u32) -> Option<String> {
        self.pending
            .extend(self.tokenizer.token_bytes(id, self.skip_special));
        let text = take_complete(&mut self.pending);
        (!text.is_empty()).then_some(text)
    }

    /// What is left at the end: U+FFFD for a character that was never completed.
    pub fn finish(mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.pending);
        (!rest.is_empty()).then(|| String::from_utf8_lossy(&rest).into_owned())
    }
}

/// Takes everything but an unfinished character from the front of `bytes`. Bytes that no
/// continuation can make valid become U+FFFD at once, exactly where `from_utf8_lossy` of the whole
/// would put it.
fn take_complete(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut rest = bytes.as_slice();
    loop {
        match std::str::from_utf8(rest) {
            Ok(valid) => {
                text.push_str(valid);
                rest = &[];
                break;
            }
            Err(error) => {
                let (valid, after) = rest.split_at(error.valid_up_to());
                text.push_str(&String::from_utf8_lossy(valid));
                rest = after;
                let Some(invalid) = error.error_len() else {
                    break;
                };
                text.push(char::REPLACEMENT_CHARACTER);
                rest = &rest[invalid..];
            }
        }
    }
    *bytes = rest.to_vec();
    text
}
