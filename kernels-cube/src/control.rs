//! What changes from one decoding step to the next: read by the layers, written by the choice of a token.

use cubecl::bytes::Bytes;
use cubecl::prelude::*;

use crate::Buffer;

/// Tokens that the device remembers.
pub const RING: usize = 64;

/// The numbers that change from step to step, u32 on the device: the last token, the rows in the cache, the position of
/// the token as bits of an f32, the steps taken, then the last [`RING`] tokens chosen.
#[derive(Clone, Debug)]
pub struct Control(pub Buffer);

/// Where the last token stands.
pub const TOKEN: usize = 0;
pub(crate) const LEN: usize = 1;
pub(crate) const POSITION: usize = 2;
/// Where the number of steps stands.
pub const STEP: usize = 3;
/// Where the ring begins.
pub const TOKENS: usize = 4;

impl Control {
    /// Room for the numbers.
    #[must_use]
    pub fn new(client: &Client) -> Self {
        Self(Buffer::numbers(client, &[0; TOKENS + RING]))
    }

    /// Starts with a token that stands behind `len` rows of the cache, at a position of its own.
    pub fn start(&self, client: &Client, token: u32, len: u32, position: f32) {
        let mut words = vec![0_u32; TOKENS + RING];
        words[TOKEN] = token;
        words[LEN] = len;
        words[POSITION] = position.to_bits();
        client.write(&self.0.handle, Bytes::from_elems(words));
    }
}
