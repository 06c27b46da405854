//! Packed matrices whose rows are copied as they are: from the memory map to where they belong, on all cores.

use burn_omni_ops::{PackedBytes, PackedSpec};
use rayon::prelude::*;

use crate::{Warnings, buffer};

/// Bytes of codes that one task copies: large enough to hide the cost of a task, small enough to share out.
const TASK: usize = 1 << 20;

/// A packed matrix whose rows can be copied one by one.
pub(crate) trait PackedRows: Sync {
    /// What it is, as one matrix.
    fn spec(&self) -> PackedSpec;

    /// Where codes and scales lie in the memory map.
    fn stored(&self) -> [&[u8]; 2];

    /// One factor a row.
    fn gains(&self) -> Vec<f32>;

    /// Copies rows from number `from` on, as many as there is room for, and mends what is not as it should be.
    fn copy(&self, from: usize, room: Room<'_>) -> Mended;

    /// Says what was mended.
    fn note(&self, mended: Mended, warnings: &Warnings);
}

/// Where rows belong; all zero.
pub(crate) struct Room<'a> {
    /// Codes of some rows.
    pub(crate) codes: &'a mut [u8],
    /// Their scales.
    pub(crate) scales: &'a mut [u8],
}

/// How many block scales were mended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mended {
    /// Those that were NaN.
    pub(crate) nan: u64,
    /// Those that had a sign.
    pub(crate) negative: u64,
}

/// Some rows of a part, and where they belong.
struct Task<'a> {
    part: usize,
    from: usize,
    room: Room<'a>,
}

/// Matrices of one form as one of `spec`, whose rows are theirs.
pub(super) fn read(
    parts: &[&dyn PackedRows],
    spec: PackedSpec,
    warnings: &Warnings,
) -> PackedBytes {
    for part in parts {
        part.stored().into_iter().for_each(buffer::read_ahead);
    }
    let rows = parts.iter().map(|part| part.spec().rows).sum::<usize>();
    let [row_codes, row_scales] = [spec.row_bytes(), spec.scale_bytes()];
    let mut codes = buffer::zeros(rows * row_codes);
    let mut scales = buffer::zeros(rows * row_scales);
    let at_once = TASK.div_ceil(row_codes.max(1));
    let mut tasks = Vec::new();
    let (mut rest_codes, mut rest_scales) = (codes.as_mut_slice(), scales.as_mut_slice());
    for (part, matrix) in parts.iter().enumerate() {
        let rows = matrix.spec().rows;
        for from in (0..rows).step_by(at_once) {
            let count = at_once.min(rows - from);
            let (codes, scales);
            (codes, rest_codes) = rest_codes.split_at_mut(count * row_codes);
            (scales, rest_scales) = rest_scales.split_at_mut(count * row_scales);
            let room = Room { codes, scales };
            tasks.push(Task { part, from, room });
        }
    }
    let copied = tasks.into_par_iter();
    let copied = copied.map(|task| (task.part, parts[task.part].copy(task.from, task.room)));
    let mut mended = vec![Mended::default(); parts.len()];
    for (part, more) in copied.collect::<Vec<_>>() {
        mended[part].nan += more.nan;
        mended[part].negative += more.negative;
    }
    for (part, mended) in parts.iter().zip(mended) {
        part.note(mended, warnings);
    }
    PackedBytes {
        spec,
        codes,
        scales,
        gains: parts.iter().flat_map(|part| part.gains()).collect(),
    }
}
