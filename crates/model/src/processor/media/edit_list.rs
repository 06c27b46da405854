//! How many samples at the start of an mp4's audio track are the encoder's run-up, by the track's
//! edit list.
//!
//! An AAC encoder writes 1024 or more samples before the first real one; players and the
//! reference's loader skip what the edit list says, the decoder used here does not.

use std::io::{Read, Seek, SeekFrom};

/// A box: its type and where its content lies in the file.
#[derive(Clone, Copy)]
struct Atom {
    kind: [u8; 4],
    start: u64,
    end: u64,
}

/// Most boxes on one level that are looked at.
const MAX_ATOMS: usize = 4096;

/// The run-up of the first audio track in samples at `sample_rate`; 0 where nothing says one.
///
/// Leaves `file` at its start.
pub(super) fn run_up(file: &mut (impl Read + Seek), sample_rate: u32) -> usize {
    let skip = file
        .seek(SeekFrom::End(0))
        .ok()
        .and_then(|end| find_run_up(file, end, sample_rate))
        .unwrap_or(0);
    // The caller reads on from here, and will see the error if this one fails.
    let _ = file.rewind();
    skip
}

fn find_run_up(file: &mut (impl Read + Seek), end: u64, sample_rate: u32) -> Option<usize> {
    let whole = Atom {
        kind: *b"file",
        start: 0,
        end,
    };
    let movie = child(file, whole, b"moov")?;
    let tracks: Vec<Atom> = children(file, movie)
        .into_iter()
        .filter(|atom| &atom.kind == b"trak")
        .collect();
    let track = tracks
        .into_iter()
        .find(|&track| is_audio(file, track) == Some(true))?;
    let media = child(file, track, b"mdia")?;
    let scale = time_scale(file, media)?;
    let edits = child(file, track, b"edts")?;
    let list = child(file, edits, b"elst")?;
    let start = first_media_time(file, list)?;
    let samples = u128::from(start) * u128::from(sample_rate) / u128::from(scale);
    usize::try_from(samples).ok()
}

/// Whether a track's handler is the one for sound.
fn is_audio(file: &mut (impl Read + Seek), track: Atom) -> Option<bool> {
    let media = child(file, track, b"mdia")?;
    let handler = child(file, media, b"hdlr")?;
    let content: [u8; 12] = read(file, handler, 0)?;
    Some(content.ends_with(b"soun"))
}

/// Time units a second of a track, from its media header.
fn time_scale(file: &mut (impl Read + Seek), media: Atom) -> Option<u32> {
    let header = child(file, media, b"mdhd")?;
    let [version] = read(file, header, 0)?;
    // Version 1 has times of eight bytes, of which two come first.
    let offset = if version == 1 { 20 } else { 12 };
    read(file, header, offset)
        .map(u32::from_be_bytes)
        .filter(|&scale| scale > 0)
}

/// Where in the track, in its time units, the first edit that plays something starts.
fn first_media_time(file: &mut (impl Read + Seek), list: Atom) -> Option<u64> {
    let [version] = read(file, list, 0)?;
    let count = u32::from_be_bytes(read(file, list, 4)?);
    (0..u64::from(count).min(MAX_ATOMS as u64)).find_map(|entry| {
        let time = if version == 1 {
            i64::from_be_bytes(read(file, list, 8 + entry * 20 + 8)?)
        } else {
            i64::from(i32::from_be_bytes(read(file, list, 8 + entry * 12 + 4)?))
        };
        // -1 is a pause before the track.
        u64::try_from(time).ok()
    })
}

/// The first box of a kind inside of another.
fn child(file: &mut (impl Read + Seek), parent: Atom, kind: &[u8; 4]) -> Option<Atom> {
    children(file, parent)
        .into_iter()
        .find(|atom| &atom.kind == kind)
}

/// The boxes directly inside of another.
fn children(file: &mut (impl Read + Seek), parent: Atom) -> Vec<Atom> {
    let mut found = Vec::new();
    let mut at = parent.start;
    while found.len() < MAX_ATOMS {
        let Some(atom) = atom_at(file, parent, at) else {
            break;
        };
        at = atom.end;
        found.push(atom);
    }
    found
}

/// The box at `at`, when it is whole.
fn atom_at(file: &mut (impl Read + Seek), parent: Atom, at: u64) -> Option<Atom> {
    let offset = at.checked_sub(parent.start)?;
    let head: [u8; 8] = read(file, parent, offset)?;
    let [a, b, c, d, kind @ ..] = head;
    let (header, length) = match u32::from_be_bytes([a, b, c, d]) {
        0 => (8, parent.end - at),
        1 => (16, u64::from_be_bytes(read(file, parent, offset + 8)?)),
        length => (8, u64::from(length)),
    };
    let end = at.checked_add(length)?;
    (length >= header && end <= parent.end).then_some(Atom {
        kind,
        start: at + header,
        end,
    })
}

/// `N` bytes at `offset` inside of a box.
fn read<const N: usize>(file: &mut (impl Read + Seek), atom: Atom, offset: u64) -> Option<[u8; N]> {
    let start = atom.start.checked_add(offset)?;
    if start.checked_add(N as u64)? > atom.end {
        return None;
    }
    let mut bytes = [0; N];
    file.seek(SeekFrom::Start(start)).ok()?;
    file.read_exact(&mut bytes).ok()?;
    Some(bytes)
}
