//! The architectures, and what each grants a block of threads.

use anyhow::{Result, bail};

/// Registers a multiprocessor has, alike on all of them.
pub(crate) const REGISTERS: usize = 64 * 1024;
/// Threads of a block at most.
pub(crate) const THREADS: usize = 1024;

/// An architecture of GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Architecture {
    /// Ten times the compute capability.
    pub(crate) version: u32,
    /// Bytes of shared memory that a block can ask for: those of a multiprocessor (`cudaOccSMemPerMultiprocessor` in
    /// `cuda_occupancy.h` of CUDA 13.0) less the 1 KiB that the driver keeps for each block.
    pub(crate) shared: usize,
    /// Whether CI compiles for it.
    pub(crate) usual: bool,
}

const fn architecture(version: u32, shared: usize, usual: bool) -> Architecture {
    Architecture {
        version,
        shared: shared * 1024,
        usual,
    }
}

/// Every architecture that has the instructions.
pub(crate) const ALL: [Architecture; 9] = [
    architecture(80, 163, true),   // A100
    architecture(86, 99, false),   // RTX 30
    architecture(89, 99, false),   // RTX 40, L4
    architecture(90, 227, true),   // H100, H200
    architecture(100, 227, true),  // B200
    architecture(103, 227, false), // B300
    architecture(110, 227, false), // Thor
    architecture(120, 99, true),   // RTX 50
    architecture(121, 99, false),  // GB10
];

impl Architecture {
    /// The name that NVRTC takes: what CubeCL asks it for.
    pub(crate) fn name(self) -> String {
        let specific = if self.version >= 90 { "a" } else { "" };
        format!("sm_{}{specific}", self.version)
    }

    /// The architecture of that name.
    pub(crate) fn parse(name: &str) -> Result<Self> {
        match ALL.into_iter().find(|known| known.name() == name) {
            Some(known) => Ok(known),
            None => {
                let names: Vec<_> = ALL.into_iter().map(Self::name).collect();
                bail!("architecture {name} is not one of {}", names.join(", "));
            }
        }
    }
}
