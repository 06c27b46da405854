//! Which rows go to which expert, for many rows: a counting sort on the device.

use cubecl::prelude::*;

use super::Blocking;
use crate::Buffer;
use crate::grid::flat;
use crate::linear::vector;
use crate::math::sigmoid;
use crate::matrix_units::Instructions;
use crate::packed::tiles::ColumnOrder;

/// Units that sort.
const UNITS: usize = 1024;

/// The rows of every expert, in blocks of as many columns as a cube has.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Choices sorted by expert: u32 `[rows * slots]`, `row * slots + slot`.
    pub order: Buffer,
    /// Expert, first and end of each block in `order`: u32 `[capacity, 3]`; empty behind the last block.
    pub blocks: Buffer,
    /// Choices of a row.
    pub slots: usize,
    /// How much a cube computes.
    pub blocking: Blocking,
    /// What its products are made of.
    pub instructions: Instructions,
}

impl Plan {
    /// Sorts the choices of rows.
    ///
    /// - ids: u32 `[rows, slots]`
    /// - split: whether a row of activations is two columns
    /// - order: that of their rows
    #[must_use]
    pub fn new(
        client: &Client,
        (ids, slots): (&Buffer, usize),
        experts: usize,
        (split, order): (bool, ColumnOrder),
    ) -> Self {
        let choices = ids.len();
        let halves = if split { 2 } else { 1 };
        let mut columns = choices * halves / experts;
        if order != ColumnOrder::Natural {
            // Most experts then have one block, and their weights are decoded once.
            columns *= 2;
        }
        let blocking = Blocking::in_order(order, columns, usize::MAX);
        let block = blocking.columns() / halves;
        // Every expert with rows may have one block that is not full.
        let capacity = choices / block + experts.min(choices);
        let u32s = |len| Buffer::empty(client, u32::elem_type_native(), len);
        let plan = Self {
            order: u32s(choices),
            blocks: u32s(capacity * 3),
            slots,
            blocking,
            instructions: super::instructions(order),
        };
        plan.sort(client, ids, experts, block);
        plan
    }

    /// Blocks that there are at most.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.blocks.len() / 3
    }

    fn sort(&self, client: &Client, ids: &Buffer, experts: usize, block: usize) {
        #[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
        // SAFETY: `order` is as long as `ids`, and blocks beyond the capacity cannot occur.
        unsafe {
            sort_kernel::launch_unchecked(
                client,
                CubeCount::Static(1, 1, 1),
                CubeDim::new_1d(UNITS as u32),
                ids.arg(),
                self.order.arg(),
                self.blocks.arg(),
                experts,
                block,
            );
        }
    }
}

/// The order among the rows of one expert may differ from run to run; the results do not depend on it.
#[cube(launch_unchecked)]
fn sort_kernel(
    ids: &[u32],
    order: &mut [u32],
    blocks: &mut [u32],
    #[comptime] experts: usize,
    #[comptime] block: usize,
) {
    let unit = UNIT_POS_X as usize;
    let cursors = Shared::<[Atomic<u32>]>::new_slice(experts);
    let mut at = unit;
    while at < experts {
        cursors[at].store(0u32);
        at += UNITS;
    }
    sync_cube();
    let mut at = unit;
    while at < ids.len() {
        cursors[ids[at] as usize].fetch_add(1u32);
        at += UNITS;
    }
    sync_cube();
    let mut counts = Shared::<[u32]>::new_slice(experts);
    let mut at = unit;
    while at < experts {
        counts[at] = cursors[at].load();
        at += UNITS;
    }
    sync_cube();
    let mut expert = unit;
    while expert < experts {
        let (mut start, mut written) = before(&counts, expert, block);
        cursors[expert].store(start as u32);
        let end = start + counts[expert] as usize;
        while start < end {
            let after = select(start + block < end, start + block, end);
            blocks[written * 3usize] = expert as u32;
            blocks[written * 3usize + 1usize] = start as u32;
            blocks[written * 3usize + 2usize] = after as u32;
            written += 1usize;
            start = after;
        }
        expert += UNITS;
    }
    let (_, written) = before(&counts, experts, block);
    let mut empty = written + unit;
    while empty * 3usize < blocks.len() {
        blocks[empty * 3usize + 1usize] = 0u32;
        blocks[empty * 3usize + 2usize] = 0u32;
        empty += UNITS;
    }
    sync_cube();
    let mut at = unit;
    while at < ids.len() {
        let place = cursors[ids[at] as usize].fetch_add(1u32);
        order[place as usize] = at as u32;
        at += UNITS;
    }
}

/// How many choices, and how many blocks, the experts before this one have.
#[cube]
fn before(counts: &Shared<[u32]>, expert: usize, #[comptime] block: usize) -> (usize, usize) {
    let mut choices = 0usize;
    let mut blocks = 0usize;
    for other in 0..expert {
        let count = counts[other] as usize;
        choices += count;
        blocks += (count + comptime!(block - 1)) / block;
    }
    (choices, blocks)
}

/// What the sum over the choices of a row is added to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Added<'a> {
    /// f32 `[rows, width]`
    pub onto: Option<&'a Buffer>,
    /// The output of an expert of every row, f32 `[rows, width]`, and its scores, f32 `[rows]`, of which the logistic function is
    /// its share.
    pub shared: Option<[&'a Buffer; 2]>,
}

/// The sum of the rows of each choice, in the order of the slots.
///
/// - parts: `[rows, slots, width]`
/// - y: `[rows, width]`
pub fn sum_slots(
    client: &Client,
    (parts, slots): (&Buffer, usize),
    added: Added<'_>,
    (y, width): (&Buffer, usize),
) {
    let size = vector(&[width]);
    let (count, dim) = flat(y.len() / size);
    let Added { onto, shared } = added;
    let [rows, scores] = shared.unwrap_or([parts; 2]);
    #[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
    // SAFETY: units beyond `y` return.
    unsafe {
        sum_kernel::launch_unchecked(
            client,
            count,
            dim,
            size,
            parts.vectors(size),
            onto.unwrap_or(parts).bytes(4 * size),
            rows.bytes(4 * size),
            scores.bytes(4),
            y.vectors(size),
            slots as u32,
            (width / size) as u32,
            [onto.is_some(), shared.is_some()],
            [parts.elem, y.elem],
        );
    }
}

#[cube(launch_unchecked)]
fn sum_kernel<P: Float, Y: Float, N: Size>(
    parts: &[Vector<P, N>],
    onto: &[Vector<f32, N>],
    shared: &[Vector<f32, N>],
    scores: &[f32],
    y: &mut [Vector<Y, N>],
    slots: u32,
    width: u32,
    #[comptime] added: [bool; 2],
    #[define(P, Y)] _elems: [ElemType; 2],
) {
    let at = ABSOLUTE_POS;
    if at >= y.len() {
        terminate!();
    }
    let (slots, width) = (slots as usize, width as usize);
    let first = at / width * slots * width + at % width;
    let mut sum = Vector::<f32, N>::new(0.0f32);
    for slot in 0..slots {
        sum += Vector::cast_from(parts[first + slot * width]);
    }
    if comptime!(added[1]) {
        sum += shared[at] * Vector::new(sigmoid(scores[at / width]));
    }
    if comptime!(added[0]) {
        sum += onto[at];
    }
    y[at] = Vector::cast_from(sum);
}
