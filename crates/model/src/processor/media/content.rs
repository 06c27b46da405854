//! What a byte string is, by its first bytes: for errors that say what was found, and to choose a
//! door.

/// The first bytes that [`describe`] wants to see; more does not hurt.
pub(super) const HEAD_BYTES: usize = 512;

/// Signatures: offset, bytes, name. The first match counts.
const SIGNATURES: [(usize, &[u8], &str); 25] = [
    (0, b"\x89PNG\r\n\x1a\n", "a png image"),
    (0, b"\xff\xd8\xff", "a jpeg image"),
    (0, b"GIF8", "a gif image"),
    (8, b"WEBP", "a webp image"),
    (8, b"WAVE", "wav audio"),
    (8, b"AVI ", "an avi video"),
    (0, b"fLaC", "flac audio"),
    (
        28,
        b"OpusHead",
        "Opus audio in ogg, for which there is no decoder",
    ),
    (0, b"OggS", "ogg audio"),
    (0, b"ID3", "mp3 audio"),
    (0, b"FORM", "aiff audio"),
    (4, b"ftypavif", "an avif image"),
    (4, b"ftyphei", "a heic image"),
    (4, b"ftyp", "an mp4 file"),
    (0, b"\x1aE\xdf\xa3", "a matroska or webm file"),
    (0, b"BM", "a bmp image"),
    (0, b"II*\0", "a tiff image"),
    (0, b"MM\0*", "a tiff image"),
    (0, b"%PDF", "a pdf document"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (
        0,
        b"version https://git-lfs",
        "a Git LFS pointer, not the file itself",
    ),
    (0, b"\xff\xfb", "mp3 audio"),
    (0, b"\xff\xf3", "mp3 audio"),
    (0, b"\xff\xf1", "aac audio"),
];

/// One or two words for what `head`, the start of a file, looks like.
pub(super) fn describe(head: &[u8]) -> String {
    if head.is_empty() {
        return "an empty file".into();
    }
    let known = SIGNATURES.iter().find(|(offset, bytes, _)| {
        head.get(*offset..)
            .is_some_and(|rest| rest.starts_with(bytes))
    });
    if let Some((_, _, name)) = known {
        return (*name).into();
    }
    let head = &head[..head.len().min(HEAD_BYTES)];
    if head.iter().all(|&byte| byte == 0) {
        return "zero bytes only".into();
    }
    // A cut in the middle of a character is at most three bytes before the end.
    let text = match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none() && error.valid_up_to() > 0,
    };
    if text && !head.contains(&0) {
        let start: String = String::from_utf8_lossy(head).chars().take(24).collect();
        return format!("text starting {start:?}");
    }
    let start: Vec<String> = head
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("unknown data starting {}", start.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_content_is_named() {
        assert_eq!(describe(b""), "an empty file");
        assert_eq!(describe(b"RIFF\0\0\0\0WAVEfmt "), "wav audio");
        assert_eq!(describe(b"hello\nworld"), "text starting \"hello\\nworld\"");
        assert_eq!(
            describe(&[1, 2, 0xff, 0xfe]),
            "unknown data starting 01 02 ff fe"
        );
        assert_eq!(describe(&[0; 700]), "zero bytes only");
        assert_eq!(describe(&"é".as_bytes()[..1]), "unknown data starting c3");
    }
}
