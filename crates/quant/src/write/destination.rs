//! The folder that is written to.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde_json::{Value, json};

use crate::checkpoint::{Component, UNFINISHED};

use super::file::{failed, make_folder, sync_folder_of};
use super::plan::Source;
use super::{Plan, WriteError, room};

/// What may be replaced in the folder that is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// Nothing: the folder has to be empty, or that of an interrupted run of the same plan.
    Nothing,
    /// The checkpoint in it, or what an interrupted run has left. Other files stay.
    Checkpoint,
}

/// A folder with the record of the run in it, which says that it is no checkpoint yet and what is being written. The
/// record is locked as long as the run lives.
#[derive(Debug)]
pub(super) struct Destination {
    dir: PathBuf,
    record: PathBuf,
    lock: File,
    /// Whether it is of use to the next run.
    kept: bool,
}

impl Destination {
    /// Takes possession of `dir`.
    pub(super) fn open(dir: &Path, plan: &Plan<'_>, replace: Replace) -> Result<Self, WriteError> {
        check_apart(dir, plan)?;
        let record = dir.join(UNFINISHED);
        let is_own = record.is_file();
        let is_empty = match fs::read_dir(dir) {
            Ok(mut entries) => entries.next().is_none(),
            Err(cause) if cause.kind() == ErrorKind::NotFound => true,
            Err(_) if dir.is_file() => return Err(WriteError::NotAFolder { path: dir.into() }),
            Err(cause) => return Err(failed(dir, cause)),
        };
        if !is_empty && !is_own && replace == Replace::Nothing {
            return Err(WriteError::NotEmpty { dir: dir.into() });
        }
        room::check(dir, plan.summary().bytes_out, weights(dir))?;
        make_folder(dir)?;
        let mut lock = lock(dir, &record)?;
        let mut found = String::new();
        // A record that is cut off is as good as one of another run.
        let _ = lock.read_to_string(&mut found);
        let wanted = describe(plan).to_string();
        let destination = Self {
            dir: dir.into(),
            record,
            lock,
            kept: is_own,
        };
        if found == wanted && replace == Replace::Nothing {
            return Ok(destination);
        }
        if is_own && replace == Replace::Nothing && !is_alone(dir) {
            return Err(WriteError::OtherRun { dir: dir.into() });
        }
        destination.begin(&wanted)
    }

    /// Removes what is replaced and writes the record.
    fn begin(mut self, record: &str) -> Result<Self, WriteError> {
        clear(&self.dir)?;
        let lock = &mut self.lock;
        let written = lock
            .set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| lock.write_all(record.as_bytes()))
            .and_then(|()| lock.sync_all());
        written.map_err(|cause| failed(&self.record, cause))?;
        sync_folder_of(&self.record);
        self.kept = false;
        Ok(self)
    }

    /// There is something in it that the next run need not do again.
    pub(super) fn keeps_files(&mut self) {
        self.kept = true;
    }

    /// The checkpoint is whole.
    pub(super) fn finish(mut self) -> Result<(), WriteError> {
        self.kept = true;
        sync_folder_of(&self.record);
        fs::remove_file(&self.record).map_err(|cause| failed(&self.record, cause))?;
        sync_folder_of(&self.record);
        Ok(())
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        if !self.kept {
            // Folders go only when there is nothing in them.
            for component in Component::ALL {
                let _ = fs::remove_dir(self.dir.join(component.name()));
            }
            let _ = fs::remove_file(&self.record);
            let _ = fs::remove_dir(&self.dir);
        }
    }
}

/// The record, opened and locked.
fn lock(dir: &Path, record: &Path) -> Result<File, WriteError> {
    let lock = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(record)
        .map_err(|cause| failed(record, cause))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(WriteError::Busy { dir: dir.into() }),
        // A file system without locks: one run at a time is then up to the user.
        Err(TryLockError::Error(cause)) if cause.kind() == ErrorKind::Unsupported => Ok(lock),
        Err(TryLockError::Error(cause)) => Err(failed(record, cause)),
    }
}

/// What a run writes, and from what.
fn describe(plan: &Plan<'_>) -> Value {
    let options = &plan.options;
    let ignore = options.ignore.iter().map(ToString::to_string);
    let file = |path: &Path| {
        let found = fs::metadata(path).ok();
        let changed = found.as_ref().and_then(|found| found.modified().ok());
        let changed = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        json!([
            path.canonicalize().unwrap_or_else(|_| path.into()),
            found.map(|found| found.len()),
            changed.map(|since| since.as_secs()),
        ])
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "form": options.form.name(),
        "ignore": ignore.collect::<Vec<_>>(),
        "talker": options.talker,
        "head": options.head,
        "shard_bytes": options.shard_bytes,
        "source": match plan.source {
            Source::Checkpoint(_) => plan.files().into_iter().map(file).collect(),
            Source::Drawn(drawn) => drawn.config().clone(),
        },
    })
}

/// Whether there is nothing but the record.
fn is_alone(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|entries| entries.count() <= 1)
}

/// Removes the files that make a checkpoint, and whole folders only when nothing else is in them.
fn clear(dir: &Path) -> Result<(), WriteError> {
    for path in files_of_checkpoint(dir) {
        fs::remove_file(&path).map_err(|cause| failed(&path, cause))?;
    }
    for component in Component::ALL {
        // Those with other files stay.
        let _ = fs::remove_dir(dir.join(component.name()));
    }
    Ok(())
}

/// The files in a folder, and in those of its components, that make a checkpoint.
fn files_of_checkpoint(dir: &Path) -> Vec<PathBuf> {
    let components = Component::ALL.map(|component| dir.join(component.name()));
    let folders = [dir.to_owned()].into_iter().chain(components);
    let entries = folders.filter_map(|folder| fs::read_dir(folder).ok());
    let paths = entries
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| is_of_checkpoint(path)).collect()
}

/// Bytes of the files that are kept or replaced, and need no more room.
fn weights(dir: &Path) -> u64 {
    let files = files_of_checkpoint(dir).into_iter();
    let sizes = files.filter_map(|path| Some(fs::symlink_metadata(path).ok()?.len()));
    sizes.sum()
}

/// Whether a file would be taken for a part of the checkpoint.
fn is_of_checkpoint(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let ends = [
        ".safetensors",
        ".safetensors.part",
        ".safetensors.index.json",
    ];
    ends.iter().any(|end| name.ends_with(end))
        || ["config.json", "hf_quant_config.json"].contains(&name.as_ref())
}

/// Checks that no file of the source lies in the destination, and the destination not in the source.
fn check_apart(dir: &Path, plan: &Plan<'_>) -> Result<(), WriteError> {
    let Some(checkpoint) = plan.source.checkpoint() else {
        return Ok(());
    };
    let source = real(checkpoint.dir());
    let destination = real(dir);
    let inside = |relation| WriteError::Inside {
        destination: dir.into(),
        relation,
        source_dir: checkpoint.dir().into(),
    };
    if destination == source {
        return Err(inside("is the same folder as"));
    }
    if destination.starts_with(&source) {
        return Err(inside("lies inside of"));
    }
    let holds = |file: &Path| real(file).starts_with(&destination);
    if source.starts_with(&destination) || plan.files().into_iter().any(holds) {
        return Err(inside("holds files of"));
    }
    Ok(())
}

/// A path without links, also where its end does not exist yet.
fn real(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let existing = absolute
        .ancestors()
        .find_map(|above| Some((above, above.canonicalize().ok()?)));
    match existing {
        Some((above, real)) => real.join(absolute.strip_prefix(above).unwrap_or(Path::new(""))),
        None => absolute,
    }
}
