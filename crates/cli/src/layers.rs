//! A Vulkan layer that writes to stderr.

use std::env;
use std::path::Path;

/// Leaves Mesa's layer that orders devices out where there is nobody to ask: it looks for a Wayland compositor whenever
/// adapters are listed, and libwayland writes a line to stderr for each time that it finds no place to look in. A choice of
/// the user's that this layer would read is respected. To be called before there are threads.
pub(crate) fn silence() {
    let is_set = |name: &&str| env::var_os(name).is_some();
    let has_place = env::var_os("XDG_RUNTIME_DIR").is_some_and(|dir| Path::new(&dir).is_absolute());
    if has_place || ["MESA_VK_DEVICE_SELECT", "DRI_PRIME"].iter().any(is_set) {
        return;
    }
    #[expect(unsafe_code, reason = "the layer has no other switch")]
    // SAFETY: main calls this first, so no other thread reads the environment.
    unsafe {
        env::set_var("NODEVICE_SELECT", "1");
    }
}
