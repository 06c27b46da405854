//! What kernels are compiled with, as a folder's name: kernels made with anything else are in another folder.

use std::ffi::c_int;
use std::fs;
use std::io;
use std::path::Path;

use cudarc::{driver, nvrtc};
use xxhash_rust::xxh3::Xxh3;

use super::KernelCacheError;
use super::old;

/// The name of the folder for this version of burn-omni and this machine's driver, NVRTC and headers.
///
/// CubeCL's own key has the rest: its version, the architecture, the build of the program, the kernel with all that its text
/// depends on, and the text itself.
pub(super) fn name() -> Result<String, KernelCacheError> {
    let [driver, nvrtc] = [driver_version()?, nvrtc_version()?].map(text);
    let include =
        cubecl::cuda::install::cuda_path().ok_or(KernelCacheError::Missing("CUDA's headers"))?;
    let headers = headers(&include.join("include")).unwrap_or_default();
    let version = env!("CARGO_PKG_VERSION");
    Ok(old::name(version, [driver, nvrtc], headers))
}

/// A version of CUDA, major and minor.
type Version = (c_int, c_int);

/// The versions of driver and NVRTC, where the driver does not read what NVRTC makes: PTX of a newer version.
#[must_use]
pub fn driver_too_old() -> Option<[String; 2]> {
    let [driver, nvrtc] = [driver_version().ok()?, nvrtc_version().ok()?];
    (driver < nvrtc).then(|| [driver, nvrtc].map(text))
}

fn text((major, minor): Version) -> String {
    format!("{major}.{minor}")
}

/// The version of CUDA that the driver has, which says what PTX it reads.
fn driver_version() -> Result<Version, KernelCacheError> {
    let missing = KernelCacheError::Missing("the NVIDIA driver (libcuda)");
    let mut version: c_int = 0;
    #[expect(unsafe_code, reason = "CUDA's interface is C's")]
    // SAFETY: the library is there, and the function writes one number.
    let found = unsafe {
        driver::sys::is_culib_present()
            && driver::sys::cuDriverGetVersion(&raw mut version)
                == driver::sys::CUresult::CUDA_SUCCESS
    };
    found
        .then_some((version / 1000, version % 1000 / 10))
        .ok_or(missing)
}

/// The version of the compiler.
fn nvrtc_version() -> Result<Version, KernelCacheError> {
    let (mut major, mut minor): (c_int, c_int) = (0, 0);
    #[expect(unsafe_code, reason = "CUDA's interface is C's")]
    // SAFETY: the library is there, and the function writes two numbers.
    let found = unsafe {
        nvrtc::sys::is_culib_present()
            && nvrtc::sys::nvrtcVersion(&raw mut major, &raw mut minor)
                == nvrtc::sys::nvrtcResult::NVRTC_SUCCESS
    };
    found
        .then_some((major, minor))
        .ok_or(KernelCacheError::Missing("NVRTC (libnvrtc)"))
}

/// A digest of the headers that kernels include, and of the one that has the toolkit's version.
fn headers(include: &Path) -> io::Result<u64> {
    let mut paths = Vec::new();
    for file in fs::read_dir(include)? {
        paths.push(file?.path());
    }
    let ours = |path: &&Path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("cuda_") || name.starts_with("mma"))
    };
    paths.sort();
    let mut digest = Xxh3::new();
    for path in paths.iter().map(AsRef::as_ref).filter(ours) {
        digest.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        digest.update(&fs::read(path)?);
    }
    Ok(digest.digest())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_headers_are_another_folder() {
        let include = tempfile::tempdir().unwrap();
        let header = include.path().join("cuda_fp16.h");
        fs::write(&header, "#define A 1").unwrap();
        fs::write(include.path().join("nvml.h"), "1").unwrap();
        let first = headers(include.path()).unwrap();
        fs::write(include.path().join("nvml.h"), "2").unwrap();
        assert_eq!(headers(include.path()).unwrap(), first);
        fs::write(&header, "#define A 2").unwrap();
        assert_ne!(headers(include.path()).unwrap(), first);
    }
}
