//! Which rows go to which expert, for many rows: a counting sort on the device.

use cubecl::prelude::*;

use super::many::COLUMNS;
use crate::Buffer;

/// Units that sort.
const UNITS: u32 = 256;

/// The rows of every expert, in blocks of [`COLUMNS`] columns.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Choices sorted by expert: u32 `[rows * slots]`, `row * slots + slot`.
    pub order: Buffer,
    /// Expert, first and end of each block in `order`: u32 `[capacity, 3]`; empty behind the last block.
    pub blocks: Buffer,
    /// Blocks that there are at most.
    pub capacity: usize,
    /// Choices of a row.
    pub slots: usize,
}

impl Plan {
    /// Room for `choices` choices among `experts` experts, `columns` of them a block.
    #[must_use]
    pub fn capacity(choices: usize, experts: usize, split: bool) -> usize {
        let block = block_rows(split);
        // Every expert with rows may have one block that is not full.
        choices / block + experts.min(choices)
    }

    /// Fills the plan.
    ///
    /// - ids: u32 `[rows, slots]`
    #[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
    pub fn sort(&self, client: &Client, ids: &Buffer, experts: usize, split: bool) {
        // SAFETY: `order` is as long as `ids`, and blocks beyond the capacity cannot occur.
        unsafe {
            sort_kernel::launch_unchecked(
                client,
                CubeCount::Static(1, 1, 1),
                CubeDim::new_1d(UNITS),
                ids.arg(),
                self.order.arg(),
                self.blocks.arg(),
                self.capacity as u32,
                experts,
                block_rows(split),
            );
        }
    }
}

const fn block_rows(split: bool) -> usize {
    if split { COLUMNS / 2 } else { COLUMNS }
}

/// The order among the rows of one expert may differ from run to run; the results do not depend on it.
#[cube(launch_unchecked)]
fn sort_kernel(
    ids: &[u32],
    order: &mut [u32],
    blocks: &mut [u32],
    capacity: u32,
    #[comptime] experts: usize,
    #[comptime] block: usize,
) {
    let unit = UNIT_POS_X as usize;
    let units = UNITS as usize;
    let counts = Shared::<[Atomic<u32>]>::new_slice(experts);
    let cursors = Shared::<[Atomic<u32>]>::new_slice(experts);
    let mut turn = unit;
    while turn < experts {
        counts[turn].store(0u32);
        turn += units;
    }
    sync_cube();
    let mut at = unit;
    while at < ids.len() {
        counts[ids[at] as usize].fetch_add(1u32);
        at += units;
    }
    sync_cube();
    if unit == 0usize {
        let mut start = 0usize;
        let mut written = 0usize;
        for expert in 0..experts {
            let count = counts[expert].load() as usize;
            cursors[expert].store(start as u32);
            let mut done = 0usize;
            while done < count {
                let left = count - done;
                let size = select(left < block, left, block);
                blocks[written * 3usize] = expert as u32;
                blocks[written * 3usize + 1usize] = (start + done) as u32;
                blocks[written * 3usize + 2usize] = (start + done + size) as u32;
                written += 1usize;
                done += size;
            }
            start += count;
        }
        while written < capacity as usize {
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
        at += units;
    }
}

/// The sum of the rows of each choice, in the order of the slots.
///
/// - parts: `[rows, slots, width]`
/// - y: `[rows, width]`
#[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
pub fn sum_slots<Y: Float + CubeElement>(
    client: &Client,
    (parts, slots): (&Buffer, usize),
    (y, width): (&Buffer, usize),
) {
    // SAFETY: units beyond `y` return.
    unsafe {
        sum_kernel::launch_unchecked::<Y>(
            client,
            crate::buffer::cubes(y.len(), UNITS),
            CubeDim::new_1d(UNITS),
            parts.arg(),
            y.arg(),
            slots as u32,
            width as u32,
        );
    }
}

#[cube(launch_unchecked)]
fn sum_kernel<Y: Float>(parts: &[Y], y: &mut [Y], slots: u32, width: u32) {
    let at = ABSOLUTE_POS;
    if at >= y.len() {
        terminate!();
    }
    let (slots, width) = (slots as usize, width as usize);
    let mut sum = 0.0f32;
    for slot in 0..slots {
        sum += f32::cast_from(parts[(at / width * slots + slot) * width + at % width]);
    }
    y[at] = Y::cast_from(sum);
}
