//! What the system is told about memory: large buffers that are written once, and files that are about to be read.

/// So many zeros, which the system gives when they are first written to, in large pages where it has them: a buffer of a
/// hundred megabytes is then a hundred page faults and not thirty thousand.
pub(crate) fn zeros<E: bytemuck::Pod>(count: usize) -> Vec<E> {
    let mut zeros = vec![E::zeroed(); count];
    take_large_pages(bytemuck::cast_slice_mut(&mut zeros));
    zeros
}

#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "the system takes the address of what it is told about"
)]
fn take_large_pages(buffer: &mut [u8]) {
    use rustix::mm::{Advice, madvise};

    /// A large page.
    const LARGE: usize = 2 << 20;
    let start = buffer.as_mut_ptr();
    let whole = start.align_offset(LARGE);
    let length = buffer.len().saturating_sub(whole) / LARGE * LARGE;
    if length == 0 {
        return;
    }
    // SAFETY: the range lies in the buffer, and how large the pages are does not change what is in them.
    let taken = unsafe { madvise(start.add(whole).cast(), length, Advice::LinuxHugepage) };
    // A system without large pages has small ones.
    let _ = taken;
}

#[cfg(not(target_os = "linux"))]
fn take_large_pages(_: &mut [u8]) {}

/// Has the system read what will be read of a memory map, so that a disk gets it in large pieces and all at once, and not
/// where somebody waits for it.
#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "the system takes the address of what it is told about"
)]
pub(crate) fn read_ahead(mapped: &[u8]) {
    use rustix::mm::{Advice, madvise};

    let before = mapped.as_ptr().addr() % rustix::param::page_size();
    let start = mapped.as_ptr().wrapping_sub(before).cast_mut();
    // SAFETY: the pages are those of the slice, and reading ahead does not change what is in them.
    let taken = unsafe { madvise(start.cast(), before + mapped.len(), Advice::WillNeed) };
    // What was not read ahead is read when it is looked at.
    let _ = taken;
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn read_ahead(_: &[u8]) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_every_size_are_zero_and_can_be_written() {
        for count in [0, 1, 1000, (2 << 20) + 1, 5 << 20] {
            let mut zeros = zeros::<u16>(count);
            assert!(zeros.len() == count && zeros.iter().all(|zero| *zero == 0));
            zeros.fill(7);
            assert!(zeros.iter().all(|seven| *seven == 7));
        }
    }

    #[test]
    fn what_is_read_ahead_is_what_it_was() {
        let bytes: Vec<u8> = (0..100_000).map(|i| (i % 251) as u8).collect();
        for range in [0..0, 0..1, 4095..4097, 5..100_000] {
            read_ahead(&bytes[range]);
        }
        let expected = (0..100_000).map(|i| (i % 251) as u8);
        assert!(bytes.iter().copied().eq(expected));
    }
}
