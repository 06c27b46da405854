//! Where a queue takes its memory from.

use burn::tensor::{Device, Tensor};
use cubecl::MemoryAllocationMode;
use cubecl::prelude::*;

use super::buffers::primitive;

/// All memory of the calling thread's queue has places of its own until this is dropped.
pub(crate) struct Window(Client);

impl Window {
    /// `None` where the device is not a GPU.
    pub(crate) fn open(device: &Device) -> Option<Self> {
        let probe = primitive(Tensor::<1>::empty([1], device))?;
        let window = Self(probe.client.clone());
        window.switch(MemoryAllocationMode::Persistent);
        Some(window)
    }

    fn switch(&self, mode: MemoryAllocationMode) {
        #[expect(unsafe_code, reason = "the mode of a queue is switched by hand")]
        // SAFETY: it says where later memory comes from, and touches none that there is.
        unsafe {
            self.0.allocation_mode(mode);
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.switch(MemoryAllocationMode::Auto);
    }
}
