//! How far two devices may be apart: what one of them rounds that the other does not.
//!
//! Errors are variances, relative to the length of a row. Rounding a number to a format whose numbers are `2^-n` apart at
//! one moves it by `2^-n / sqrt(12)` or more often less; over numbers of all sizes the root of the mean square is
//! `2^-n / sqrt(28)` of their own. Rows have hundreds of numbers, and their roundings do not depend on one another, so the
//! length of a row's error is close to the root of the sum: twice that is the bound, for the worst of all rows.

use burn::tensor::{DType, Device};
use burn_omni_ops::KvFormat;
use burn_omni_ops::decode::multiplies_bf16;

/// Rows from which on matrix units take activations and operands of attention as bf16.
const MANY: usize = 64;
/// What two halves of bf16 keep, in which matrix units take all other operands: 16 bits.
const HALVES: f64 = 1.0 / (1 << 16) as f64;
/// What sums in f32 keep that are formed in another order: of 4096 numbers each rounds by the root of a mean square of
/// 2^-25, and the root of their sum is 64 times that.
const SUMS: f64 = 1.0 / (1 << 19) as f64;

/// What a device rounds in the layers of a model, apart from the CPU.
#[derive(Clone, Copy, Debug)]
pub struct Rounding {
    /// Whether it has matrix units.
    units: bool,
    /// Whether weights are packed: their activations are rounded to bf16 where rows are many.
    packed: bool,
}

/// The variance of numbers that are rounded to a format whose numbers are this far apart at one.
fn rounded(step: f64) -> f64 {
    step * step / 28.0
}

/// The step of bf16.
const BF16: f64 = 1.0 / 128.0;

impl Rounding {
    /// Of a device.
    #[must_use]
    pub fn on(device: &Device, packed: bool) -> Self {
        Self {
            units: multiplies_bf16(device),
            packed,
        }
    }

    /// How caches are stored on a device: as captured steps have them.
    #[must_use]
    pub fn cache(self) -> KvFormat {
        KvFormat::Float(if self.units { DType::BF16 } else { DType::F32 })
    }

    /// What every product rounds away.
    fn floor(self) -> f64 {
        let kept = if self.units { HALVES } else { SUMS };
        kept * kept
    }

    /// What multiplying so many rows rounds away.
    fn product(self, rows: usize) -> f64 {
        if self.units && self.packed && rows >= MANY {
            rounded(BF16)
        } else {
            self.floor()
        }
    }

    /// Of what attention adds to rows whose error is `entering`.
    ///
    /// A row reaches queries, keys and values, of which scores are as sensitive to the first two as outputs are to the last.
    /// The CPU keeps floats as they are. Caches of E4M3 round keys and values on both devices, so that only those that lie next
    /// to a boundary differ, by a step: of numbers that are `e` apart a share of `2 e / step`. Matrix units round queries and probabilities too, and keys and
    /// values that are not rounded already.
    pub(super) fn attention(self, rows: usize, entering: f64, cache: KvFormat) -> f64 {
        let input = entering + self.product(rows) + self.floor();
        let step = match cache {
            KvFormat::E4m3 => 1.0 / 8.0,
            KvFormat::Float(DType::BF16) => BF16,
            KvFormat::Float(_) => 0.0,
        };
        let other_side = 2.0 * input.sqrt() * step;
        let stored = match cache {
            KvFormat::Float(_) => rounded(step),
            KvFormat::E4m3 => other_side.min(2.0 * rounded(step) + input),
        };
        let operands = match (self.units && rows >= MANY, step > 0.0) {
            (false, _) => 0.0,
            (true, true) => 2.0,
            (true, false) => 4.0,
        };
        3.0 * input + 2.0 * stored + operands * rounded(BF16) + self.product(rows)
    }

    /// Of what a feed-forward block adds to rows whose error is `entering`: gates and what they gate, what comes of them,
    /// and where rows are rounded the parts of their sums.
    pub(super) fn feed_forward(self, rows: usize, entering: f64) -> f64 {
        3.0 * (entering + self.product(rows)) + 2.0 * self.product(rows)
    }

    /// Of so many products of what is not packed, one behind the other.
    pub(super) fn products(self, count: usize) -> f64 {
        count as f64 * self.floor()
    }

    /// The bound that a variance means.
    pub(super) fn bound(self, variance: f64) -> f64 {
        2.0 * (variance + self.floor()).sqrt()
    }
}

/// The error of rows of which this much of the squares entered, and was added, with errors of their own.
pub(super) fn joined(errors: [f64; 2], shares: [f64; 2]) -> f64 {
    errors[0] * shares[0] + errors[1] * shares[1]
}
