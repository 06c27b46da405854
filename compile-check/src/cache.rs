//! What earlier runs found, in two files for each architecture.
//!
//! * `NAME`: what a text took when it was compiled, `hash registers stack spills shared`. It holds for ever.
//! * `NAME.emitted`: which text a kernel became, `hash hash-of-the-text threads shared`. It holds for this very program,
//!   whose hash is the first line, since that says how kernels become text; it spares writing texts that are known.
//!
//! Lines that cannot be read count as absent.

use std::collections::HashMap;
use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result};
use cubecl_core::hash::{StableHash, StableHasher};

use crate::usage::Usage;

/// What a kernel is launched with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Launch {
    /// Threads of a block.
    pub(crate) threads: usize,
    /// Bytes of shared memory beside those that the text declares.
    pub(crate) shared: usize,
}

/// The two files.
#[derive(Default)]
pub(crate) struct Cache {
    usages: HashMap<StableHash, Usage>,
    launches: HashMap<StableHash, (StableHash, Launch)>,
    files: Option<Mutex<[File; 2]>>,
}

impl Cache {
    /// Opens the files of an architecture.
    pub(crate) fn open(folder: &Path, name: &str) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
        let program = fs::read(std::env::current_exe()?)?;
        let program = format!("{:032x}", StableHasher::hash_one(&program));
        let (usages, launches) = (folder.join(name), folder.join(format!("{name}.emitted")));
        let mut emitted = read(&launches)?;
        if emitted.lines().next() != Some(&program) {
            emitted = format!("{program}\n");
            fs::write(&launches, &emitted).with_context(|| format!("{}", launches.display()))?;
        }
        Ok(Self {
            usages: read(&usages)?.lines().filter_map(usage).collect(),
            launches: emitted.lines().filter_map(launch).collect(),
            files: Some(Mutex::new([append(&usages)?, append(&launches)?])),
        })
    }

    /// What a text took.
    pub(crate) fn compiled(&self, text: &str) -> Option<Usage> {
        self.usages.get(&hash(text)).copied()
    }

    /// What a kernel takes, when this program wrote its text before and the text was compiled.
    pub(crate) fn emitted(&self, id: &str) -> Option<(Launch, Usage)> {
        let (text, launch) = self.launches.get(&hash(id))?;
        Some((*launch, *self.usages.get(text)?))
    }

    /// Keeps what a text took.
    pub(crate) fn keep_usage(&self, text: &str, usage: Usage) -> Result<()> {
        let Usage {
            registers,
            stack,
            spills,
            shared,
        } = usage;
        let numbers = format!("{registers} {stack} {spills} {shared}");
        self.write(0, hash(text), numbers)
    }

    /// Keeps which text a kernel became.
    pub(crate) fn keep_launch(&self, id: &str, text: &str, launch: Launch) -> Result<()> {
        let Launch { threads, shared } = launch;
        let text = hash(text);
        self.write(1, hash(id), format!("{text:032x} {threads} {shared}"))
    }

    fn write(&self, file: usize, key: StableHash, rest: impl Display) -> Result<()> {
        if let Some(files) = &self.files {
            let mut files = files.lock().expect("no thread panics with the lock");
            files[file]
                .write_all(format!("{key:032x} {rest}\n").as_bytes())
                .context("writing the cache")?;
        }
        Ok(())
    }
}

fn append(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("{}", path.display()))
}

fn read(path: &Path) -> Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        read => read.with_context(|| format!("{}", path.display())),
    }
}

fn hash(text: &str) -> StableHash {
    StableHasher::hash_one(&text)
}

fn parse_hash(text: &str) -> Option<StableHash> {
    StableHash::from_str_radix(text, 16).ok()
}

fn parse_numbers<const N: usize>(text: &str) -> Option<[usize; N]> {
    let numbers: Result<Vec<usize>, _> = text.split(' ').map(str::parse).collect();
    numbers.ok()?.try_into().ok()
}

fn usage(line: &str) -> Option<(StableHash, Usage)> {
    let (text, numbers) = line.split_once(' ')?;
    let [registers, stack, spills, shared] = parse_numbers(numbers)?;
    let usage = Usage {
        registers,
        stack,
        spills,
        shared,
    };
    Some((parse_hash(text)?, usage))
}

fn launch(line: &str) -> Option<(StableHash, (StableHash, Launch))> {
    let (id, rest) = line.split_once(' ')?;
    let (text, numbers) = rest.split_once(' ')?;
    let [threads, shared] = parse_numbers(numbers)?;
    let launch = Launch { threads, shared };
    Some((parse_hash(id)?, (parse_hash(text)?, launch)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const USAGE: Usage = Usage {
        registers: 42,
        stack: 1,
        spills: 2,
        shared: 3,
    };
    const LAUNCH: Launch = Launch {
        threads: 256,
        shared: 512,
    };

    #[test]
    fn what_is_kept_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), "sm_80").unwrap();
        cache.keep_usage("text", USAGE).unwrap();
        cache.keep_launch("kernel", "text", LAUNCH).unwrap();
        cache.keep_launch("other", "not compiled", LAUNCH).unwrap();
        let cache = Cache::open(folder.path(), "sm_80").unwrap();
        assert_eq!(cache.compiled("text"), Some(USAGE));
        assert_eq!(cache.emitted("kernel"), Some((LAUNCH, USAGE)));
        assert_eq!(cache.emitted("other"), None);
        let other = Cache::open(folder.path(), "sm_90a").unwrap();
        assert_eq!(other.compiled("text"), None);
    }

    #[test]
    fn another_program_and_broken_lines_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), "sm_80").unwrap();
        cache.keep_usage("text", USAGE).unwrap();
        cache.keep_launch("kernel", "text", LAUNCH).unwrap();
        let path = folder.path().join("sm_80.emitted");
        let emitted = fs::read_to_string(&path).unwrap();
        let (_, lines) = emitted.split_once('\n').unwrap();
        fs::write(&path, format!("another program\n{lines}")).unwrap();
        let path = folder.path().join("sm_80");
        let usages = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{usages}cut off 1 2\n12")).unwrap();
        let cache = Cache::open(folder.path(), "sm_80").unwrap();
        assert_eq!(cache.compiled("text"), Some(USAGE));
        assert_eq!(cache.emitted("kernel"), None);
    }
}
