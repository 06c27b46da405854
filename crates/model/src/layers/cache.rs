//! Keys and values of the rows seen so far.

use burn::tensor::{Device, Tensor};
use burn_omni_ops::{KvFormat, KvStore};

/// The keys and values of one layer, in memory that is allocated once.
#[derive(Clone, Debug)]
pub struct KvCache {
    /// Keys and values `[capacity, kv_heads, head_dim]`; moved out only while they are written.
    stored: Option<[KvStore; 2]>,
    len: usize,
    capacity: usize,
}

impl KvCache {
    /// Room for `capacity` rows.
    #[must_use]
    pub fn new(
        capacity: usize,
        [kv_heads, head_dim]: [usize; 2],
        format: impl Into<KvFormat>,
        device: &Device,
    ) -> Self {
        let format = format.into();
        let room = || KvStore::zeros(format, [capacity, kv_heads, head_dim], device);
        Self {
            stored: Some([room(), room()]),
            len: 0,
            capacity,
        }
    }

    /// Rows in use.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Keys and values of all rows there is room for, `[capacity, kv_heads, head_dim]` each.
    ///
    /// # Panics
    /// Never: the tensors are moved only while they are written.
    #[must_use]
    pub fn stored(&self) -> &[KvStore; 2] {
        let stored = self.stored.as_ref();
        stored.expect("only append and change move the tensors")
    }

    /// Whether no row is in use.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Rows there is room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Counts rows that something else wrote behind the last.
    ///
    /// # Panics
    /// When there is no room for them.
    pub fn advance(&mut self, rows: usize) {
        self.len += rows;
        assert!(self.len <= self.capacity, "a cache has room for its rows");
    }

    /// Makes room for `capacity` rows; those in use stay.
    pub fn reserve(&mut self, capacity: usize) {
        if capacity <= self.capacity {
            return;
        }
        let len = self.len;
        self.change(|rows| rows.grown(capacity, len));
        self.capacity = capacity;
    }

    /// Forgets all rows but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Forgets all rows but the last `len`, which move to the front.
    pub fn keep_last(&mut self, len: usize) {
        if self.len <= len {
            return;
        }
        let start = self.len - len;
        self.change(|rows| rows.moved_to_front(start, len));
        self.len = len;
    }

    /// Writes new rows behind the last and returns all keys and values; rows past [`Self::len`] are unused space.
    ///
    /// # Shapes
    /// - k, v: `[rows, kv_heads, head_dim]`
    /// - output: `[capacity, kv_heads, head_dim]` twice
    ///
    /// # Panics
    /// When there is no room; who makes a cache knows how long its sequence can get.
    pub fn append(&mut self, k: Tensor<3>, v: Tensor<3>) -> [KvStore; 2] {
        let end = self.len + k.dims()[0];
        assert!(
            end <= self.capacity,
            "a cache of {} rows cannot hold {end}",
            self.capacity
        );
        let [old_k, old_v] = self.take();
        // Nobody else holds the tensors now, or they stay where they are: the rows are written in place.
        let stored = [old_k.write(k, self.len), old_v.write(v, self.len)];
        self.len = end;
        self.stored = Some(stored.clone());
        stored
    }

    fn change(&mut self, change: impl Fn(KvStore) -> KvStore) {
        let stored = self.take();
        self.stored = Some(stored.map(change));
    }

    fn take(&mut self) -> [KvStore; 2] {
        let stored = self.stored.take();
        stored.expect("only append and change move the tensors")
    }
}
