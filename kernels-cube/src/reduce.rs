//! Sums over the units of a cube, in a fixed order.

use cubecl::prelude::*;

/// The sum of every unit's `value`, in shared memory of a number a unit.
#[cube]
pub(crate) fn cube_sum(value: f32, room: &mut Shared<[f32]>, #[comptime] units: usize) -> f32 {
    let unit = UNIT_POS as usize;
    sync_cube();
    room[unit] = value;
    sync_cube();
    #[unroll]
    for step in 0..comptime!(units.ilog2() as usize) {
        let half = comptime!(units >> (step + 1));
        if unit < half {
            let other = room[unit + half];
            room[unit] += other;
        }
        sync_cube();
    }
    room[0]
}

/// The sum over the lanes of each of a cube's groups: a unit's lane is its `x`, its group its `y`.
#[cube]
pub(crate) fn lanes_sum(value: f32, room: &mut Shared<[f32]>, #[comptime] lanes: Lanes) -> f32 {
    if comptime!(lanes.is_plane) {
        plane_sum(value)
    } else {
        let lane = UNIT_POS_X as usize;
        let first = UNIT_POS_Y as usize * comptime!(lanes.count);
        sync_cube();
        room[first + lane] = value;
        sync_cube();
        #[unroll]
        for step in 0..comptime!(lanes.count.ilog2() as usize) {
            let half = comptime!(lanes.count >> (step + 1));
            if lane < half {
                let other = room[first + lane + half];
                room[first + lane] += other;
            }
            sync_cube();
        }
        room[first]
    }
}

/// Units that share the sums of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lanes {
    /// How many, a power of two.
    pub(crate) count: usize,
    /// Groups of lanes in a cube.
    pub(crate) groups: usize,
    /// Whether they are a plane.
    pub(crate) is_plane: bool,
}

impl Lanes {
    /// A plane where the device has planes of one size, else a group that meets in shared memory.
    pub(crate) fn of(client: &Client) -> Self {
        let properties = client.properties();
        let hardware = &properties.hardware;
        let count = hardware.plane_size_max as usize;
        let is_plane = hardware.plane_size_min == hardware.plane_size_max
            && (8..=64).contains(&count)
            && properties
                .features
                .plane
                .contains(cubecl::ir::features::Plane::Ops);
        Self::new(if is_plane { count } else { 32 }, is_plane)
    }

    fn new(count: usize, is_plane: bool) -> Self {
        Self {
            count,
            groups: (128 / count).max(4),
            is_plane,
        }
    }

    pub(crate) fn units(self) -> usize {
        self.count * self.groups
    }

    pub(crate) fn dim(self) -> CubeDim {
        CubeDim::new_2d(self.count as u32, self.groups as u32)
    }
}
