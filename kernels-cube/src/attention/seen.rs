//! What a row sees, and the sizes of a launch.

use cubecl::prelude::*;

use super::{Attention, Seen};
use crate::Buffer;

/// What the kernels are told at run time.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) rows: usize,
    pub(super) group: usize,
    pub(super) kv_heads: usize,
    pub(super) split_keys: usize,
    pub(super) q_row: usize,
    pub(super) q_head: usize,
    pub(super) k_row: usize,
    pub(super) k_head: usize,
    pub(super) v_row: usize,
    pub(super) v_head: usize,
    /// One more than the last key of the first row.
    pub(super) first_end: usize,
    /// How many keys a row sees.
    pub(super) window: usize,
    pub(super) scale: f32,
}

pub(super) fn sizes(attention: &Attention<'_>, split_keys: usize) -> SizesLaunch {
    let Attention {
        q,
        k,
        v,
        scale,
        seen,
    } = attention;
    let (first_end, window) = match seen {
        Seen::Causal { first, window } => (first + 1, *window),
        Seen::Ranges(_) => (0, 0),
    };
    SizesLaunch::new(
        q.rows,
        q.heads / k.heads,
        k.heads,
        split_keys,
        q.strides[0],
        q.strides[1],
        k.strides[0],
        k.strides[1],
        v.strides[0],
        v.strides[1],
        first_end,
        window,
        *scale,
    )
}

/// The ranges on the device, where there are any.
pub(super) fn ranges(client: &Client, seen: Seen<'_>) -> Buffer {
    match seen {
        Seen::Causal { .. } => Buffer::empty(client, u32::elem_type_native(), 2),
        Seen::Ranges(ranges) => Buffer::numbers(client, ranges.as_flattened()),
    }
}

/// The keys from the first to before the second that a row sees.
#[cube]
pub(super) fn seen_keys(
    ranges: &[u32],
    sizes: &Sizes,
    row: usize,
    #[comptime] has_ranges: bool,
) -> (usize, usize) {
    if comptime!(has_ranges) {
        (ranges[2 * row] as usize, ranges[2 * row + 1] as usize)
    } else {
        let end = sizes.first_end + row;
        (end - select(end < sizes.window, end, sizes.window), end)
    }
}
