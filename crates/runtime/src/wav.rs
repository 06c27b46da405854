//! Samples to a WAV file that exists only when it is whole, to one that a pipe carries as it is made, and to raw PCM.

use std::fs::{self, File, OpenOptions};
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
///
/// Where the place is a pipe or a device, samples go there as they are made. The header is then that of a stream whose
/// length nobody knows yet: both sizes are the largest that there are.
#[derive(Debug)]
pub struct WavWriter {
    out: BufWriter<File>,
    /// The file beside the final place; none for a pipe.
    part: Option<PathBuf>,
    path: PathBuf,
    sample_rate: u32,
    samples: u32,
}

impl WavWriter {
    /// Opens a file beside `path`, or the pipe that `path` is.
    ///
    /// # Errors
    /// When the folder does not exist or cannot be written to.
    pub fn create(path: &Path, sample_rate: u32) -> Result<Self, Error> {
        let failed = |cause| Error::Write {
            path: path.into(),
            cause,
        };
        let folder = || {
            failed(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is a folder",
            ))
        };
        let name = path.file_name().ok_or_else(folder)?;
        let part = match fs::metadata(path) {
            Ok(found) if found.is_dir() => return Err(folder()),
            Ok(found) if !found.is_file() => None,
            _ => {
                let (name, process) = (name.to_string_lossy(), std::process::id());
                Some(path.with_file_name(format!(".{name}.{process}.part")))
            }
        };
        let file = match &part {
            Some(part) => File::create(part),
            None => OpenOptions::new().write(true).open(path),
        };
        let mut writer = Self {
            out: BufWriter::new(file.map_err(failed)?),
            part,
            path: path.into(),
            sample_rate,
            samples: 0,
        };
        writer.header().map_err(failed)?;
        Ok(writer)
    }

    /// Whether a file can be written there, as far as that is known without opening a pipe.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn check(path: &Path) -> Result<(), Error> {
        match fs::metadata(path) {
            Ok(found) if !found.is_file() && !found.is_dir() => Ok(()),
            _ => Self::create(path, 1).map(drop),
        }
    }

    /// Appends samples in `[-1, 1]`.
    ///
    /// # Errors
    /// When the disk or the reader of the pipe does not take them.
    pub fn write(&mut self, samples: &[f32]) -> Result<(), Error> {
        let bytes: Vec<u8> = samples
            .iter()
            .flat_map(|x| to_i16(*x).to_le_bytes())
            .collect();
        let count = u32::try_from(samples.len()).expect("a packet is short");
        self.samples = self.samples.saturating_add(count);
        let mut written = self.out.write_all(&bytes);
        if self.part.is_none() {
            // Who reads a pipe plays what comes.
            written = written.and_then(|()| self.out.flush());
        }
        written.map_err(|cause| self.failed(cause))
    }

    /// Samples that were appended.
    #[must_use]
    pub fn samples(&self) -> u32 {
        self.samples
    }

    /// Completes the header and moves the file to its place.
    ///
    /// # Errors
    /// When the disk does not take what is left.
    pub fn finish(mut self) -> Result<(), Error> {
        let Some(part) = self.part.clone() else {
            return self.out.flush().map_err(|cause| self.failed(cause));
        };
        let done = self
            .out
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.header())
            .and_then(|()| self.out.flush());
        done.and_then(|()| self.out.get_ref().sync_all())
            // Through a link the file that it names is replaced, not the link.
            .and_then(|()| {
                let place = fs::canonicalize(&self.path);
                fs::rename(&part, place.unwrap_or(self.path.clone()))
            })
            .map_err(|cause| self.failed(cause))?;
        self.part = None;
        Ok(())
    }

    fn failed(&self, cause: io::Error) -> Error {
        Error::Write {
            path: self.path.clone(),
            cause,
        }
    }

    fn header(&mut self) -> io::Result<()> {
        let data = match self.part {
            Some(_) => self.samples.saturating_mul(2),
            None => u32::MAX,
        };
        let mut header = Vec::with_capacity(HEADER as usize);
        header.extend(b"RIFF");
        header.extend(data.saturating_add(HEADER - 8).to_le_bytes());
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
        if let Some(part) = &self.part {
            // Nothing more can be done about a file that cannot be removed.
            let _ = fs::remove_file(part);
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

    /// A pipe that has a name, where there are any.
    #[cfg(unix)]
    #[test]
    fn a_pipe_carries_samples_as_they_are_made() {
        use std::io::Read;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        WavWriter::check(&path).unwrap();
        let writer = {
            let path = path.clone();
            std::thread::spawn(move || WavWriter::create(&path, 24_000).unwrap())
        };
        let mut pipe = File::open(&path).unwrap();
        let mut writer = writer.join().unwrap();
        writer.write(&[1.0, -1.0]).unwrap();
        // The writer is not finished, and what it wrote is there.
        let mut bytes = [0; 48];
        pipe.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes[..4], b"RIFF");
        assert_eq!([&bytes[4..8], &bytes[40..44]], [[0xff; 4]; 2]);
        assert_eq!(bytes[44..], [0xff, 0x7f, 0x01, 0x80]);
        assert_eq!(writer.samples(), 2);
        writer.finish().unwrap();
        let names = fs::read_dir(dir.path()).unwrap();
        assert_eq!(names.count(), 1, "the pipe alone");
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
