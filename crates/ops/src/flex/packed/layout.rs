//! The order of a packed matrix on the CPU: panels of as many rows as a vector has lanes.
//!
//! A panel holds the first word of each of its rows, then the second of each, and so on: a vector of words meets one
//! number of the input, which needs no shuffle, and the sums of the rows need no reduction. Scales lie in the same way.
//! The last panel of a matrix has the rows that are left, so the order takes no byte more than a checkpoint's.

use rayon::prelude::*;

use crate::PackedSpec;

/// One matrix in panels.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub(super) spec: PackedSpec,
    pub(super) codes: &'a [u32],
    pub(super) scales: &'a [u8],
    pub(super) gains: &'a [f32],
}

/// Some rows of a matrix.
#[derive(Clone, Copy)]
pub(super) struct Panel<'a> {
    /// `[words of a row, rows]`
    pub(super) codes: &'a [u32],
    /// `[blocks, rows]`; with offsets `[blocks, factor and offset, rows]`
    pub(super) scales: &'a [u8],
    /// One a row.
    pub(super) gains: &'a [f32],
}

impl<'a> Matrix<'a> {
    /// Panel number `index` when panels have `lanes` rows.
    pub(super) fn panel(&self, index: usize, lanes: usize) -> Panel<'a> {
        let (start, end) = (index * lanes, ((index + 1) * lanes).min(self.spec.rows));
        let words = self.spec.row_bytes() / size_of::<u32>();
        let scales = self.spec.scale_bytes();
        Panel {
            codes: &self.codes[start * words..end * words],
            scales: &self.scales[start * scales..end * scales],
            gains: &self.gains[start..end],
        }
    }
}

impl<'a> Panel<'a> {
    pub(super) fn rows(&self) -> usize {
        self.gains.len()
    }

    /// The codes as a panel of `lanes` rows, in `scratch` when there are fewer.
    pub(super) fn words(&self, lanes: usize, scratch: &'a mut Vec<u32>) -> &'a [u32] {
        let rows = self.rows();
        if rows == lanes {
            return self.codes;
        }
        scratch.clear();
        scratch.resize(self.codes.len() / rows * lanes, 0);
        for (out, codes) in scratch
            .chunks_exact_mut(lanes)
            .zip(self.codes.chunks_exact(rows))
        {
            out[..rows].copy_from_slice(codes);
        }
        scratch
    }
}

/// Puts rows of `length` numbers, one after the other, into panels of `lanes` rows, in place.
pub(super) fn interleave<T: Copy + Send + Sync>(
    data: &mut [T],
    spec: &PackedSpec,
    length: usize,
    lanes: usize,
) {
    let matrix = spec.rows * length;
    if matrix == 0 || lanes == 1 {
        return;
    }
    data[..spec.matrices * matrix]
        .par_chunks_mut(matrix)
        .flat_map(|matrix| matrix.par_chunks_mut(lanes * length))
        .for_each_init(Vec::new, |rows, panel| {
            rows.clear();
            rows.extend_from_slice(panel);
            let height = panel.len() / length;
            for (i, places) in panel.chunks_exact_mut(height).enumerate() {
                for (place, row) in places.iter_mut().zip(rows.chunks_exact(length)) {
                    *place = row[i];
                }
            }
        });
}
