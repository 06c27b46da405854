//! The splits of the keys joined, one unit a number of the output.

use cubecl::prelude::*;

use super::{Attention, Parts, Plan};
use crate::{Buffer, grid};

pub(super) fn launch(
    client: &Client,
    attention: &Attention<'_>,
    plan: Plan,
    parts: &Parts,
) -> Buffer {
    let q = attention.q;
    let heads = q.rows * q.heads;
    let y = Buffer::empty(client, q.buffer.elem, heads * q.width);
    let (count, dim) = grid::flat(heads * q.width);
    join_kernel::launch(
        client,
        count,
        dim,
        parts.sums.arg(),
        parts.scales.arg(),
        y.arg(),
        heads,
        q.width,
        plan.splits,
        q.buffer.elem,
    );
    y
}

#[cube(launch)]
fn join_kernel<Y: Float>(
    sums: &[f32],
    scales: &[f32],
    y: &mut [Y],
    heads: usize,
    width: usize,
    splits: usize,
    #[define(Y)] _elem: ElemType,
) {
    if ABSOLUTE_POS < heads * width {
        let head = ABSOLUTE_POS / width;
        let mut largest = scales[head * 2];
        for split in 1..splits {
            let other = scales[(split * heads + head) * 2];
            largest = select(other > largest, other, largest);
        }
        let mut sum = 0.0f32;
        let mut total = 0.0f32;
        for split in 0..splits {
            let at = split * heads + head;
            let factor = (scales[at * 2] - largest).exp();
            total += scales[at * 2 + 1] * factor;
            sum += sums[at * width + ABSOLUTE_POS % width] * factor;
        }
        y[ABSOLUTE_POS] = Y::cast_from(select(total > 0.0f32, sum / total, 0.0f32));
    }
}
