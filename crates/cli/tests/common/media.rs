//! Media that are fine, and media that are not.

use std::fs;
use std::path::{Path, PathBuf};

/// Writes a file and gives its path.
pub(crate) fn file(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, bytes).expect("the folder can be written to");
    path
}

/// A mono 16-bit wav of these samples.
pub(crate) fn wav(samples: &[i16]) -> Vec<u8> {
    const RATE: u32 = 16_000;
    let data: Vec<u8> = samples
        .iter()
        .flat_map(|sample| sample.to_le_bytes())
        .collect();
    let length = u32::try_from(data.len()).expect("a short clip");
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((36 + length).to_le_bytes());
    bytes.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    bytes.extend(RATE.to_le_bytes());
    bytes.extend((RATE * 2).to_le_bytes());
    bytes.extend(b"\x02\0\x10\0data");
    bytes.extend(length.to_le_bytes());
    bytes.extend(data);
    bytes
}

/// A grey png that says it has this size; its pixels are those of a 1×1 image.
pub(crate) fn png(width: u32, height: u32) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    header.extend([8, 0, 0, 0, 0]);
    // zlib: one stored block of a filter byte and one pixel, and the checksum of both.
    let pixels = b"\x78\x01\x01\x02\0\xfd\xff\0\x80\0\x82\0\x81";
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    for (name, content) in [
        (b"IHDR", header.as_slice()),
        (b"IDAT", pixels),
        (b"IEND", &[]),
    ] {
        bytes.extend(u32::try_from(content.len()).expect("short").to_be_bytes());
        let chunk = [name.as_slice(), content].concat();
        bytes.extend(&chunk);
        bytes.extend(crc(&chunk).to_be_bytes());
    }
    bytes
}

/// The checksum of png chunks.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 {
                0xEDB8_8320 ^ (crc >> 1)
            } else {
                crc >> 1
            }
        })
    })
}
