//! Writing a planned checkpoint.

use std::path::Path;

use super::destination::{Destination, Replace};
use super::{Plan, WriteError, config, file};

/// Who follows a run.
#[derive(Clone, Copy)]
pub struct Watcher<'a> {
    /// Called with the bytes of the source that are done, and of how many.
    pub progress: &'a dyn Fn(u64, u64),
    /// Asked between two tensors whether to stop.
    pub stops: &'a dyn Fn() -> bool,
}

/// How far a run is.
pub(super) struct Meter<'a> {
    watcher: Watcher<'a>,
    plan: &'a Plan<'a>,
    done: u64,
    /// Bytes that were read since memory was given back.
    held: usize,
}

impl Meter<'_> {
    /// Bytes of the source after which their memory is given back.
    const HELD: usize = 1 << 30;

    /// Counts bytes of the source that were read.
    pub(super) fn read(&mut self, bytes: usize) -> Result<(), WriteError> {
        self.held += bytes;
        if self.held >= Self::HELD {
            self.held = 0;
            self.plan.source.forget_pages();
        }
        self.pass(bytes as u64)
    }

    /// Counts bytes that are done.
    pub(super) fn pass(&mut self, bytes: u64) -> Result<(), WriteError> {
        self.done += bytes;
        (self.watcher.progress)(self.done, self.plan.summary().bytes_in);
        if (self.watcher.stops)() {
            return Err(WriteError::Interrupted);
        }
        Ok(())
    }
}

impl Plan<'_> {
    /// Writes the checkpoint to `dir`, or what an interrupted run of the same plan has left to do.
    ///
    /// # Errors
    /// When `dir` lies in the source, has other files in it, is in use, or cannot be written to; when the disk has no room
    /// for it, or a matrix a value that is not finite; when it was asked to stop. What was written so far stays for the next run of the same plan.
    pub fn write(
        &self,
        dir: &Path,
        replace: Replace,
        watcher: Watcher<'_>,
    ) -> Result<(), WriteError> {
        self.try_write(dir, replace, watcher)
            .map_err(|error| match error {
                WriteError::Io { path, cause, .. } => WriteError::Io {
                    path,
                    cause,
                    needed: Some(self.summary().bytes_out),
                },
                error => error,
            })
    }

    fn try_write(
        &self,
        dir: &Path,
        replace: Replace,
        watcher: Watcher<'_>,
    ) -> Result<(), WriteError> {
        let mut destination = Destination::open(dir, self, replace)?;
        let mut meter = Meter {
            watcher,
            plan: self,
            done: 0,
            held: 0,
        };
        for shard in &self.shards {
            let path = dir.join(&shard.path);
            if shard.is_whole(&path) {
                let units = shard.units.iter();
                meter.pass(units.map(|unit| unit.work(self.options.form)).sum())?;
            } else {
                if let Some(folder) = path.parent() {
                    file::make_folder(folder)?;
                }
                shard.write(&path, self, &mut meter)?;
            }
            destination.keeps_files();
        }
        for (name, bytes) in config::documents(self)? {
            let path = dir.join(name);
            if let Some(folder) = path.parent() {
                file::make_folder(folder)?;
            }
            file::put(&path, &bytes)?;
        }
        destination.finish()
    }
}
