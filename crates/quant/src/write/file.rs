//! Files that have their name only when they are whole.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::WriteError;

/// Bytes that are gathered before they are written.
const BUFFER: usize = 1 << 20;

/// A file in the making: it lies beside its place with `.part` behind its name until it is finished; dropped before, it
/// is removed.
#[derive(Debug)]
pub(super) struct PartFile {
    out: BufWriter<File>,
    part: PathBuf,
    path: PathBuf,
    finished: bool,
}

impl PartFile {
    pub(super) fn create(path: &Path) -> Result<Self, WriteError> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let out = File::create(&part).map_err(|cause| failed(path, cause))?;
        Ok(Self {
            out: BufWriter::with_capacity(BUFFER, out),
            part,
            path: path.into(),
            finished: false,
        })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        let written = self.out.write_all(bytes);
        written.map_err(|cause| failed(&self.path, cause))
    }

    /// Puts the file on the disk, and then in its place.
    pub(super) fn finish(mut self) -> Result<(), WriteError> {
        let done = self.out.flush();
        done.and_then(|()| self.out.get_ref().sync_all())
            .and_then(|()| fs::rename(&self.part, &self.path))
            .map_err(|cause| failed(&self.path, cause))?;
        self.finished = true;
        sync_folder_of(&self.path);
        Ok(())
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if !self.finished {
            // It is as good as nothing to a reader, and the next run begins it anew.
            let _ = fs::remove_file(&self.part);
        }
    }
}

/// Writes a whole file.
pub(super) fn put(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let mut file = PartFile::create(path)?;
    file.write(bytes)?;
    file.finish()
}

/// Makes a folder and those above it.
pub(super) fn make_folder(path: &Path) -> Result<(), WriteError> {
    fs::create_dir_all(path).map_err(|cause| failed(path, cause))
}

/// Makes names durable, where a folder can be asked to.
pub(super) fn sync_folder_of(path: &Path) {
    let folder = path.parent().and_then(|folder| File::open(folder).ok());
    if let Some(folder) = folder {
        // Some file systems do not do this; the file itself is on the disk.
        let _ = folder.sync_all();
    }
}

pub(super) fn failed(path: &Path, cause: io::Error) -> WriteError {
    WriteError::Io {
        path: path.into(),
        cause,
        needed: None,
    }
}
