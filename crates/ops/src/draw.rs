//! Weights that nobody trained, made on the device by a hash: for figures of geometries without a checkpoint. Every device
//! makes the same ones.

use burn::backend::Dispatch;
use burn::tensor::{DType, Device, Int, Tensor};

use crate::packed::Scale;
use crate::{OmniOps, Packed, PackedFormat, PackedSpec};

/// Copies are of multiples of this many words.
pub const COPY_WORDS: usize = 4096;

/// What random words are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words {
    /// Which of many streams.
    pub seed: u32,
    /// Words of a row.
    pub row: usize,
    /// 4-bit codes of a row; those behind them are zero.
    pub width: usize,
    /// The bits that are random.
    pub random: u32,
    /// What is added to them.
    pub base: u32,
}

impl Words {
    /// Word number `index`.
    #[must_use]
    pub fn word(&self, index: u32) -> u32 {
        const CODES: usize = 8;
        let word = (hash(index, self.seed) & self.random).wrapping_add(self.base);
        let column = index as usize % self.row * CODES;
        match self.width.saturating_sub(column) {
            0 => 0,
            kept if kept < CODES => word & ((1 << (4 * kept)) - 1),
            _ => word,
        }
    }

    /// The codes of 4-bit matrices, which are all used alike.
    #[must_use]
    pub fn codes(spec: &PackedSpec, seed: u32) -> Self {
        Self {
            seed,
            row: spec.row_bytes() / size_of::<u32>(),
            width: spec.width,
            random: u32::MAX,
            base: 0,
        }
    }

    /// Scales of a narrow range: 2 to 30 as E4M3, 2^-9 to 2^-6 as E8M0.
    ///
    /// # Panics
    /// When the format has other scales.
    #[must_use]
    pub fn scales(format: PackedFormat, seed: u32) -> Self {
        let (random, base) = match format.scale {
            Scale::E4m3 => (0x1F1F_1F1F, 0x4040_4040),
            Scale::E8m0 => (0x0303_0303, 0x7676_7676),
            other => panic!("matrices with scales {other:?} are not drawn"),
        };
        Self {
            seed: !seed,
            row: 1,
            width: 8,
            random,
            base,
        }
    }
}

/// The factor on all rows of a drawn matrix: weights then have the spread of [`drawn`] ones.
#[must_use]
pub fn drawn_gain(format: PackedFormat) -> f32 {
    match format.scale {
        Scale::E4m3 => 4.5e-4,
        _ => 0.7,
    }
}

/// Number `index` of a drawn tensor: an odd multiple of 2^-13 below 2^-5, which bf16 holds. Their spread, 0.018, is that of
/// a model before its training.
#[must_use]
pub fn drawn_float(index: u32, seed: u32) -> f32 {
    let step = (hash(index, seed) >> 24) * 2;
    (step as f32 - 255.0) / 8192.0
}

fn hash(index: u32, seed: u32) -> u32 {
    let mut h = index.wrapping_mul(0x9E37_79B1).wrapping_add(seed);
    h = (h ^ (h >> 15)).wrapping_mul(0x85EB_CA77);
    h = (h ^ (h >> 13)).wrapping_mul(0xC2B2_AE3D);
    h ^ (h >> 16)
}

/// Random weights in f32 or bf16, made on the device.
#[must_use]
pub fn drawn<const D: usize>(shape: [usize; D], place: (&Device, DType), seed: u32) -> Tensor<D> {
    let len: usize = shape.iter().product();
    let room = Tensor::<1>::empty([len], place);
    let floats = Dispatch::draw_floats(room.into_dispatch(), seed);
    Tensor::<1>::from_dispatch(floats).reshape(shape)
}

/// Copies words on a device, in place on a GPU: to measure what it copies in a second.
///
/// # Shapes
/// - from, to: `[words]`, a multiple of [`COPY_WORDS`]
#[must_use]
pub fn copy(from: Tensor<1, Int>, to: Tensor<1, Int>) -> Tensor<1, Int> {
    Tensor::from_dispatch(Dispatch::copy(from.into_dispatch(), to.into_dispatch()))
}

impl Packed {
    /// A random matrix in NVFP4 or MXFP4, made on the device: values of the spread of [`drawn`].
    ///
    /// # Panics
    /// When the format is another.
    #[must_use]
    pub fn drawn(spec: PackedSpec, device: &Device, seed: u32) -> Self {
        let rows = spec.matrices * spec.rows;
        let room = |bytes: usize| {
            let words = (rows * bytes).div_ceil(size_of::<u32>()).max(1);
            Tensor::<1, Int>::empty([words], (device, DType::U32)).into_dispatch()
        };
        let codes = Words::codes(&spec, seed);
        let scales = Words::scales(spec.format, seed);
        let codes = Dispatch::draw_words(room(spec.row_bytes()), codes);
        let scales = Dispatch::draw_words(room(spec.scale_bytes()), scales);
        let gains = Tensor::full([rows], drawn_gain(spec.format), (device, DType::F32));
        Self::stored((codes, scales), gains, spec)
    }
}
