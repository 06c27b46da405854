//! Folders of kernels that nobody uses any more: those of other versions of burn-omni, the driver or the toolkit.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::files;

/// A folder that was not used for so long is removed.
const UNUSED: Duration = Duration::from_hours(90 * 24);
/// What the names of folders begin with.
const NAME: &str = "burn-omni-";

/// The name of the folder for a version of burn-omni, versions of driver and NVRTC, and a digest of the headers.
pub(super) fn name(version: &str, [driver, nvrtc]: [String; 2], headers: u64) -> String {
    format!("{NAME}{version}-driver-{driver}-nvrtc-{nvrtc}-headers-{headers:016x}")
}

/// Says of a folder that it is used now; without the right to say it, what is written to it says so.
pub(super) fn mark_used(folder: &Path) {
    let _ = File::open(folder).and_then(|folder| folder.set_modified(SystemTime::now()));
}

/// Removes the folders beside `used` that were not used for ninety days. What is not a folder of kernels by its name and by the
/// name of every file in it stays as it is, and what cannot be removed is a little space.
pub(super) fn remove_unused(used: &Path) {
    let beside = used.parent().and_then(|kernels| fs::read_dir(kernels).ok());
    for entry in beside.into_iter().flatten().flatten() {
        let path = entry.path();
        let ours = entry.file_name().to_str().is_some_and(is_ours);
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if ours && is_folder && path != used {
            remove_if_unused(&path);
        }
    }
}

/// Removes a folder in which there is nothing but kernels that were not touched for so long, the folder neither.
fn remove_if_unused(folder: &Path) {
    if let Ok(Some(kernels)) = unused_kernels(folder) {
        for kernel in kernels {
            let _ = fs::remove_file(kernel);
        }
        // One in which something appeared meanwhile stays.
        let _ = fs::remove_dir(folder);
    }
}

/// The files of a folder of kernels, `None` where anything else is in it or something was touched. A clock that was set back
/// makes nothing old.
fn unused_kernels(folder: &Path) -> io::Result<Option<Vec<PathBuf>>> {
    let is_old = |changed: SystemTime| changed.elapsed().is_ok_and(|age| age > UNUSED);
    if !is_old(fs::metadata(folder)?.modified()?) {
        return Ok(None);
    }
    let mut kernels = Vec::new();
    for file in fs::read_dir(folder)? {
        let file = file?;
        let data = file.metadata()?;
        let ours = file.file_name().to_str().is_some_and(files::is_ours);
        if !(ours && data.is_file() && is_old(data.modified()?)) {
            return Ok(None);
        }
        kernels.push(file.path());
    }
    Ok(Some(kernels))
}

/// Whether a name is one that [`name`] makes: nobody else's folder is called so by chance.
fn is_ours(name: &str) -> bool {
    let parts = || {
        let (version, rest) = name.strip_prefix(NAME)?.split_once("-driver-")?;
        let (driver, rest) = rest.split_once("-nvrtc-")?;
        let (nvrtc, headers) = rest.split_once("-headers-")?;
        Some((version, [driver, nvrtc], headers))
    };
    parts().is_some_and(|(version, [driver, nvrtc], headers)| {
        let release = version.split(['-', '+']).next().unwrap_or_default();
        are_numbers(release, 3)
            && are_numbers(driver, 2)
            && are_numbers(nvrtc, 2)
            && files::is_hex(headers, 16)
    })
}

/// Whether a text is so many numbers between dots.
fn are_numbers(text: &str, count: usize) -> bool {
    let numbers: Vec<_> = text.split('.').collect();
    numbers.len() == count && numbers.into_iter().all(files::is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name of a file of a kernel.
    const KERNEL: &str = "00112233445566778899aabbccddeeff";

    fn ago(days: u64) -> SystemTime {
        SystemTime::now() - Duration::from_hours(24 * days)
    }

    /// The folder of a version.
    fn of(version: &str) -> String {
        name(version, ["12.8", "13.0"].map(str::to_owned), 0x1f)
    }

    /// A folder with files, all touched so many days ago.
    fn folder(kernels: &Path, name: &str, files: &[&str], [folder, file]: [u64; 2]) {
        let path = kernels.join(name);
        fs::create_dir(&path).unwrap();
        for name in files {
            let kernel = File::create(path.join(name)).unwrap();
            kernel.set_modified(ago(file)).unwrap();
        }
        touch(&path, folder);
    }

    fn touch(folder: &Path, days: u64) {
        let folder = File::open(folder).unwrap();
        folder.set_modified(ago(days)).unwrap();
    }

    fn names(kernels: &Path) -> Vec<String> {
        let left = fs::read_dir(kernels).unwrap();
        let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut left: Vec<_> = left.collect();
        left.sort();
        left
    }

    #[test]
    fn only_what_nobody_used_for_ninety_days_is_removed() {
        let kernels = tempfile::tempdir().unwrap();
        let kernels = kernels.path();
        let unfinished = format!("{KERNEL}.4711.0.tmp");
        folder(kernels, &of("0.0.1"), &[KERNEL, &unfinished], [91, 200]);
        folder(kernels, &of("0.0.2"), &[KERNEL], [89, 200]);
        folder(kernels, &of("0.0.3"), &[KERNEL], [200, 89]);
        folder(kernels, &of("0.0.4"), &[KERNEL], [200, 200]);
        fs::create_dir(kernels.join(of("0.0.4")).join("inner")).unwrap();
        touch(&kernels.join(of("0.0.4")), 200);
        folder(kernels, &of("0.0.5-rc.1"), &[], [200, 200]);
        folder(kernels, &of("0.1.0"), &[KERNEL], [200, 200]);
        folder(kernels, "somebody's", &[KERNEL], [200, 200]);
        File::create(kernels.join(of("0.0.6"))).unwrap();
        remove_unused(&kernels.join(of("0.1.0")));
        let left = ["0.0.2", "0.0.3", "0.0.4", "0.0.6", "0.1.0"].map(of);
        assert_eq!(names(kernels)[..5], left);
        assert_eq!(names(kernels)[5..], ["somebody's"]);
    }

    #[test]
    fn no_folder_of_a_user_is_removed() {
        let kernels = tempfile::tempdir().unwrap();
        let kernels = kernels.path();
        let named = [
            "burn-omni-my-paper".to_owned(),
            "burn-omni-0.1.0".to_owned(),
            "burn-omni-0.1.0-driver-12.8-nvrtc-12.8".to_owned(),
            "burn-omni-0.1.0-driver-12.8-nvrtc-12.8-headers-1f".to_owned(),
            "burn-omni-mine-driver-12.8-nvrtc-12.8-headers-000000000000001f".to_owned(),
            of("0.1.0") + "-backup",
        ];
        for name in &named {
            folder(kernels, name, &[KERNEL], [200, 200]);
        }
        let files = [
            "thesis.tex".to_owned(),
            "notes.tmp".to_owned(),
            KERNEL[1..].to_owned(),
            KERNEL.to_uppercase(),
            format!("{KERNEL}.tex"),
            format!("{KERNEL}.1.tmp"),
            format!("{KERNEL}.1.a.tmp"),
        ];
        for (number, file) in files.iter().enumerate() {
            let own = of(&format!("0.0.{number}"));
            folder(kernels, &own, &[KERNEL, file], [200, 200]);
        }
        remove_unused(&kernels.join(of("1.0.0")));
        assert_eq!(names(kernels).len(), named.len() + files.len());
        for (number, file) in files.into_iter().enumerate() {
            let mut both = [KERNEL.to_owned(), file];
            both.sort();
            assert_eq!(names(&kernels.join(of(&format!("0.0.{number}")))), both);
        }
    }

    #[test]
    fn a_folder_that_is_read_is_used() {
        let kernels = tempfile::tempdir().unwrap();
        let kernels = kernels.path();
        folder(kernels, &of("0.0.1"), &[KERNEL], [200, 200]);
        mark_used(&kernels.join(of("0.0.1")));
        remove_unused(&kernels.join(of("0.1.0")));
        assert!(kernels.join(of("0.0.1")).join(KERNEL).exists());
    }
}
