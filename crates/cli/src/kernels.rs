//! Compiled CUDA kernels: where they are kept from one start to the next.

#[cfg(feature = "cuda")]
pub(crate) use kept::{announce_compiling, keep_nothing, loaded, open, save, save_silently, size};
#[cfg(not(feature = "cuda"))]
pub(crate) use none::{announce_compiling, keep_nothing, loaded, open, save, save_silently, size};

#[cfg(feature = "cuda")]
mod kept {
    use std::env;
    use std::ffi::OsString;
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering};

    use burn_omni::Compiling;
    pub(crate) use burn_omni_ops::kernel_cache::keep_nothing;
    use burn_omni_ops::kernel_cache::{KernelCache, KernelCacheError, Opened};

    use crate::device::Backend;
    use crate::output::Output;
    use crate::panics;

    /// Name of the variable that names the cache's folder; empty, nothing is kept.
    const VARIABLE: &str = "BURN_OMNI_CACHE";

    static CACHE: OnceLock<KernelCache> = OnceLock::new();

    /// The cache's folder, `None` when nothing is to be kept.
    fn root(named: Option<OsString>) -> Option<PathBuf> {
        match named {
            Some(named) => Some(PathBuf::from(named)).filter(|root| !root.as_os_str().is_empty()),
            None => KernelCache::default_root(),
        }
    }

    /// Reads what was kept, before the first device of CUDA is used.
    pub(crate) fn open(output: &Output) {
        let Some(root) = root(env::var_os(VARIABLE)) else {
            tracing::info!(target: "burn_omni", "CUDA kernels are compiled at every start");
            return keep_nothing();
        };
        match panics::attempt(|| KernelCache::open(&root)) {
            Ok(Ok(opened)) => announce(opened, output),
            // One cache a process is enough.
            Ok(Err(KernelCacheError::TooLate)) if CACHE.get().is_some() => {}
            Ok(Err(cause)) => warn(&cause.to_string(), output),
            Err(panic) => warn(&panic, output),
        }
    }

    fn announce(Opened { cache, found }: Opened, output: &Output) {
        let folder = cache.folder();
        let folder = folder.display();
        tracing::info!(target: "burn_omni", found, %folder, "compiled kernels");
        if found == 0 {
            output.note(format_args!(
                "first start with this driver and toolkit: compiled CUDA kernels are kept in {folder}"
            ));
        }
        let _ = CACHE.set(cache);
    }

    /// Says why a first load takes longer.
    pub(crate) fn announce_compiling(compiling: Compiling, output: &Output) {
        let Compiling { kernels, threads } = compiling;
        let cores = if threads == 1 { "core" } else { "cores" };
        output.note(format_args!(
            "first start of this model: compiling {kernels} CUDA kernels on {threads} {cores}"
        ));
    }

    fn warn(cause: &str, output: &Output) {
        keep_nothing();
        output.warning(format_args!("compiled CUDA kernels are not kept: {cause}"));
    }

    /// Keeps what was compiled; that it cannot be kept is said once.
    pub(crate) fn save(output: &Output) {
        static SAID: AtomicBool = AtomicBool::new(false);
        match CACHE.get().map(KernelCache::save) {
            None | Some(Ok(0)) => {}
            Some(Ok(new)) => {
                tracing::info!(target: "burn_omni", new, "compiled kernels kept");
            }
            Some(Err(cause)) if !SAID.swap(true, Ordering::Relaxed) => {
                output.warning(format_args!("compiled CUDA kernels are not kept: {cause}"));
            }
            Some(Err(_)) => {}
        }
    }

    /// Keeps what loading compiled, whatever ends the program; a model on CUDA has used its kernels, and those of versions that
    /// nobody uses any more go.
    pub(crate) fn loaded(device: &str, output: &Output) {
        save(output);
        if let Some(cache) = CACHE.get().filter(|_| is_cuda(device)) {
            cache.remove_unused();
        }
    }

    /// Whether a device is one of CUDA, by its name as in `--device`.
    fn is_cuda(device: &str) -> bool {
        device.split(':').next() == Some(Backend::Cuda.name())
    }

    /// [`save`] when nobody reads a warning any more.
    pub(crate) fn save_silently() {
        let _ = CACHE.get().map(KernelCache::save);
    }

    /// The folder of kernels, and the bytes of all files in it.
    pub(crate) fn size() -> Option<(PathBuf, u64)> {
        let folder = KernelCache::folder_in(&root(env::var_os(VARIABLE))?);
        let bytes = bytes_below(&folder);
        Some((folder, bytes))
    }

    fn bytes_below(folder: &Path) -> u64 {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let sizes = entries.map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => bytes_below(&entry.path()),
            Ok(data) => data.len(),
            Err(_) => 0,
        });
        sizes.sum()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_variable_names_the_folder_and_turns_it_off() {
            assert_eq!(root(Some("/a".into())), Some("/a".into()));
            assert_eq!(root(Some("".into())), None);
            assert_eq!(root(None), KernelCache::default_root());
        }

        #[test]
        fn files_of_all_folders_are_counted() {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("version")).unwrap();
            fs::write(folder.path().join("version/kernel"), [0; 300]).unwrap();
            fs::write(folder.path().join("other"), [0; 20]).unwrap();
            assert_eq!(bytes_below(folder.path()), 320);
            assert_eq!(bytes_below(&folder.path().join("missing")), 0);
        }
    }
}

/// Without CUDA nothing is compiled that could be kept.
#[cfg(not(feature = "cuda"))]
mod none {
    use std::path::PathBuf;

    use burn_omni::Compiling;

    use crate::output::Output;

    pub(crate) fn announce_compiling(_: Compiling, _: &Output) {}

    pub(crate) fn keep_nothing() {}

    pub(crate) fn loaded(_: &str, _: &Output) {}

    pub(crate) fn open(_: &Output) {}

    pub(crate) fn save(_: &Output) {}

    pub(crate) fn save_silently() {}

    pub(crate) fn size() -> Option<(PathBuf, u64)> {
        None
    }
}
