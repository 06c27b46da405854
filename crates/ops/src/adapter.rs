//! Vulkan adapters that are programs, such as Mesa's lavapipe: slow, and everywhere.

use std::panic::catch_unwind;

use burn::tensor::{Device, DeviceKind};

/// The Vulkan adapter that is a program, where one is installed and starts.
#[must_use]
pub fn software_vulkan() -> Option<Device> {
    let device = Device::vulkan(DeviceKind::Cpu);
    // Asking for its name opens it, and panics where there is none.
    let opened = catch_unwind(|| Device::vulkan(DeviceKind::Cpu).identity());
    opened.is_ok().then_some(device)
}

/// The same for a test that cannot run without one: says that it is skipped, unless `BURN_OMNI_REQUIRE_GPU` is 1.
///
/// # Panics
/// When there is none and `BURN_OMNI_REQUIRE_GPU` is 1.
#[must_use]
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub fn software_vulkan_for_test() -> Option<Device> {
    let device = software_vulkan();
    if device.is_none() {
        let required = std::env::var("BURN_OMNI_REQUIRE_GPU").is_ok_and(|value| value == "1");
        assert!(
            !required,
            "BURN_OMNI_REQUIRE_GPU=1: no software Vulkan adapter starts"
        );
        eprintln!("skipped: no software Vulkan adapter starts");
    }
    device
}
