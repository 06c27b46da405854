//! What a compiled kernel takes, and whether an architecture has it.

use anyhow::{Context, Result};

use crate::architecture::{Architecture, REGISTERS, THREADS};

/// Bytes stored and loaded that are not a fault: a few values put aside before a loop cost less than smaller blocks.
const ASIDE: usize = 96;

/// What a kernel takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Registers of a thread.
    pub(crate) registers: usize,
    /// Bytes of a thread's local memory.
    pub(crate) stack: usize,
    /// Bytes that a thread stores and loads because registers do not suffice.
    pub(crate) spills: usize,
    /// Bytes of shared memory that the text declares, beside those that the launch asks for.
    pub(crate) shared: usize,
}

impl Usage {
    /// Reads what ptxas wrote.
    pub(crate) fn parse(log: &str) -> Result<Self> {
        let number = |before: &str| -> Option<usize> {
            let text = &log[..log.find(before)?];
            text.split_whitespace().next_back()?.parse().ok()
        };
        let unknown = || format!("ptxas says something else: {log}");
        Ok(Self {
            registers: number(" registers").with_context(unknown)?,
            stack: number(" bytes stack frame").with_context(unknown)?,
            spills: number(" bytes spill stores").with_context(unknown)?
                + number(" bytes spill loads").with_context(unknown)?,
            shared: number(" bytes smem").unwrap_or(0),
        })
    }

    /// What is wrong with `threads` threads a block that ask for `shared` bytes in the launch.
    pub(crate) fn faults(
        &self,
        architecture: Architecture,
        threads: usize,
        shared: usize,
    ) -> Vec<String> {
        let mut faults = Vec::new();
        if self.spills > ASIDE {
            faults.push(format!("spills {} bytes", self.spills));
        }
        if threads > THREADS {
            faults.push(format!("{threads} threads of {THREADS}"));
        }
        // Registers are given out eight a thread, to whole warps.
        let registers = self.registers.next_multiple_of(8) * threads.next_multiple_of(32);
        if registers > REGISTERS {
            faults.push(format!("{registers} registers of {REGISTERS}"));
        }
        let shared = self.shared + shared;
        if shared > architecture.shared {
            let granted = architecture.shared;
            faults.push(format!("{shared} bytes of shared memory of {granted}"));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'k' for 'sm_90a'
ptxas info    : Function properties for k
ptxas         .     16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 80 registers, used 1 barriers, 16 bytes cumulative stack size, 2048 bytes smem
ptxas info    : Compile time = 1.000 ms
";

    #[test]
    fn the_log_is_read() {
        let usage = Usage::parse(LOG).unwrap();
        let expected = Usage {
            registers: 80,
            stack: 16,
            spills: 12,
            shared: 2048,
        };
        assert_eq!(usage, expected);
        assert!(Usage::parse("nothing").is_err());
    }

    #[test]
    fn limits_hold() {
        let ampere = Architecture::parse("sm_86").unwrap();
        let usage = Usage {
            registers: 64,
            shared: 1024,
            ..Usage::default()
        };
        assert!(usage.faults(ampere, 1024, 98 * 1024).is_empty());
        assert_eq!(usage.faults(ampere, 1024, 98 * 1024 + 1).len(), 1);
        let hungry = Usage {
            registers: 65,
            ..usage
        };
        assert_eq!(hungry.faults(ampere, 1024, 0).len(), 1);
        assert_eq!(hungry.faults(ampere, 896, 0).len(), 0);
    }

    #[test]
    fn spilling_more_than_a_little_is_a_fault() {
        let ampere = Architecture::parse("sm_86").unwrap();
        let usage = Usage {
            registers: 64,
            spills: ASIDE,
            ..Usage::default()
        };
        assert!(usage.faults(ampere, 1024, 0).is_empty());
        let more = Usage {
            spills: ASIDE + 1,
            ..usage
        };
        assert_eq!(more.faults(ampere, 1024, 0), ["spills 97 bytes"]);
    }

    #[test]
    fn other_names_are_no_architectures() {
        assert!(Architecture::parse("sm_99").is_err());
    }
}
