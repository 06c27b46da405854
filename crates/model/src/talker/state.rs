//! What the talker remembers of a stream.

use burn::tensor::{DType, Device, Tensor};
use burn_omni_ops::decode::{Choosing, DecodeError, Frames};

use crate::config::TalkerTextConfig;
use crate::layers::KvCache;

/// Keys and values of every layer, and the place in the sequence.
#[derive(Clone, Debug)]
pub struct TalkerState {
    pub(super) caches: Vec<KvCache>,
    pub(super) next_position: f32,
    /// Whole frames, where the device captured them.
    pub(super) frames: Option<Frames>,
}

/// A place in a talker's sequence, to which its state can go back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TalkerPlace {
    rows: usize,
    next_position: f32,
}

impl TalkerPlace {
    /// Behind the first `rows` rows, whose greatest position is one less than `next_position`.
    #[must_use]
    pub fn new(rows: usize, next_position: f32) -> Self {
        Self {
            rows,
            next_position,
        }
    }
}

impl TalkerState {
    pub(super) fn new(
        config: &TalkerTextConfig,
        capacity: usize,
        (device, dtype): (&Device, DType),
    ) -> Self {
        let size = [config.num_key_value_heads, config.head_dim];
        Self {
            caches: (0..config.num_hidden_layers)
                .map(|_| KvCache::new(capacity, size, dtype, device))
                .collect(),
            next_position: 0.0,
            frames: None,
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.rewind(TalkerPlace {
            rows: 0,
            next_position: 0.0,
        });
    }

    /// Makes room for `capacity` rows; those seen so far stay. Not for a state whose frames are captured.
    pub fn reserve(&mut self, capacity: usize) {
        let caches = self.caches.iter_mut();
        caches.for_each(|cache| cache.reserve(capacity));
    }

    /// Rows seen so far.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.caches.first().map_or(0, KvCache::len)
    }

    /// Rows there is room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.caches.first().map_or(0, KvCache::capacity)
    }

    /// Where the sequence is now.
    #[must_use]
    pub fn place(&self) -> TalkerPlace {
        TalkerPlace {
            rows: self.rows(),
            next_position: self.next_position,
        }
    }

    /// Forgets everything behind `place`. The rows of the user's turns are the same in the next prompt of a
    /// conversation, so the reply behind them can be taken back and the next turns go on from there.
    pub fn rewind(&mut self, place: TalkerPlace) {
        self.caches
            .iter_mut()
            .for_each(|cache| cache.truncate(place.rows));
        self.next_position = place.next_position;
    }

    /// Whether the device makes whole frames by itself.
    #[must_use]
    pub fn makes_frames(&self) -> bool {
        self.frames.is_some()
    }

    /// Starts with the frame whose first code is known; the device chooses later ones, and the others, in these ways.
    ///
    /// # Shapes
    /// - hidden: `[1, hidden]`, of the last row that passed
    ///
    /// # Panics
    /// When the device does not make frames.
    pub fn start_frames(&mut self, hidden: Tensor<2>, first: u32, choosing: [&Choosing; 2]) {
        let place = (self.rows(), self.next_position);
        self.made().start((first, hidden), place, choosing);
    }

    /// The codes of the frame, one a group; `u32::MAX` for one whose scores were not finite.
    ///
    /// # Errors
    /// When the device failed.
    ///
    /// # Panics
    /// When frames were not started.
    pub fn frame_codes(&self) -> Result<Vec<u32>, DecodeError> {
        self.made().codes()
    }

    /// Goes on to the next frame, whose first code may be the end mark: passes the sum of the rows of the codes and `text`.
    ///
    /// # Shapes
    /// - text: `[1, hidden]`
    ///
    /// # Errors
    /// When the device failed.
    ///
    /// # Panics
    /// When frames were not started, or the caches are full.
    pub fn next_frame(&mut self, text: Tensor<2>) -> Result<(), DecodeError> {
        self.caches.iter_mut().for_each(|cache| cache.advance(1));
        self.next_position += 1.0;
        self.made().next(text)
    }

    fn made(&self) -> &Frames {
        self.frames.as_ref().expect("the device makes frames")
    }
}
