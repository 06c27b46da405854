//! The store of CubeCL, filled from files and written to files.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cubecl::config::cache::CacheConfig;
use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
use cubecl_environment::bytes::Bytes;
use cubecl_environment::environment;
use cubecl_environment::persistence::{self, Origin};
use etcetera::BaseStrategy;

use super::files::{Entry, Files};
use super::{old, toolkit};

/// The folder of kernels in a cache's folder.
const KERNELS: &str = "kernels";
/// CubeCL's namespaces of CUDA: compiled kernels, and which of them have which text.
const NAMESPACES: &str = "cuda";
/// The namespace of kernels alone begins so.
pub(crate) const OF_KERNELS: &str = "cuda/";
/// The namespace of marks of models that were rehearsed, which say how many kernels there were then: [`crate::rehearsal`].
pub(crate) const REHEARSED: &str = "cuda-rehearsed";

/// Compiled CUDA kernels, kept on disk from one start to the next; see the [module](super).
#[derive(Debug)]
pub struct KernelCache {
    files: Mutex<Files>,
}

/// What was opened.
#[derive(Debug)]
pub struct Opened {
    /// The cache, which keeps what is compiled from now on when it is asked to.
    pub cache: KernelCache,
    /// How many kernels were found.
    pub found: usize,
}

/// Why there is no cache; CUDA works without one.
#[derive(Debug)]
pub enum KernelCacheError {
    /// A part of CUDA is missing.
    Missing(&'static str),
    /// The linker gave the program no build id, so that its kernels cannot be told from those of another build.
    NoBuildId,
    /// CubeCL's configuration was read before: a device was opened, or a cache.
    TooLate,
    /// The folder can neither be made nor read.
    Folder(PathBuf, io::Error),
}

impl fmt::Display for KernelCacheError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(part) => write!(f, "{part} was not found"),
            Self::NoBuildId => write!(
                f,
                "this program has no build id; link it with `-C link-arg=-Wl,--build-id`"
            ),
            Self::TooLate => write!(f, "a device was opened before the cache"),
            Self::Folder(path, cause) => {
                write!(f, "{}: cannot be made or read: {cause}", path.display())
            }
        }
    }
}

impl Error for KernelCacheError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Folder(_, cause) => Some(cause),
            _ => None,
        }
    }
}

impl KernelCache {
    /// The user's cache folder for burn-omni, by the platform's convention: `$XDG_CACHE_HOME/burn-omni`, else
    /// `~/.cache/burn-omni`. `None` where the user has no home.
    #[must_use]
    pub fn default_root() -> Option<PathBuf> {
        let user = etcetera::choose_base_strategy().ok()?;
        Some(user.cache_dir().join("burn-omni"))
    }

    /// The folder of kernels in `root`, the cache's folder.
    #[must_use]
    pub fn folder_in(root: &Path) -> PathBuf {
        root.join(KERNELS)
    }

    /// Reads the kernels that were kept in the cache's folder `root`, and from now on remembers what is compiled.
    ///
    /// To be called once a process, before anything is done with any device. A folder that can be read and not written
    /// will do.
    ///
    /// # Errors
    /// When there can be no cache. CUDA works without, and compiles every kernel at every start.
    pub fn open(root: &Path) -> Result<Opened, KernelCacheError> {
        if buildid::build_id().is_none() {
            return Err(KernelCacheError::NoBuildId);
        }
        let opened = Self::in_folder(Self::folder_in(root).join(toolkit::name()?))?;
        old::mark_used(&opened.cache.folder());
        Ok(opened)
    }

    fn in_folder(folder: PathBuf) -> Result<Opened, KernelCacheError> {
        let opened = Files::open(folder.clone());
        let (files, entries) = opened.map_err(|cause| KernelCacheError::Folder(folder, cause))?;
        let mut config = config(files.folder());
        config.compilation.cache = true;
        if !CubeClRuntimeConfig::try_set(config) {
            return Err(KernelCacheError::TooLate);
        }
        let found = entries.iter().filter(|entry| entry.is_kernel()).count();
        entries.into_iter().for_each(offer);
        Ok(Opened {
            cache: Self {
                files: Mutex::new(files),
            },
            found,
        })
    }

    /// The folder of this program's kernels.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.lock().folder().into()
    }

    /// Removes the kernels of other versions that nobody used for ninety days: for whoever has used those of this one.
    pub fn remove_unused(&self) {
        old::remove_unused(&self.folder());
    }

    /// Writes what was compiled since the cache was opened or last saved, and says how many kernels that were.
    ///
    /// # Errors
    /// When a file cannot be written; what was kept before is unharmed.
    pub fn save(&self) -> io::Result<usize> {
        let mut files = self.lock();
        let entries = remembered();
        files.keep_only(&entries);
        let new: Vec<_> = entries.iter().filter(|entry| files.lacks(entry)).collect();
        let (marks, new): (Vec<_>, Vec<_>) = new.into_iter().partition(|entry| entry.is_mark());
        for entry in &new {
            files.write(entry)?;
        }
        // A mark says that kernels are there, so it is written behind them. Without it a model is only rehearsed again.
        let _ = marks.into_iter().try_for_each(|mark| files.write(mark));
        Ok(new.iter().filter(|entry| entry.is_kernel()).count())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn is_kernel(&self) -> bool {
        self.namespace.starts_with(OF_KERNELS)
    }

    fn is_mark(&self) -> bool {
        self.namespace == REHEARSED
    }
}

/// Keeps nothing on disk: otherwise CubeCL makes an empty folder for its stores, below the working directory's `target`
/// or in the user's cache folder.
///
/// To be called as [`KernelCache::open`] is; does nothing after it.
pub fn keep_nothing() {
    let _ = CubeClRuntimeConfig::try_set(config(&std::env::temp_dir()));
}

/// CubeCL's configuration as it would be, with its stores in a folder that is there.
fn config(folder: &Path) -> CubeClRuntimeConfig {
    let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
    config.environment.path = CacheConfig::Directory(folder.into());
    config
}

/// Puts an entry where CubeCL looks for it.
fn offer(entry: Entry) {
    let value = Bytes::from_bytes_vec(entry.value);
    // What the store refuses is compiled.
    let _ = persistence::open(&entry.namespace).insert(&entry.key, value, Origin::Local);
}

/// The entries that CubeCL has now.
fn remembered() -> Vec<Entry> {
    let mut entries = Vec::new();
    let namespaces = environment::namespaces().into_iter();
    let names = namespaces.map(|summary| summary.namespace);
    for namespace in names.filter(|name| name.starts_with(NAMESPACES)) {
        persistence::open(&namespace).scan(&mut |key, value| {
            entries.push(Entry {
                namespace: namespace.clone(),
                key: key.into(),
                value: value.into(),
            });
        });
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_filled_and_written() {
        let folder = tempfile::tempdir().unwrap();
        let namespace = "cuda/0.11.3/ptx_sm90-cpp".to_owned();
        let entry = |key: &[u8]| Entry {
            namespace: namespace.clone(),
            key: key.into(),
            value: b".version 8.0".into(),
        };
        let (mut files, _) = Files::open(folder.path().into()).unwrap();
        for key in [b"kept", b"gone"] {
            files.write(&entry(key)).unwrap();
        }
        std::fs::write(folder.path().join("damaged"), b"BOKERN1\n").unwrap();

        let opened = KernelCache::in_folder(folder.path().into()).unwrap();
        assert_eq!(opened.found, 2);
        let store = persistence::open(&namespace);
        assert_eq!(
            store.get(b"kept").as_deref(),
            Some(b".version 8.0".as_slice())
        );
        assert!(CubeClRuntimeConfig::get().compilation.cache);

        store.purge_key(b"gone");
        offer(entry(b"new"));
        offer(Entry {
            namespace: "cuda-second-line/0.11.3/ptx_sm90-cpp".into(),
            ..entry(b"text")
        });
        offer(Entry {
            namespace: "autotune/0.11.3".into(),
            ..entry(b"other")
        });
        assert_eq!(opened.cache.save().unwrap(), 1, "of kernels one is new");
        assert_eq!(opened.cache.save().unwrap(), 0);
        let mut keys: Vec<_> = Files::open(folder.path().into()).unwrap().1;
        keys.sort_by(|a, b| a.key.cmp(&b.key));
        let keys: Vec<_> = keys.iter().map(|entry| entry.key.as_slice()).collect();
        assert_eq!(keys, [b"kept".as_slice(), b"new", b"text"]);

        let again = KernelCache::in_folder(folder.path().into());
        assert!(matches!(again, Err(KernelCacheError::TooLate)), "{again:?}");
    }
}
