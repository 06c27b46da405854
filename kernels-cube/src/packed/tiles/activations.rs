//! Rows of activations in the form that matrix units take.

use cubecl::prelude::*;

use crate::Buffer;
use crate::buffer::cubes;

const UNITS: u32 = 256;

/// Rounds rows to bf16, pads them to `columns`, and with `split` puts behind each what the rounding took away.
///
/// - x: `[rows, width]`
/// - rounded: bf16 `[rows, 1 or 2, columns]`
#[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
pub fn round<X: Float + CubeElement>(
    client: &Client,
    (x, width): (&Buffer, usize),
    (rounded, columns): (&Buffer, usize),
    split: bool,
) {
    // SAFETY: units beyond the rounded numbers return.
    unsafe {
        round_kernel::launch_unchecked::<X>(
            client,
            cubes(rounded.len(), UNITS),
            CubeDim::new_1d(UNITS),
            x.arg(),
            rounded.arg(),
            width as u32,
            columns as u32,
            split,
        );
    }
}

#[cube(launch_unchecked)]
fn round_kernel<X: Float>(
    x: &[X],
    rounded: &mut [half::bf16],
    width: u32,
    columns: u32,
    #[comptime] split: bool,
) {
    let at = ABSOLUTE_POS;
    if at >= rounded.len() {
        terminate!();
    }
    let (width, columns) = (width as usize, columns as usize);
    let column = at % columns;
    let mut row = at / columns;
    let mut value = 0.0f32;
    if comptime!(split) {
        let rest = row % 2usize;
        row = row / 2usize;
        if column < width {
            value = f32::cast_from(x[row * width + column]);
            if rest == 1usize {
                value -= f32::cast_from(half::bf16::cast_from(value));
            }
        }
    } else if column < width {
        value = f32::cast_from(x[row * width + column]);
    }
    rounded[at] = half::bf16::cast_from(value);
}
