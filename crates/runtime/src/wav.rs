//! Samples to a WAV file that exists only when it is whole, and to raw PCM.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::Error;

/// Bytes of the header before the samples.
const HEADER: u32 = 44;

/// A sample in `[-1, 1]` as 16 bits, rounded to nearest.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    reason = "clamped to the range of i16"
)]
pub fn to_i16(sample: f32) -> i16 {
    (sample.clamp(-1.0, 1.0) * 32_767.0).round_ties_even() as i16
}

/// A mono 16-bit WAV file in the making. It lies beside its final place under another name until it is finished;
/// dropped before, it is removed.
#[derive(Debug)]
pub struct WavWriter {
    out: BufWriter<File>,
    part: PathBuf,
    path: PathBuf,
    sample_rate: u32,
    samples: u32,
    finished: bool,
}

impl WavWriter {
    /// Opens a file beside `path`.
    ///
    /// # Errors
    /// When the folder does not exist or cannot be written to.
    pub fn create(path: &Path, sample_rate: u32) -> Result<Self, Error> {
        let name = path.file_name().ok_or_else(|| Error::Write {
            path: path.into(),
            cause: io::Error::new(io::ErrorKind::InvalidInput, "it is a folder"),
        })?;
        let odd = match fs::metadata(path) {
            Ok(found) if found.is_dir() => Some("it is a folder"),
            Ok(found) if !found.is_file() => Some("it is a device or a pipe, expected a file"),
            _ => None,
        };
        if let Some(odd) = odd {
            let cause = io::Error::new(io::ErrorKind::InvalidInput, odd);
            return Err(Error::Write {
                path: path.into(),
                cause,
            });
        }
        let part = path.with_file_name(format!(
            ".{}.{}.part",
            name.to_string_lossy(),
            std::process::id()
        ));
        let failed = |cause| Error::Write {
            path: path.into(),
            cause,
        };
        let out = BufWriter::new(File::create(&part).map_err(failed)?);
        let mut writer = Self {
            out,
            part,
            path: path.into(),
            sample_rate,
            samples: 0,
            finished: false,
        };
        writer.header().map_err(failed)?;
        Ok(writer)
    }

    /// Appends samples in `[-1, 1]`.
    ///
    /// # Errors
    /// When the disk does not take them.
    pub fn write(&mut self, samples: &[f32]) -> Result<(), Error> {
        let bytes: Vec<u8> = samples
            .iter()
            .flat_map(|x| to_i16(*x).to_le_bytes())
            .collect();
        self.samples += u32::try_from(samples.len()).expect("a packet is short");
        self.out
            .write_all(&bytes)
            .map_err(|cause| self.failed(cause))
    }

    /// Completes the header and moves the file to its place.
    ///
    /// # Errors
    /// When the disk does not take what is left.
    pub fn finish(mut self) -> Result<(), Error> {
        let done = self
            .out
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.header())
            .and_then(|()| self.out.flush());
        done.and_then(|()| self.out.get_ref().sync_all())
            // Through a link the file that it names is replaced, not the link.
            .and_then(|()| {
                fs::rename(
                    &self.part,
                    fs::canonicalize(&self.path).unwrap_or(self.path.clone()),
                )
            })
            .map_err(|cause| self.failed(cause))?;
        self.finished = true;
        Ok(())
    }

    fn failed(&self, cause: io::Error) -> Error {
        Error::Write {
            path: self.path.clone(),
            cause,
        }
    }

    fn header(&mut self) -> io::Result<()> {
        let data = self.samples.saturating_mul(2);
        let mut header = Vec::with_capacity(HEADER as usize);
        header.extend(b"RIFF");
        header.extend((HEADER - 8 + data).to_le_bytes());
        header.extend(b"WAVEfmt ");
        header.extend(16_u32.to_le_bytes());
        header.extend(1_u16.to_le_bytes()); // PCM
        header.extend(1_u16.to_le_bytes()); // mono
        header.extend(self.sample_rate.to_le_bytes());
        header.extend((self.sample_rate * 2).to_le_bytes());
        header.extend(2_u16.to_le_bytes()); // bytes a frame
        header.extend(16_u16.to_le_bytes()); // bits a sample
        header.extend(b"data");
        header.extend(data.to_le_bytes());
        self.out.write_all(&header)
    }
}

impl Drop for WavWriter {
    fn drop(&mut self) {
        if !self.finished {
            // Nothing more can be done about a file that cannot be removed.
            let _ = fs::remove_file(&self.part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.wav");
        let mut writer = WavWriter::create(&path, 24_000).unwrap();
        writer.write(&[0.0, 1.0, -1.0, 0.5]).unwrap();
        assert!(!path.exists());
        writer.finish().unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 52);
        assert_eq!(u32::from_le_bytes(bytes[4..8].try_into().unwrap()), 44);
        assert_eq!(u32::from_le_bytes(bytes[40..44].try_into().unwrap()), 8);
        let samples: Vec<i16> = bytes[44..]
            .chunks(2)
            .map(|x| i16::from_le_bytes([x[0], x[1]]))
            .collect();
        assert_eq!(samples, [0, 32_767, -32_767, 16_384]);

        let dropped = dir.path().join("dropped.wav");
        WavWriter::create(&dropped, 24_000)
            .unwrap()
            .write(&[0.5; 100])
            .unwrap();
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing half-written stays"
        );
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = WavWriter::create(Path::new("/no/such/folder/x.wav"), 24_000).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("/no/such/folder/x.wav: cannot be written"),
            "{error}"
        );
    }
}
