//! One unit a row.

use cubecl::prelude::*;

use super::Routes;
use crate::{Matrix, grid};

pub(super) fn launch(client: &Client, logits: &Matrix, routes: &Routes, normalize: bool) {
    let (count, dim) = grid::flat(logits.rows);
    route_kernel::launch(
        client,
        count,
        dim,
        logits.buffer.arg(),
        routes.ids.arg(),
        routes.weights.arg(),
        logits.rows,
        logits.stride,
        logits.width,
        routes.top_k,
        normalize,
        logits.buffer.elem,
    );
}

#[cube(launch)]
fn route_kernel<X: Float>(
    logits: &[X],
    ids: &mut [i32],
    weights: &mut [X],
    rows: usize,
    stride: usize,
    experts: usize,
    #[comptime] top_k: usize,
    #[comptime] normalize: bool,
    #[define(X)] _elem: ElemType,
) {
    let row = ABSOLUTE_POS;
    if row < rows {
        let from = row * stride;
        let mut largest = f32::cast_from(logits[from]);
        for i in 0..experts {
            let score = f32::cast_from(logits[from + i]);
            largest = select(score > largest, score, largest);
        }
        let mut total = 0.0f32;
        if comptime!(!normalize) {
            for i in 0..experts {
                total += (f32::cast_from(logits[from + i]) - largest).exp();
            }
        }
        // The next choice is the best of those behind the last one.
        let mut shares = Array::<f32>::new(top_k);
        let mut last = f32::new(f32::MAX);
        let mut chosen = 0usize;
        #[unroll]
        for slot in 0..top_k {
            let mut best = f32::new(f32::MIN);
            let mut id = 0usize;
            for i in 0..experts {
                let score = f32::cast_from(logits[from + i]);
                let is_left = score < last || (score == last && i > chosen);
                if is_left && score > best {
                    best = score;
                    id = i;
                }
            }
            last = best;
            chosen = id;
            ids[row * top_k + slot] = i32::cast_from(id);
            shares[slot] = (best - largest).exp();
            if comptime!(normalize) {
                total += shares[slot];
            }
        }
        #[unroll]
        for slot in 0..top_k {
            weights[row * top_k + slot] = X::cast_from(shares[slot] / total);
        }
    }
}
