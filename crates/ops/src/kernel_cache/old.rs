//! Folders of kernels that nobody uses any more: those of other versions of burn-omni, the driver or the toolkit.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A folder that was not used for so long is removed.
const UNUSED: Duration = Duration::from_hours(90 * 24);
/// What the names of folders begin with.
pub(super) const NAME: &str = "burn-omni-";

/// Says of a folder that it is used now; without the right to say it, what is written to it says so.
pub(super) fn mark_used(folder: &Path) {
    let _ = File::open(folder).and_then(|folder| folder.set_modified(SystemTime::now()));
}

/// Removes the folders beside `used` that were not used for ninety days. What is not a folder of kernels stays, and what cannot
/// be removed is a little space.
pub(super) fn remove_unused(used: &Path) {
    let beside = used.parent().and_then(|kernels| fs::read_dir(kernels).ok());
    for entry in beside.into_iter().flatten().flatten() {
        let path = entry.path();
        let ours = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(NAME));
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if ours && is_folder && path != used && is_unused(&path).unwrap_or(false) {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// Whether neither a folder nor anything in it was touched for so long. A clock that was set back makes nothing old.
fn is_unused(folder: &Path) -> io::Result<bool> {
    let is_old = |changed: SystemTime| changed.elapsed().is_ok_and(|age| age > UNUSED);
    if !is_old(fs::metadata(folder)?.modified()?) {
        return Ok(false);
    }
    for file in fs::read_dir(folder)? {
        let data = file?.metadata()?;
        // Nothing that this program makes.
        if !data.is_file() || !is_old(data.modified()?) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with a file, both touched so many days ago.
    fn folder(kernels: &Path, name: &str, [folder, file]: [u64; 2]) {
        let path = kernels.join(name);
        fs::create_dir(&path).unwrap();
        let ago = |days: u64| SystemTime::now() - Duration::from_hours(24 * days);
        let kernel = File::create(path.join("kernel")).unwrap();
        kernel.set_modified(ago(file)).unwrap();
        File::open(&path)
            .unwrap()
            .set_modified(ago(folder))
            .unwrap();
    }

    #[test]
    fn only_what_nobody_used_for_ninety_days_is_removed() {
        let kernels = tempfile::tempdir().unwrap();
        let kernels = kernels.path();
        folder(kernels, "burn-omni-0.0.1", [91, 200]);
        folder(kernels, "burn-omni-0.0.2", [89, 200]);
        folder(kernels, "burn-omni-0.0.3", [200, 89]);
        folder(kernels, "burn-omni-0.0.4", [200, 200]);
        fs::create_dir(kernels.join("burn-omni-0.0.4/inner")).unwrap();
        let days = |days: u64| SystemTime::now() - Duration::from_hours(24 * days);
        let outer = File::open(kernels.join("burn-omni-0.0.4")).unwrap();
        outer.set_modified(days(200)).unwrap();
        folder(kernels, "burn-omni-0.1.0", [200, 200]);
        folder(kernels, "somebody's", [200, 200]);
        File::create(kernels.join("burn-omni-file")).unwrap();
        remove_unused(&kernels.join("burn-omni-0.1.0"));
        let left = fs::read_dir(kernels).unwrap();
        let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        let expected = [
            "burn-omni-0.0.2",
            "burn-omni-0.0.3",
            "burn-omni-0.0.4",
            "burn-omni-0.1.0",
            "burn-omni-file",
            "somebody's",
        ];
        assert_eq!(left, expected);
    }

    #[test]
    fn a_folder_that_is_read_is_used() {
        let kernels = tempfile::tempdir().unwrap();
        let kernels = kernels.path();
        folder(kernels, "burn-omni-0.0.1", [200, 200]);
        mark_used(&kernels.join("burn-omni-0.0.1"));
        remove_unused(&kernels.join("burn-omni-0.1.0"));
        assert!(kernels.join("burn-omni-0.0.1/kernel").exists());
    }
}
