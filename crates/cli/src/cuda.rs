//! What CUDA needs besides the program: the driver, NVRTC, and the toolkit's headers. Files are looked at, and driver and
//! NVRTC asked for their versions.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::device::Problem;

/// Headers that kernels include.
const HEADERS: [&str; 2] = ["cuda_fp16.h", "cuda_fp8.h"];
/// The header of the 4-bit formats, since CUDA 12.8.
const FP4_HEADER: &str = "cuda_fp4.h";

/// What was found of CUDA.
#[derive(Clone, Debug)]
pub(crate) struct Cuda {
    /// `libcuda.so.1`.
    pub(crate) driver: Option<String>,
    /// Version of the driver, where the kernel module tells it.
    pub(crate) driver_version: Option<String>,
    /// `libnvrtc.so`.
    pub(crate) nvrtc: Option<String>,
    /// A `libnvrtc.so` that the loader will not find.
    pub(crate) nvrtc_off_path: Option<PathBuf>,
    /// The toolkit's folder.
    pub(crate) toolkit: Option<PathBuf>,
    /// Headers that the toolkit lacks.
    pub(crate) missing_headers: Vec<&'static str>,
    /// Versions of CUDA that driver and NVRTC have, where that of the driver is too old for the other.
    pub(crate) too_old: Option<[String; 2]>,
}

impl Cuda {
    /// Looks at this machine.
    pub(crate) fn look() -> Self {
        let toolkit = toolkit();
        let include = toolkit.as_ref().map(|dir| dir.join("include"));
        let lacks = |header: &&str| {
            !include
                .as_ref()
                .is_some_and(|include| include.join(header).is_file())
        };
        let headers = HEADERS.into_iter().chain([FP4_HEADER]);
        let nvrtc = library("libnvrtc.so");
        let folders = toolkit
            .iter()
            .flat_map(|dir| [dir.join("lib64"), dir.join("lib")]);
        let driver = library("libcuda.so");
        Self {
            too_old: (driver.is_some() && nvrtc.is_some())
                .then(too_old)
                .flatten(),
            driver,
            driver_version: driver_version(),
            nvrtc_off_path: if nvrtc.is_none() {
                folders
                    .filter_map(|dir| in_folder(&dir, "libnvrtc.so"))
                    .next()
            } else {
                None
            },
            nvrtc,
            missing_headers: headers.filter(lacks).collect(),
            toolkit,
        }
    }

    /// What keeps CUDA from working, the first thing first.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut add = |what: String, remedy: String| problems.push(Problem { what, remedy });
        if self.driver.is_none() {
            add(
                "no NVIDIA driver found (libcuda.so.1)".into(),
                "install the NVIDIA driver, or in a container pass the GPU through (`--gpus all`)"
                    .into(),
            );
        }
        match (&self.nvrtc, &self.nvrtc_off_path) {
            (Some(_), _) => {}
            (None, Some(path)) => {
                let folder = path.parent().unwrap_or(Path::new("/")).display();
                add(
                    format!(
                        "NVRTC is at {}, where it will not be looked for",
                        path.display()
                    ),
                    format!("export LD_LIBRARY_PATH={folder}"),
                );
            }
            (None, None) => add(
                "no NVRTC found (libnvrtc.so)".into(),
                "install the CUDA toolkit, or its packages cuda-nvrtc and cuda-cudart-dev".into(),
            ),
        }
        match &self.toolkit {
            None => add(
                "no CUDA headers found in $CUDA_PATH, /usr/local/cuda or /opt/cuda".into(),
                "install the CUDA toolkit, or its package cuda-cudart-dev, and set CUDA_PATH to its folder".into(),
            ),
            Some(dir) if !self.missing_headers.is_empty() => add(
                format!("{} lacks {}", dir.join("include").display(), self.missing_headers.join(", ")),
                "install a CUDA toolkit of version 12.8 or newer, or set CUDA_PATH to one".into(),
            ),
            Some(_) => {}
        }
        if let Some([driver, nvrtc]) = &self.too_old {
            add(
                format!(
                    "the driver is too old: it has CUDA {driver}, and NVRTC {nvrtc} compiles for no older one than {nvrtc}"
                ),
                format!(
                    "install an NVIDIA driver that has CUDA {nvrtc}; toolkits before 12.8 lack what is needed"
                ),
            );
        }
        problems
    }
}

/// See [`Cuda::too_old`].
fn too_old() -> Option<[String; 2]> {
    #[cfg(feature = "cuda")]
    return crate::panics::attempt(burn_omni_ops::kernel_cache::driver_too_old)
        .ok()
        .flatten();
    #[cfg(not(feature = "cuda"))]
    None
}

/// The toolkit's folder, where kernels will look for it.
fn toolkit() -> Option<PathBuf> {
    if let Some(path) = env::var_os("CUDA_PATH") {
        return Some(path.into());
    }
    ["/usr/local/cuda", "/opt/cuda"]
        .into_iter()
        .map(PathBuf::from)
        .find(|dir| dir.exists())
}

/// Where the dynamic loader finds a library: the path, or the name where only the loader's cache knows it.
fn library(name: &str) -> Option<String> {
    let paths = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let own = env::split_paths(&paths).filter(|path| !path.as_os_str().is_empty());
    let usual = [
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
        "/usr/lib/wsl/lib",
        "/lib64",
    ];
    let folders = own.chain(usual.into_iter().map(PathBuf::from));
    if let Some(path) = folders.filter_map(|folder| in_folder(&folder, name)).next() {
        return Some(path.display().to_string());
    }
    let cache = fs::read("/etc/ld.so.cache").unwrap_or_default();
    cached(&cache, name)
}

/// A file of the folder that is `name` or `name` with a version.
fn in_folder(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .and_then(|file| file.to_str())
                .is_some_and(|file| is_version(file, name))
        })
        .collect();
    found.sort();
    found.into_iter().next()
}

fn is_version(file: &str, name: &str) -> bool {
    file.strip_prefix(name).is_some_and(|rest| {
        rest.is_empty()
            || rest.starts_with('.') && rest[1..].starts_with(|digit: char| digit.is_ascii_digit())
    })
}

/// A path in the loader's cache whose file is `name`; the cache holds its paths as texts that end in a zero.
fn cached(cache: &[u8], name: &str) -> Option<String> {
    let texts = cache
        .split(|byte| *byte == 0)
        .filter_map(|text| std::str::from_utf8(text).ok());
    let paths = texts.filter(|text| text.starts_with('/'));
    let is_it = |path: &&str| {
        path.rsplit('/')
            .next()
            .is_some_and(|file| is_version(file, name))
    };
    paths.filter(is_it).map(str::to_owned).next()
}

fn driver_version() -> Option<String> {
    let text = fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    let words = text.lines().next()?.split_whitespace();
    let is_version =
        |word: &&str| word.starts_with(|digit: char| digit.is_ascii_digit()) && word.contains('.');
    words.into_iter().find(is_version).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_a_library_are_told_from_its_relatives() {
        assert!(is_version("libnvrtc.so", "libnvrtc.so"));
        assert!(is_version("libnvrtc.so.12", "libnvrtc.so"));
        assert!(!is_version("libnvrtc-builtins.so.12.8", "libnvrtc.so"));
        let cache = b"\0\x01junk\0libnvrtc.so.12\0/opt/cuda/lib64/libnvrtc.so.12\0";
        assert_eq!(
            cached(cache, "libnvrtc.so").as_deref(),
            Some("/opt/cuda/lib64/libnvrtc.so.12")
        );
        assert_eq!(cached(cache, "libcuda.so"), None);
    }

    #[test]
    fn every_missing_part_has_a_remedy() {
        let nothing = Cuda {
            driver: None,
            driver_version: None,
            nvrtc: None,
            nvrtc_off_path: None,
            toolkit: None,
            missing_headers: vec![],
            too_old: None,
        };
        assert_eq!(nothing.problems().len(), 3);
        let complete = Cuda {
            driver: Some("libcuda.so.1".into()),
            nvrtc: Some("libnvrtc.so.12".into()),
            toolkit: Some("/usr/local/cuda".into()),
            ..nothing
        };
        assert!(complete.problems().is_empty());
        let old = Cuda {
            too_old: Some(["12.4".into(), "13.0".into()]),
            ..complete
        };
        let problems = old.problems();
        assert!(
            problems[0].what.contains("it has CUDA 12.4"),
            "{problems:?}"
        );
    }
}
