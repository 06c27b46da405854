//! Device memory that is filled from memory of the host that the device reads by itself, where the backend has such.

use std::mem::MaybeUninit;

use burn::tensor::{Device, Int, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::bytes::{AccessError, AccessPolicy, AllocationController, AllocationProperty, Bytes};
use cubecl::prelude::*;
use cubecl::server::Handle;

use super::buffers::primitive;

/// Memory of a device, and how far it is filled.
pub(crate) struct Room {
    client: Client,
    handle: Handle,
    bytes: usize,
    filled: usize,
}

impl Room {
    /// Whether there is such on a device: on GPUs.
    pub(crate) fn is_on(device: &Device) -> bool {
        primitive(Tensor::<1>::empty([1], device)).is_some()
    }

    /// The memory of numbers that take so many bytes; `None` where they are not on a GPU.
    pub(crate) fn of_floats(numbers: Tensor<1>, bytes: usize) -> Option<Self> {
        let numbers = numbers.try_into_primitive::<CubeBackend>().ok()?;
        Some(Self::of(numbers, bytes))
    }

    /// The same for words.
    pub(crate) fn of_words(words: Tensor<1, Int>, bytes: usize) -> Option<Self> {
        let words = words.try_into_primitive::<CubeBackend>().ok()?;
        Some(Self::of(words, bytes))
    }

    fn of(numbers: CubeTensor, bytes: usize) -> Self {
        Self {
            client: numbers.client,
            handle: numbers.handle,
            bytes,
            filled: 0,
        }
    }

    /// Whether every byte was filled.
    pub(crate) fn is_full(&self) -> bool {
        self.filled == self.bytes
    }

    /// Has the next bytes made, and copied without waiting for it.
    pub(crate) fn next(&mut self, bytes: usize, make: impl FnOnce(&mut [u8])) {
        assert!(
            self.filled + bytes <= self.bytes,
            "there is room for what is filled"
        );
        if self.skip(bytes) {
            return;
        }
        let mut piece = staging(&self.client, bytes);
        make(&mut piece);
        // Memory may be longer than what is in it.
        let behind = self.handle.size_in_used() - (self.filled + bytes) as u64;
        let part = self.handle.clone().offset_start(self.filled as u64);
        self.client.write(&part.offset_end(behind), piece);
        self.filled += bytes;
    }

    /// Takes the next bytes as filled where nobody will read them, in a rehearsal; else they must be made.
    pub(crate) fn skip(&mut self, bytes: usize) -> bool {
        #[cfg(feature = "cuda")]
        let skips = crate::rehearsal::records(&self.client);
        #[cfg(not(feature = "cuda"))]
        let skips = false;
        if skips {
            self.filled += bytes;
        }
        skips
    }

    /// Whether the memory is there and all that was to be written to it was queued.
    pub(crate) fn check(&self) -> Result<(), String> {
        let checked = self.client.check([&self.handle]);
        checked.map_err(|error| error.to_string())
    }
}

/// Memory of the host that the device reads by itself, where there is such. It comes from a pool, to which it returns when
/// it was read.
fn staging(client: &Client, bytes: usize) -> Bytes {
    #[expect(unsafe_code, reason = "bytes of an own kind")]
    // SAFETY: nobody reads these bytes: they only say how many are wanted.
    let mut piece = unsafe { Bytes::from_controller(Box::new(Wanted(bytes)), bytes) };
    client.staging(std::iter::once(&mut piece), false);
    if piece.property() == AllocationProperty::Pinned {
        piece
    } else {
        Bytes::from_bytes_vec(vec![0; bytes])
    }
}

/// So many bytes that are wanted, and none that are there.
struct Wanted(usize);

impl AllocationController for Wanted {
    fn alloc_align(&self) -> usize {
        1
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Other
    }

    #[expect(unsafe_code, reason = "as the trait has it")]
    unsafe fn memory_mut(
        &mut self,
        policy: AccessPolicy,
    ) -> Result<&mut [MaybeUninit<u8>], AccessError> {
        self.memory(policy).map(|_| [].as_mut_slice())
    }

    fn memory(&self, _: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        Err(AccessError::Read("these bytes are only wanted".into()))
    }

    fn capacity(&self) -> usize {
        self.0
    }

    /// Leaves the memory as it is: it is filled later.
    #[expect(unsafe_code, reason = "as the trait has it")]
    unsafe fn copy_into(&self, _: &mut [u8]) {}
}
