//! Whether units work together or alone.

use cubecl::client::Client;
use cubecl::ir::features::Plane;

/// How the units of a cube work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Units {
    /// They share memory and wait for one another, or sum over their plane.
    Together,
    /// Each for itself.
    Alone,
}

/// Where kernels run, and how.
#[derive(Clone, Copy)]
pub struct On<'a> {
    /// The device's client.
    pub client: &'a Client,
    /// How units work.
    pub units: Units,
}

impl<'a> From<&'a Client> for On<'a> {
    /// Units work together where the device has plane operations. Adapters that are programs have none; for them, units
    /// gain nothing by waiting, and the SPIR-V that CubeCL 0.11 writes for shared memory crashes their compilers: where
    /// a device has no explicit layouts of shared memory, its variables become pointers to pointers.
    fn from(client: &'a Client) -> Self {
        let together = client.properties().features.plane.contains(Plane::Ops);
        let units = if together {
            Units::Together
        } else {
            Units::Alone
        };
        Self { client, units }
    }
}
