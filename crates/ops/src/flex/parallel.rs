//! Splitting rows over threads, and not splitting what is too small for it.

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
