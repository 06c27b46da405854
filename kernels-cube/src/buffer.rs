//! What a kernel reads or writes.

use cubecl::prelude::*;
use cubecl::server::Handle;

/// A buffer on the device.
#[derive(Clone, Debug)]
pub struct Buffer {
    handle: Handle,
    length: usize,
}

impl Buffer {
    /// The first `length` elements behind `handle`; the launchers' callers promise that they are there.
    #[must_use]
    pub fn new(handle: Handle, length: usize) -> Self {
        Self { handle, length }
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// As an argument of elements.
    pub(crate) fn arg(&self) -> BufferArg {
        self.vectors(1)
    }

    /// As an argument of vectors of `size` elements.
    #[expect(unsafe_code, reason = "the length is the caller's promise")]
    pub(crate) fn vectors(&self, size: usize) -> BufferArg {
        // SAFETY: whoever made the buffer promised its length.
        unsafe { BufferArg::from_raw_parts(self.handle.clone(), self.length / size) }
    }
}

/// Cubes that cover `items` with `units` each.
pub(crate) fn cubes(items: usize, units: u32) -> CubeCount {
    let count = items.div_ceil(units as usize) as u32;
    // A grid is at most 65535 wide on some devices.
    let wide = count.clamp(1, 32_768);
    CubeCount::Static(wide, count.div_ceil(wide).max(1), 1)
}
