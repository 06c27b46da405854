//! Which rows go to which expert, for many rows: a counting sort on the device.

use cubecl::prelude::*;

use super::Blocking;
use crate::Buffer;
use crate::grid::flat;
use crate::linear::vector;
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
        let blocking = Blocking::in_order(order, choices * halves / experts, usize::MAX);
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
    if unit == 0usize {
        let mut start = 0usize;
        let mut written = 0usize;
        for expert in 0..experts {
            let count = cursors[expert].load() as usize;
            cursors[expert].store(start as u32);
            let end = start + count;
            while start < end {
                let after = select(start + block < end, start + block, end);
                blocks[written * 3usize] = expert as u32;
                blocks[written * 3usize + 1usize] = start as u32;
                blocks[written * 3usize + 2usize] = after as u32;
                written += 1usize;
                start = after;
            }
        }
        while written * 3usize < blocks.len() {
            blocks[written * 3usize + 1usize] = 0u32;
            blocks[written * 3usize + 2usize] = 0u32;
            written += 1usize;
        }
    }
    sync_cube();
    let mut at = unit;
    while at < ids.len() {
        let place = cursors[ids[at] as usize].fetch_add(1u32);
        order[place as usize] = at as u32;
        at += UNITS;
    }
}

/// The sum of the rows of each choice, in the order of the slots.
///
/// - parts: `[rows, slots, width]`
/// - y: `[rows, width]`
pub fn sum_slots(client: &Client, (parts, slots): (&Buffer, usize), (y, width): (&Buffer, usize)) {
    let size = vector(&[width]);
    let (count, dim) = flat(y.len() / size);
    #[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
    // SAFETY: units beyond `y` return.
    unsafe {
        sum_kernel::launch_unchecked(
            client,
            count,
            dim,
            size,
            parts.vectors(size),
            y.vectors(size),
            slots as u32,
            (width / size) as u32,
            [parts.elem, y.elem],
        );
    }
}

#[cube(launch_unchecked)]
fn sum_kernel<P: Float, Y: Float, N: Size>(
    parts: &[Vector<P, N>],
    y: &mut [Vector<Y, N>],
    slots: u32,
    width: u32,
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
    y[at] = Vector::cast_from(sum);
}
