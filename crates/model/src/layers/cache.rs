//! Keys and values of the rows seen so far.

use burn::tensor::{DType, Device, Tensor, s};
use burn_omni_ops as ops;

/// The keys and values of one layer, in memory that is allocated once.
#[derive(Clone, Debug)]
pub struct KvCache {
    /// Keys and values `[capacity, kv_heads, head_dim]`; moved out only while they are written.
    stored: Option<[Tensor<3>; 2]>,
    len: usize,
    capacity: usize,
}

impl KvCache {
    /// Room for `capacity` rows.
    #[must_use]
    pub fn new(
        capacity: usize,
        [kv_heads, head_dim]: [usize; 2],
        dtype: DType,
        device: &Device,
    ) -> Self {
        let room = || Tensor::zeros([capacity, kv_heads, head_dim], (device, dtype));
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
    pub fn tensors(&self) -> &[Tensor<3>; 2] {
        let stored = self.stored.as_ref();
        stored.expect("only append and keep_last move the tensors")
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
        let tensors = self
            .stored
            .take()
            .expect("only append and keep_last move the tensors");
        self.stored = Some(tensors.map(|tensor| {
            let [_, kv_heads, head_dim] = tensor.dims();
            let options = (&tensor.device(), tensor.dtype());
            let room = Tensor::zeros([capacity, kv_heads, head_dim], options);
            match len {
                0 => room,
                _ => ops::write_rows(room, tensor.slice(s![..len, .., ..]), 0),
            }
        }));
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
        let tensors = self
            .stored
            .take()
            .expect("only append and keep_last move the tensors");
        self.stored = Some(tensors.map(|tensor| {
            // A copy: the rows may overlap the place they move to.
            let rows = tensor.clone().slice(s![start..self.len, .., ..]) * 1.0;
            tensor.slice_assign(s![0..len, .., ..], rows)
        }));
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
    pub fn append(&mut self, k: Tensor<3>, v: Tensor<3>) -> [Tensor<3>; 2] {
        let end = self.len + k.dims()[0];
        assert!(
            end <= self.capacity,
            "a cache of {} rows cannot hold {end}",
            self.capacity
        );
        let [old_k, old_v] = self
            .stored
            .take()
            .expect("only append and keep_last move the tensors");
        // Nobody else holds the tensors now, or they stay where they are: the rows are written in place.
        let stored = [
            ops::write_rows(old_k, k, self.len),
            ops::write_rows(old_v, v, self.len),
        ];
        self.len = end;
        self.stored = Some(stored.clone());
        stored
    }
}
