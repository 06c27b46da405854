//! The device that keeps what is launched on it, with the properties of an architecture.
//!
//! The launchers are called as on a GPU, so what is compiled is what would run, and there is no second list of kernels.

use anyhow::{Result, anyhow};
use cubecl_core::CubeKernel;
use cubecl_core::device::DeviceId;
use cubecl_core::prelude::*;

use crate::architecture::Architecture;
use crate::device;

/// A client whose launches are kept.
pub(crate) struct Recorder(cubecl_cpu::Recorder);

impl Recorder {
    /// A device of an architecture; there can be one of each.
    pub(crate) fn new(architecture: Architecture) -> Result<Self> {
        let id = DeviceId::new(0, architecture.version as u16);
        let properties = (device::properties(architecture), device::target());
        let recorder = cubecl_cpu::Recorder::new(id, "cuda", properties);
        let recorder =
            recorder.ok_or_else(|| anyhow!("{} was made before", architecture.name()))?;
        Ok(Self(recorder))
    }

    /// Names itself "cuda" and has the properties of the architecture.
    pub(crate) fn client(&self) -> &Client {
        self.0.client()
    }

    /// What was launched since the last call and never before.
    pub(crate) fn take(&self) -> Result<Vec<Box<dyn CubeKernel>>> {
        let taken = self.0.take();
        taken.map_err(|error| anyhow!("the recording device stopped: {error}"))
    }
}
