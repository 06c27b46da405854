//! A folder of entries, one file each, that no crash, no damage and no other process can make wrong.
//!
//! A file appears whole, by renaming, and says of itself whether it is sound: after [`MAGIC`] come a digest of all that
//! follows, the lengths of namespace and key, and then namespace, key and value. What is not sound is left out, as if it
//! were not there.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_128;

/// What a file begins with; another layout is another magic.
const MAGIC: &[u8; 8] = b"BOKERN1\n";
const DIGEST: usize = size_of::<u128>();
const LENGTH: usize = size_of::<u32>();
/// What a file that is being written ends in.
const UNFINISHED: &str = "tmp";
/// A file that has been written for longer than this was given up.
const GIVEN_UP: Duration = Duration::from_secs(3600);

/// A value under a key of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) namespace: String,
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// The folder, and what is known to be in it.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    /// Digests of the files by the number in their names.
    known: HashMap<u128, u128>,
}

impl Entry {
    /// The number that names its file.
    fn name(&self) -> u128 {
        let parts = [self.namespace.as_bytes(), &self.key];
        xxh3_128(&parts.join(&0))
    }

    fn encode(&self) -> Vec<u8> {
        let lengths = [self.namespace.len(), self.key.len()];
        let mut body = Vec::new();
        for length in lengths {
            let length = u32::try_from(length).expect("names and keys are short");
            body.extend(length.to_le_bytes());
        }
        for part in [self.namespace.as_bytes(), &self.key, &self.value] {
            body.extend(part);
        }
        let digest = xxh3_128(&body).to_le_bytes();
        [MAGIC.as_slice(), &digest, &body].concat()
    }

    /// The entry of a file, where the file is sound.
    fn decode(file: &[u8]) -> Option<Self> {
        let rest = file.strip_prefix(MAGIC)?;
        let (digest, body) = rest.split_first_chunk::<DIGEST>()?;
        if u128::from_le_bytes(*digest) != xxh3_128(body) {
            return None;
        }
        let (namespace, rest) = body.split_first_chunk::<LENGTH>()?;
        let (key, rest) = rest.split_first_chunk::<LENGTH>()?;
        let length = |bytes: &[u8; LENGTH]| u32::from_le_bytes(*bytes) as usize;
        let (namespace, rest) = rest.split_at_checked(length(namespace))?;
        let (key, value) = rest.split_at_checked(length(key))?;
        Some(Self {
            namespace: String::from_utf8(namespace.into()).ok()?,
            key: key.into(),
            value: value.into(),
        })
    }

    fn digest(&self) -> u128 {
        xxh3_128(&self.value)
    }
}

impl Files {
    /// The folder, made where there is none, and its sound entries.
    ///
    /// # Errors
    /// When the folder can neither be made nor read.
    pub(super) fn open(folder: PathBuf) -> io::Result<(Self, Vec<Entry>)> {
        fs::create_dir_all(&folder)?;
        let mut entries = Vec::new();
        for file in fs::read_dir(&folder)? {
            let path = file?.path();
            if path.extension().is_some_and(|end| end == UNFINISHED) {
                // Somebody's own file stays.
                if path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .is_some_and(is_ours)
                {
                    remove_given_up(&path);
                }
            } else if let Ok(bytes) = fs::read(&path) {
                entries.extend(Entry::decode(&bytes));
            }
        }
        let known = entries.iter().map(|entry| (entry.name(), entry.digest()));
        let known = known.collect();
        Ok((Self { folder, known }, entries))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether the folder has something else under this key, or nothing.
    pub(super) fn lacks(&self, entry: &Entry) -> bool {
        self.known.get(&entry.name()) != Some(&entry.digest())
    }

    /// Writes an entry in the place of what was under its key.
    ///
    /// # Errors
    /// When it cannot be written; what was there is there still.
    pub(super) fn write(&mut self, entry: &Entry) -> io::Result<()> {
        static WRITES: AtomicU64 = AtomicU64::new(0);
        let name = entry.name();
        let writer = (std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed));
        let unfinished = format!("{name:032x}.{}.{}.{UNFINISHED}", writer.0, writer.1);
        let unfinished = self.folder.join(unfinished);
        let written = fs::File::create(&unfinished)
            .and_then(|mut file| file.write_all(&entry.encode()))
            .and_then(|()| fs::rename(&unfinished, self.path(name)));
        if written.is_err() {
            // The error that is told is the first one.
            let _ = fs::remove_file(&unfinished);
        }
        written.map_err(|cause| {
            let folder = self.folder.display();
            io::Error::new(
                cause.kind(),
                format!("{folder}: cannot be written: {cause}"),
            )
        })?;
        self.known.insert(name, entry.digest());
        Ok(())
    }

    /// Removes what was found or written here and is not among `kept`; what other processes wrote stays.
    pub(super) fn keep_only(&mut self, kept: &[Entry]) {
        let kept: HashSet<u128> = kept.iter().map(Entry::name).collect();
        let gone: Vec<u128> = self.known.keys().copied().collect();
        for name in gone.into_iter().filter(|name| !kept.contains(name)) {
            // A file that stays is a little space.
            let _ = fs::remove_file(self.path(name));
            self.known.remove(&name);
        }
    }

    fn path(&self, name: u128) -> PathBuf {
        self.folder.join(format!("{name:032x}"))
    }
}

/// Whether a name is one that [`Files`] gives: that of an entry, or of one that is being written.
pub(super) fn is_ours(name: &str) -> bool {
    let parts: Vec<_> = name.split('.').collect();
    match parts[..] {
        [entry] => is_hex(entry, 32),
        [entry, process, write, end] => {
            is_hex(entry, 32) && is_number(process) && is_number(write) && end == UNFINISHED
        }
        _ => false,
    }
}

/// Whether a text is a number of so many hexadecimal digits, as they are written here.
pub(super) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits
        && text
            .bytes()
            .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a text is a decimal number.
pub(super) fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit())
}

/// Removes a file that a process left when it was ended while it wrote.
fn remove_given_up(path: &Path) {
    let changed = fs::metadata(path).and_then(|data| data.modified());
    let age = changed.ok().and_then(|changed| changed.elapsed().ok());
    if age.is_some_and(|age| age > GIVEN_UP) {
        // It is in nobody's way.
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, value: &[u8]) -> Entry {
        Entry {
            namespace: "cuda/0.11.3/ptx_sm90-cpp".into(),
            key: key.into(),
            value: value.into(),
        }
    }

    fn opened(folder: &tempfile::TempDir) -> (Files, Vec<Entry>) {
        Files::open(folder.path().join("kernels")).expect("the folder can be made")
    }

    #[test]
    fn what_is_written_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let (mut files, found) = opened(&folder);
        assert_eq!(found, []);
        let entry = entry("a", b".version 8.0");
        assert!(files.lacks(&entry));
        files.write(&entry).unwrap();
        assert!(!files.lacks(&entry));
        let (files, found) = opened(&folder);
        assert_eq!(found, std::slice::from_ref(&entry));
        assert!(!files.lacks(&entry));
    }

    #[test]
    fn another_value_takes_the_place_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let (mut files, _) = opened(&folder);
        files.write(&entry("a", b"old")).unwrap();
        assert!(files.lacks(&entry("a", b"new")));
        files.write(&entry("a", b"new")).unwrap();
        assert_eq!(opened(&folder).1, [entry("a", b"new")]);
    }

    #[test]
    fn no_damage_is_read() {
        let sound = entry("a", b".version 8.0").encode();
        assert!(Entry::decode(&sound).is_some());
        for length in 0..sound.len() {
            assert_eq!(Entry::decode(&sound[..length]), None, "cut at {length}");
        }
        for bit in 0..sound.len() * 8 {
            let mut damaged = sound.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Entry::decode(&damaged), None, "bit {bit}");
        }
        let longer = [sound.as_slice(), b"\0"].concat();
        assert_eq!(Entry::decode(&longer), None);
        // Sound by its digest, but lengths that lead out of the file.
        let body = [u32::MAX.to_le_bytes(), 0_u32.to_le_bytes()].concat();
        let digest = xxh3_128(&body).to_le_bytes();
        let lies = [MAGIC.as_slice(), &digest, &body].concat();
        assert_eq!(Entry::decode(&lies), None);
    }

    #[test]
    fn a_damaged_file_is_left_out_and_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (mut files, _) = opened(&folder);
        let (a, b) = (entry("a", b"first"), entry("b", b"second"));
        files.write(&a).unwrap();
        files.write(&b).unwrap();
        fs::write(files.path(a.name()), b"nonsense").unwrap();
        let (mut files, found) = opened(&folder);
        assert_eq!(found, std::slice::from_ref(&b));
        assert!(files.lacks(&a));
        files.write(&a).unwrap();
        assert_eq!(opened(&folder).1.len(), 2);
    }

    #[test]
    fn only_what_was_seen_here_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (mut ours, _) = opened(&folder);
        let (mut theirs, _) = opened(&folder);
        ours.write(&entry("a", b"ours")).unwrap();
        theirs.write(&entry("b", b"theirs")).unwrap();
        ours.keep_only(&[]);
        assert_eq!(opened(&folder).1, [entry("b", b"theirs")]);
    }

    #[test]
    fn a_file_that_is_being_written_is_no_entry() {
        let folder = tempfile::tempdir().unwrap();
        let (files, _) = opened(&folder);
        let half = files.folder.join(format!("{:032x}.1.0.tmp", 7));
        let own = files.folder.join("notes.tmp");
        for path in [&half, &own] {
            fs::write(path, entry("a", b"x").encode()).unwrap();
        }
        assert_eq!(opened(&folder).1, []);
        assert!(half.exists(), "another process may be at it");
        let hours_ago = std::time::SystemTime::now() - 2 * GIVEN_UP;
        for path in [&half, &own] {
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_modified(hours_ago).unwrap();
        }
        assert_eq!(opened(&folder).1, []);
        assert!(!half.exists(), "nobody is");
        assert!(own.exists(), "somebody's own");
    }

    #[test]
    fn many_writers_leave_sound_entries() {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4_u8 {
                let (mut files, _) = opened(&folder);
                scope.spawn(move || {
                    for key in ["a", "b", "c"] {
                        for _ in 0..20 {
                            files.write(&entry(key, &[writer; 4096])).unwrap();
                        }
                    }
                });
            }
        });
        let (_, found) = opened(&folder);
        assert_eq!(found.len(), 3);
        for entry in found {
            assert!(entry.value.iter().all(|byte| *byte == entry.value[0]));
        }
    }

    #[test]
    fn a_file_in_the_folders_place_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("kernels"), b"").unwrap();
        assert!(Files::open(folder.path().join("kernels")).is_err());
    }
}
