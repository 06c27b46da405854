//! Audio files to mono samples: wav, flac, mp3, ogg vorbis, m4a/aac, alac, aiff.

use std::fs::File;
use std::io::{Cursor, Read, Seek};
use std::path::Path;

use symphonia::core::audio::GenericAudioBufferRef;
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as DecodeError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream, ReadOnlySource};
use symphonia::core::meta::MetadataOptions;

use super::content::{HEAD_BYTES, describe};
use super::edit_list;
use super::error::{MediaError, display};
use super::guard::guarded;
use super::pcm::{Pcm, check_rate};

/// Longest recording that is read, in seconds.
pub const MAX_AUDIO_SECONDS: usize = 3600;
/// Most samples a channel that are read: [`MAX_AUDIO_SECONDS`] at 48 kHz, so that memory has a
/// bound at any rate.
pub const MAX_AUDIO_SAMPLES: usize = MAX_AUDIO_SECONDS * 48_000;

const EXPECTED: &str = "wav, flac, mp3, ogg vorbis, m4a or aiff audio";

/// Reads an audio file as mono samples at its own rate.
///
/// Integers become `value / 2^(bits − 1)`, as soundfile reads them; channels are averaged, as
/// librosa mixes them. Nothing is resampled: see [`resample`](super::pcm::resample).
///
/// # Errors When the file cannot be read, is not audio that can be decoded, is damaged, holds no
/// sample or one that is not a number, or is longer than [`MAX_AUDIO_SECONDS`].
pub fn read_audio(path: &Path) -> Result<Pcm, MediaError> {
    let name = display(path);
    let mut file = File::open(path).map_err(|error| MediaError::read(&name, error))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(MediaError::unexpected(name, EXPECTED, "a folder"));
    }
    let failed = |error| MediaError::read(&name, error);
    let mut head = Vec::new();
    (&mut file)
        .take(HEAD_BYTES as u64)
        .read_to_end(&mut head)
        .map_err(failed)?;
    if file.rewind().is_err() {
        // A pipe cannot be read again from its start.
        let stream = ReadOnlySource::new(Cursor::new(head.clone()).chain(file));
        return read_audio_stream(&name, &head, Box::new(stream));
    }
    let mut again = file.try_clone().map_err(failed)?;
    let pcm = read_audio_stream(&name, &head, Box::new(file))?;
    Ok(without_run_up(pcm, &head, &mut again))
}

/// Reads audio from the bytes of a file; see [`read_audio`]. Errors call them `audio bytes`.
///
/// # Errors
/// As [`read_audio`].
pub fn read_audio_bytes(bytes: &[u8]) -> Result<Pcm, MediaError> {
    let head = &bytes[..bytes.len().min(HEAD_BYTES)];
    let pcm = read_audio_stream("audio bytes", head, Box::new(Cursor::new(bytes)))?;
    Ok(without_run_up(pcm, head, &mut Cursor::new(bytes)))
}

/// `pcm` without the samples that an mp4's edit list takes off its start.
fn without_run_up(mut pcm: Pcm, head: &[u8], file: &mut (impl Read + Seek)) -> Pcm {
    if head.get(4..8) == Some(b"ftyp") {
        let skipped = edit_list::run_up(file, pcm.sample_rate);
        // A list that leaves nothing is not about a run-up.
        if skipped < pcm.samples.len() {
            pcm.samples.drain(..skipped);
        }
    }
    pcm
}

/// Reads audio from a stream that errors call `name` and that starts with `head`; see
/// [`read_audio`].
pub(super) fn read_audio_stream<'a>(
    name: &'a str,
    head: &[u8],
    stream: Box<dyn MediaSource + 'a>,
) -> Result<Pcm, MediaError> {
    if head.is_empty() {
        return Err(MediaError::unexpected(name, EXPECTED, describe(head)));
    }
    guarded(name, &describe(head), || decode(name, head, stream))
}

fn decode(name: &str, head: &[u8], stream: Box<dyn MediaSource + '_>) -> Result<Pcm, MediaError> {
    let stream = MediaSourceStream::new(stream, Default::default());
    let mut format = symphonia::default::get_probe()
        .probe(
            &Hint::new(),
            stream,
            FormatOptions::default(),
            MetadataOptions::default(),
        )
        .map_err(|error| not_audio(name, head, &error))?;
    let mut mix = Mix {
        name,
        pcm: Pcm {
            sample_rate: 0,
            samples: vec![],
        },
        frames: vec![],
    };
    // Chained ogg streams announce a new decoder with `ResetRequired`.
    while let End::NewStream = decode_stream(format.as_mut(), &mut mix, head)? {}
    let pcm = mix.pcm;
    if pcm.samples.is_empty() {
        return Err(MediaError::unexpected(
            name,
            "audio with at least one sample",
            "none",
        ));
    }
    Ok(pcm)
}

/// Why a stream ended.
enum End {
    OfFile,
    NewStream,
}

/// Decodes the first audio track until it ends.
fn decode_stream(
    format: &mut dyn FormatReader,
    mix: &mut Mix<'_>,
    head: &[u8],
) -> Result<End, MediaError> {
    let name = mix.name;
    let (track, mut decoder) = open_decoder(format, name, head)?;
    let damaged = |error: &DecodeError| MediaError::damaged(name, describe(head), error);
    // A stream that was cut out of a longer one starts, and a file that was cut off ends, with a
    // packet that cannot be decoded; one in the middle means that samples are missing.
    let mut bad_packet = None;
    let mut good_packets = 0u64;
    let end = loop {
        let packet = match format.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) => break End::OfFile,
            Err(DecodeError::IoError(error)) if is_end(&error) => break End::OfFile,
            Err(DecodeError::ResetRequired) => break End::NewStream,
            Err(error) => return Err(damaged(&error)),
        };
        if packet.track_id != track {
            continue;
        }
        if let Some(error) = bad_packet.take_if(|_| good_packets > 0) {
            return Err(damaged(&error));
        }
        match decoder.decode(&packet) {
            Ok(buffer) => {
                good_packets += 1;
                mix.push(&buffer)?;
            }
            Err(DecodeError::ResetRequired) => decoder.reset(),
            Err(error) => bad_packet = Some(error),
        }
    };
    match bad_packet {
        Some(error) if good_packets == 0 => Err(damaged(&error)),
        _ => Ok(end),
    }
}

/// The first audio track's id and a decoder for it.
fn open_decoder(
    format: &dyn FormatReader,
    name: &str,
    head: &[u8],
) -> Result<(u32, Box<dyn AudioDecoder>), MediaError> {
    let track = format.default_track(TrackType::Audio).ok_or_else(|| {
        let found = format!("{} without an audio track", describe(head));
        MediaError::unexpected(name, EXPECTED, found)
    })?;
    let parameters = track
        .codec_params
        .as_ref()
        .and_then(|parameters| parameters.audio());
    let parameters = parameters.ok_or_else(|| {
        let found = format!("{} of an unknown codec", describe(head));
        MediaError::unexpected(name, EXPECTED, found)
    })?;
    let decoder = symphonia::default::get_codecs()
        .make_audio_decoder(parameters, &AudioDecoderOptions::default())
        .map_err(|error| not_audio(name, head, &error))?;
    Ok((track.id, decoder))
}

/// The samples so far, and what they are checked and mixed with.
struct Mix<'a> {
    name: &'a str,
    pcm: Pcm,
    /// Interleaved samples of the packet at hand.
    frames: Vec<f32>,
}

impl Mix<'_> {
    /// Appends one packet as mono samples.
    fn push(&mut self, buffer: &GenericAudioBufferRef<'_>) -> Result<(), MediaError> {
        let (rate, channels) = (buffer.spec().rate(), buffer.num_planes());
        if buffer.frames() == 0 || channels == 0 {
            return Ok(());
        }
        check_rate(self.name, rate)?;
        if self.pcm.samples.is_empty() {
            self.pcm.sample_rate = rate;
        } else if self.pcm.sample_rate != rate {
            let expected = format!("audio at {} Hz throughout", self.pcm.sample_rate);
            return Err(MediaError::unexpected(
                self.name,
                expected,
                format!("{rate} Hz"),
            ));
        }
        self.frames.clear();
        buffer.copy_to_vec_interleaved(&mut self.frames);
        self.check()?;
        let frames = self.frames.chunks_exact(channels);
        self.pcm
            .samples
            .extend(frames.map(|frame| frame.iter().sum::<f32>() / channels as f32));
        let seconds = self.pcm.samples.len() / rate as usize;
        if self.pcm.samples.len() > MAX_AUDIO_SAMPLES || seconds >= MAX_AUDIO_SECONDS {
            let found = format!("more than {seconds} s at {rate} Hz");
            let limit = format!("{MAX_AUDIO_SECONDS} s and {MAX_AUDIO_SAMPLES} samples");
            return Err(MediaError::too_large(
                self.name,
                "audio length",
                found,
                limit,
            ));
        }
        Ok(())
    }

    /// Refuses samples that are not numbers, which a float file may hold.
    fn check(&self) -> Result<(), MediaError> {
        match self.frames.iter().find(|sample| !sample.is_finite()) {
            Some(sample) => {
                let found = format!("{sample} at {:.3} s", self.pcm.seconds());
                Err(MediaError::unexpected(
                    self.name,
                    "audio of finite samples",
                    found,
                ))
            }
            None => Ok(()),
        }
    }
}

fn is_end(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::UnexpectedEof
}

/// The error for content that no decoder takes: damaged if it claims to be audio, else not audio at
/// all.
fn not_audio(name: &str, head: &[u8], error: &DecodeError) -> MediaError {
    let found = describe(head);
    match error {
        DecodeError::IoError(error) if !is_end(error) => {
            MediaError::read(name, std::io::Error::new(error.kind(), error.to_string()))
        }
        DecodeError::Unsupported(what) if found.ends_with("audio") => {
            let found = format!("{found} of a kind that has no decoder ({what})");
            MediaError::unexpected(name, EXPECTED, found)
        }
        DecodeError::Unsupported(_) | DecodeError::IoError(_) if !found.ends_with("audio") => {
            MediaError::unexpected(name, EXPECTED, found)
        }
        error => MediaError::damaged(name, found, error),
    }
}
