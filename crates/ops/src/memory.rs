//! Device memory that is kept.

use burn::tensor::Device;

/// Gives all device memory that `work` asks for a place of its own, for as long as its tensors live; what it only used
/// meanwhile goes back to the device.
///
/// Memory of passing results is searched through at every launch, which weights among them would make slow.
pub fn for_good<T>(device: &Device, work: impl FnOnce() -> T) -> T {
    #[cfg(feature = "cube")]
    let window = crate::cube::memory::Window::open(device);
    let made = work();
    #[cfg(feature = "cube")]
    drop(window);
    device.memory_cleanup();
    made
}
