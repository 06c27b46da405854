//! Waiting for a number of cycles, so that what others ask the memory for is asked for first.

use cubecl::prelude::*;

/// Waits so many cycles of the multiprocessor's clock, on an NVIDIA GPU.
///
/// The number is an operand: in a text without operands both per cent signs stay, and PTX has one.
#[cube]
pub(crate) fn wait(cycles: u32) {
    gpu_asm!(
        "{{ .reg .u32 first, now; .reg .pred early; mov.u32 first, %%clock;
        again: mov.u32 now, %%clock; sub.u32 now, now, first; setp.lt.u32 early, now, {cycles}; @early bra again; }}",
        cycles = in(_) cycles, options(nomem),
    );
}
