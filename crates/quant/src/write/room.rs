//! Whether a disk has room.

use std::path::Path;

use super::WriteError;

/// Checks that there is room in `dir`, which may not exist yet, for `bytes`, of which `there` are there already.
pub(super) fn check(dir: &Path, bytes: u64, there: u64) -> Result<(), WriteError> {
    let needed = bytes.saturating_sub(there);
    match free(dir) {
        Some(free) if free < needed => Err(WriteError::NoRoom {
            dir: dir.into(),
            needed,
            free,
        }),
        // Where the system does not say it, the file that does not fit will.
        _ => Ok(()),
    }
}

/// Bytes that may be written to the disk of a folder.
fn free(dir: &Path) -> Option<u64> {
    let absolute = std::path::absolute(dir).ok()?;
    let existing = absolute.ancestors().find(|above| above.exists())?;
    #[cfg(unix)]
    {
        let disk = rustix::fs::statvfs(existing).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = existing;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_with_what_is_needed_and_free() {
        let folder = tempfile::TempDir::new().unwrap();
        let dir = folder.path().join("not/yet");
        check(&dir, 1, 0).unwrap();
        check(&dir, u64::MAX, u64::MAX - 1).unwrap();
        if cfg!(unix) {
            let error = check(&dir, 26_100_000_000_000_000, 0).unwrap_err();
            let text = error.to_string();
            let starts = format!(
                "{}: the checkpoint needs 26100000.0 GB, the disk has ",
                dir.display()
            );
            assert!(
                text.starts_with(&starts) && text.ends_with(" GB free"),
                "{text}"
            );
            assert!(error.hint().unwrap().contains("make room"));
        }
        assert!(!dir.exists());
    }
}
