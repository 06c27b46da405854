//! From a token to the next one.

use cubecl::prelude::*;

use super::{Embedding, Entry, Stack};
use crate::Buffer;
use crate::choose::{Chooser, Chosen};
use crate::few::{self, Weights};

/// A decoder, one token at a time: the token of the stack's control goes in, the next one comes out.
#[derive(Clone, Debug)]
pub struct Step {
    /// The layers.
    pub stack: Stack,
    embedding: Embedding,
    head: Weights,
    /// What chooses the next token.
    pub chooser: Chooser,
    /// f32 `[vocabulary]`, of the last step.
    pub logits: Buffer,
}

impl Step {
    /// Room for a step.
    #[must_use]
    pub fn new(client: &Client, embedding: Embedding, stack: Stack, head: Weights) -> Self {
        Self {
            logits: Buffer::empty(client, f32::elem_type_native(), head.rows()),
            chooser: Chooser::new(client, head.rows()),
            stack,
            embedding,
            head,
        }
    }

    /// Launches a step.
    pub fn launch(&self, client: &Client) {
        self.launch_entry(client);
        self.stack.launch(client);
        self.launch_head(client);
        self.launch_choice(client);
    }

    /// Launches what makes a row of the token.
    pub fn launch_entry(&self, client: &Client) {
        let stack = &self.stack;
        let entry = Entry::Control(&self.embedding);
        let row = (&stack.row, stack.first_norm());
        entry.launch(client, (&stack.control, &stack.attend), row, (0, 0.0));
    }

    /// Launches what makes scores of the row.
    pub fn launch_head(&self, client: &Client) {
        few::normed(client, &self.head, &self.stack.row, &self.logits);
    }

    /// Launches what chooses a token by its score.
    pub fn launch_choice(&self, client: &Client) {
        let next = Chosen::Token(&self.stack.control);
        self.chooser.launch(client, &self.logits, next);
    }
}
