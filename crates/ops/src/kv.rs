//! Keys and values as caches store them.

use burn::backend::Dispatch;
use burn::tensor::{DType, Device, Int, Tensor, s};

use crate::{AttentionSpec, OmniOps, attention, write_rows};

/// Numbers of E4M3 in a word.
pub(crate) const WORD: usize = 4;

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvFormat {
    /// In a float dtype.
    Float(DType),
    /// As bytes of E4M3, without a scale: each is rounded to the nearest number, of two to the even one, and beyond ±448 to
    /// that. Heads are whole words of four.
    E4m3,
}

impl From<DType> for KvFormat {
    fn from(dtype: DType) -> Self {
        Self::Float(dtype)
    }
}

impl KvFormat {
    /// Whether heads of this width can be stored.
    #[must_use]
    pub const fn holds(self, width: usize) -> bool {
        match self {
            Self::Float(_) => true,
            Self::E4m3 => width.is_multiple_of(WORD),
        }
    }
}

/// The keys or the values of a layer, `[capacity, heads, width]`.
#[derive(Clone, Debug)]
pub enum KvStore {
    /// Numbers.
    Float(Tensor<3>),
    /// Words of E4M3, the first number in the lowest byte: u32 `[capacity, heads, width / 4]`.
    E4m3(Tensor<3, Int>),
}

impl KvStore {
    /// Zeros.
    ///
    /// # Panics
    /// When the format cannot store heads of this width.
    #[must_use]
    pub fn zeros(format: KvFormat, [capacity, heads, width]: [usize; 3], device: &Device) -> Self {
        assert!(format.holds(width), "{format:?} stores no heads of {width}");
        match format {
            KvFormat::Float(dtype) => {
                Self::Float(Tensor::zeros([capacity, heads, width], (device, dtype)))
            }
            KvFormat::E4m3 => {
                let words = [capacity, heads, width / WORD];
                Self::E4m3(Tensor::zeros(words, (device, DType::U32)))
            }
        }
    }

    /// Rows there is room for, heads, and their width.
    #[must_use]
    pub fn dims(&self) -> [usize; 3] {
        match self {
            Self::Float(numbers) => numbers.dims(),
            Self::E4m3(words) => {
                let [capacity, heads, words] = words.dims();
                [capacity, heads, words * WORD]
            }
        }
    }

    /// Writes rows `[rows, heads, width]` from row `at` on. On a GPU they are written in place, whoever else holds the store.
    ///
    /// # Panics
    /// When there is no room for them.
    #[must_use]
    pub fn write(self, rows: Tensor<3>, at: usize) -> Self {
        let ([capacity, ..], count) = (self.dims(), rows.dims()[0]);
        match self {
            Self::Float(numbers) => Self::Float(write_rows(numbers, rows, at)),
            Self::E4m3(words) => {
                assert!(
                    at + count <= capacity,
                    "a store of {capacity} rows cannot hold {}",
                    at + count
                );
                let (words, rows) = (words.into_dispatch(), rows.into_dispatch());
                Self::E4m3(Tensor::from_dispatch(Dispatch::write_e4m3(words, rows, at)))
            }
        }
    }

    /// The first `len` rows in a store with room for `capacity`.
    #[must_use]
    pub fn grown(self, capacity: usize, len: usize) -> Self {
        match self {
            Self::Float(numbers) => {
                let [_, heads, width] = numbers.dims();
                let options = (&numbers.device(), numbers.dtype());
                let room = Tensor::zeros([capacity, heads, width], options);
                Self::Float(match len {
                    0 => room,
                    _ => write_rows(room, numbers.slice(s![..len, .., ..]), 0),
                })
            }
            Self::E4m3(words) => {
                let [_, heads, width] = words.dims();
                let options = (&words.device(), DType::U32);
                let room = Tensor::zeros([capacity, heads, width], options);
                Self::E4m3(match len {
                    0 => room,
                    _ => room.slice_assign(s![..len, .., ..], words.slice(s![..len, .., ..])),
                })
            }
        }
    }

    /// Moves rows `start .. start + len` to the front.
    #[must_use]
    pub fn moved_to_front(self, start: usize, len: usize) -> Self {
        let (from, to) = (s![start..start + len, .., ..], s![0..len, .., ..]);
        match self {
            Self::Float(numbers) => {
                // A copy: the rows may overlap the place they move to.
                let rows = numbers.clone().slice(from) * 1.0;
                Self::Float(numbers.slice_assign(to, rows))
            }
            Self::E4m3(words) => {
                let rows = words.clone().slice(from) + 0;
                Self::E4m3(words.slice_assign(to, rows))
            }
        }
    }
}

/// [`attention`] over stored keys and values, of one format.
///
/// # Shapes
/// - q, output: `[rows, heads, head_dim]`
/// - keys and values: `[keys, kv_heads, head_dim]`; those that no query sees are not read
///
/// # Panics
/// When keys and values have different formats.
#[must_use]
pub fn attention_over(q: Tensor<3>, kv: [KvStore; 2], spec: AttentionSpec) -> Tensor<3> {
    match kv {
        [KvStore::Float(k), KvStore::Float(v)] => attention(q, k, v, spec),
        [KvStore::E4m3(k), KvStore::E4m3(v)] => {
            let (k, v) = (k.into_dispatch(), v.into_dispatch());
            Tensor::from_dispatch(Dispatch::attention_e4m3(q.into_dispatch(), k, v, spec))
        }
        _ => panic!("keys and values have one format"),
    }
}
