//! Splitting rows over threads, and not splitting what is too small for it.

use std::ops::Range;

use rayon::prelude::*;

/// Scalar operations below which a second thread costs more than it saves (about 20 µs of work).
const WORTH_A_THREAD: usize = 1 << 17;

/// How many pieces `work` scalar operations are worth, at most one for each thread.
pub(super) fn pieces(work: usize) -> usize {
    (work / WORTH_A_THREAD).clamp(1, rayon::current_num_threads())
}

/// Calls `f(row, out_row)` for each row of `out`, on several threads when `work` scalar operations are worth it.
pub(super) fn rows(
    out: &mut [f32],
    width: usize,
    work: usize,
    f: impl Fn(usize, &mut [f32]) + Sync,
) {
    if out.is_empty() {
        return;
    }
    let pieces = pieces(work);
    let per_piece = (out.len() / width).div_ceil(pieces);
    let run = |(piece, chunk): (usize, &mut [f32])| {
        for (i, row) in chunk.chunks_exact_mut(width).enumerate() {
            f(piece * per_piece + i, row);
        }
    };
    if pieces == 1 {
        run((0, out));
    } else {
        out.par_chunks_mut(per_piece * width)
            .enumerate()
            .for_each(run);
    }
}

/// Calls `f(columns, part)` for up to `pieces` runs of the columns of `out`, `[rows, width]`, each beginning with a
/// multiple of `step`. A part is `[rows, columns]` and f fills it.
pub(super) fn columns(
    out: &mut [f32],
    rows: usize,
    step: usize,
    pieces: usize,
    f: impl Fn(Range<usize>, &mut [f32]) + Sync,
) {
    if out.is_empty() {
        return;
    }
    let width = out.len() / rows;
    let per_piece = width.div_ceil(pieces).next_multiple_of(step);
    if per_piece >= width {
        return f(0..width, out);
    }
    let columns = |piece: usize| piece * per_piece..((piece + 1) * per_piece).min(width);
    if rows == 1 {
        let parts = out.par_chunks_mut(per_piece).enumerate();
        return parts.for_each(|(piece, part)| f(columns(piece), part));
    }
    // Each thread fills a buffer of its own.
    let parts: Vec<Vec<f32>> = (0..width.div_ceil(per_piece))
        .into_par_iter()
        .map(|piece| {
            let columns = columns(piece);
            let mut part = vec![0.0; rows * columns.len()];
            f(columns, &mut part);
            part
        })
        .collect();
    for (piece, part) in parts.iter().enumerate() {
        let columns = columns(piece);
        for (row, part) in out
            .chunks_exact_mut(width)
            .zip(part.chunks_exact(columns.len()))
        {
            row[columns.clone()].copy_from_slice(part);
        }
    }
}
