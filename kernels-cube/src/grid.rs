//! How many cubes a launch has.

use cubecl::prelude::*;

/// Most cubes along one axis on every device.
const AXIS: usize = 65_535;

/// Units of a cube of an element-wise kernel.
const FLAT_UNITS: u32 = 64;

/// At least `count` cubes, numbered by `CUBE_POS`.
pub(crate) fn cubes(count: usize) -> CubeCount {
    let depth = count.div_ceil(AXIS);
    CubeCount::Static(axis(count.div_ceil(depth.max(1))), axis(depth), 1)
}

/// `x` cubes for each of at least `count`, which are numbered by [`item`].
pub(crate) fn cubes_by_item(x: usize, count: usize) -> CubeCount {
    let depth = count.div_ceil(AXIS);
    CubeCount::Static(axis(x), axis(count.div_ceil(depth.max(1))), axis(depth))
}

/// The number of this cube's item in a launch of [`cubes_by_item`].
#[cube]
pub(crate) fn item() -> usize {
    CUBE_POS_Z as usize * CUBE_COUNT_Y as usize + CUBE_POS_Y as usize
}

/// At least one unit an element, numbered by `ABSOLUTE_POS`.
pub(crate) fn flat(count: usize) -> (CubeCount, CubeDim) {
    let units = FLAT_UNITS as usize;
    (cubes(count.div_ceil(units)), CubeDim::new_1d(FLAT_UNITS))
}

fn axis(count: usize) -> u32 {
    u32::try_from(count).expect("a launch has less than 2^32 cubes along an axis")
}
