//! Compiled CUDA kernels, kept on disk from one start to the next.
//!
//! CubeCL compiles a kernel when it is launched for the first time: it makes the text in CUDA C++, NVRTC makes PTX of it, and
//! the driver makes machine code of that (and keeps it by itself, in `~/.nv/ComputeCache`). A `KernelCache` keeps the PTX, so
//! that a second start calls NVRTC for nothing that the first one launched.
//!
//! Whether a kept kernel is the one that is launched is decided by
//! - burn-omni's version, the driver's and NVRTC's version and the text of the toolkit's headers, which name the folder;
//! - CubeCL's version, the architecture, the build id of the program, and the kernel's type with every parameter that its text
//!   depends on, which are CubeCL's key of an entry;
//! - and, for a program that was built anew, the kernel's text: a kernel of the same text is taken over, any other is compiled.
//!
//! Every kernel is a file that is checked before it is used. A damaged file is as none; any number of processes may
//! read and write at once; the folder may be deleted at any time. Folders of other versions are removed when nobody used them
//! for ninety days and there is nothing but kernels in them.
//!
//! CubeCL has one thread a device, which compiles a kernel at its first launch. What a model launches is therefore compiled
//! before it is loaded for the first time, on all cores: see [`crate::rehearsal`].

#[cfg(feature = "cuda")]
mod cache;
#[cfg_attr(
    not(feature = "cuda"),
    expect(dead_code, reason = "tested without CUDA, used with it")
)]
mod files;
mod old;
#[cfg(feature = "cuda")]
mod toolkit;

#[cfg(feature = "cuda")]
pub use cache::{KernelCache, KernelCacheError, Opened, keep_nothing};
#[cfg(feature = "cuda")]
pub(crate) use cache::{OF_KERNELS, REHEARSED};
#[cfg(feature = "cuda")]
pub use toolkit::driver_too_old;
