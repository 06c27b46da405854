//! One memory-mapped safetensors file.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::CheckpointError;
use super::header::{self, Entry, LENGTH_BYTES};

/// A safetensors file whose header is checked and whose values are read on demand by the operating
/// system.
#[derive(Debug)]
pub(super) struct TensorFile {
    path: PathBuf,
    map: Mmap,
}

impl TensorFile {
    /// Maps `path` and returns it with its tensors, ordered by position.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<Entry>), CheckpointError> {
        let failed = |cause: io::Error| CheckpointError::Io {
            file: path.into(),
            cause,
        };
        // Before `File::open`, which would wait for ever on a named pipe.
        let metadata = fs::metadata(path).map_err(failed)?;
        if !metadata.is_file() {
            return Err(CheckpointError::NotAFile { file: path.into() });
        }
        // Before the mapping, which refuses an empty file.
        if metadata.len() < LENGTH_BYTES as u64 {
            return Err(CheckpointError::TooShort {
                file: path.into(),
                len: metadata.len(),
            });
        }
        let map = map(&File::open(path).map_err(failed)?).map_err(failed)?;
        let entries = header::read(path, &map)?;
        Ok((
            Self {
                path: path.into(),
                map,
            },
            entries,
        ))
    }

    /// Where the file lies.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The whole content.
    pub(super) fn content(&self) -> &[u8] {
        &self.map
    }

    /// Gives the memory of pages that were read back to the system.
    #[cfg_attr(
        unix,
        expect(
            unsafe_code,
            reason = "the system counts pages of a map as memory of the process"
        )
    )]
    pub(super) fn forget_pages(&self) {
        #[cfg(unix)]
        {
            // SAFETY: the map is read-only and of a file, so a page that is forgotten is read again from the file, with
            // the same content as long as nobody changes the file, which `map` assumes already.
            let advised = unsafe {
                self.map
                    .unchecked_advise(memmap2::UncheckedAdvice::DontNeed)
            };
            // Advice that is not taken costs memory and nothing else.
            drop(advised);
        }
    }
}

#[expect(
    unsafe_code,
    reason = "a memory map is how tens of gigabytes are read without a copy"
)]
fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the mapping is read-only and lives as long as every slice taken from it. It is
    // undefined behaviour if another process changes or truncates the file meanwhile; a checkpoint
    // is written once and then only read, the same assumption that every memory-mapping reader of
    // safetensors makes.
    unsafe { Mmap::map(file) }
}
