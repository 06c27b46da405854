//! Videos that need a codec, through the programs `ffprobe` and `ffmpeg` where these are installed.
//!
//! They are started directly, never through a shell, with the path behind `file:` so that no name
//! can be taken for an option or an address, and may open only that one file and only as one of the
//! listed containers (a play list could name other files).

use std::ffi::{OsStr, OsString};
use std::io::{BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

use image::RgbImage;
use serde::Deserialize;
use symphonia::core::io::ReadOnlySource;

use super::audio_file::read_audio_stream;
use super::error::{MediaError, MediaProblem, display};
use super::image_file::check_size;
use super::pcm::Pcm;
use super::video::{EXPECTED, FrameReader, Video};

const FFPROBE: &str = "ffprobe";
const FFMPEG: &str = "ffmpeg";
/// Containers that may be opened.
const CONTAINERS: &str = "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,apng,h264,\
                          hevc,av1,obu,ivf,yuv4mpegpipe,mxf,rm,dv,nut,m4v,wav,mp3,flac,aac";
/// Most bytes of a program's messages that are kept: the last ones.
const MESSAGE_BYTES: usize = 4096;
/// Most bytes of `ffprobe`'s answer.
const ANSWER_BYTES: u64 = 1 << 20;

/// Chosen frames of a video file.
pub(super) fn read_video(path: &Path, reader: &FrameReader<'_>) -> Result<Video, MediaError> {
    let probe = Probe::of(path)?;
    let Some((total, fps)) = probe.frames() else {
        return Err(MediaError::unexpected(
            &reader.name,
            EXPECTED,
            "a file without video frames",
        ));
    };
    let (indices, fps) = reader.sample(total, fps);
    let wanted: Vec<String> = indices
        .iter()
        .map(|index| format!("eq(n,{index})"))
        .collect();
    // Numbering the chosen frames anew at a made-up rate keeps `ffmpeg` from repeating or dropping
    // any for their times.
    let filter = format!("select='{}',settb=1/25,setpts=N", wanted.join("+"));
    let output = ["-map", "0:V:0", "-vf", &filter, "-r", "25"];
    let format = [
        "-pix_fmt",
        "rgb24",
        "-c:v",
        "ppm",
        "-f",
        "image2pipe",
        "pipe:1",
    ];
    let mut program = Program::start(
        FFMPEG,
        path,
        &["-nostdin"],
        &[&output[..], &format].concat(),
    )?;
    let mut stream = program.stdout();
    let mut frames = Vec::with_capacity(indices.len());
    while frames.len() < indices.len() {
        match read_ppm(&mut stream, &reader.name)? {
            Some(frame) => frames.push(reader.fit(&frame, indices.len())?),
            None => break,
        }
    }
    drop(stream);
    // Containers can count more frames than can be decoded; what came is used when something did.
    if frames.is_empty() {
        return Err(program.failure("no frame could be decoded"));
    }
    Ok(Video {
        frames,
        fps: Some(fps),
    })
}

/// The audio track of a video file as mono samples at its own rate; `None` when it has none.
///
/// # Errors When `ffprobe` or `ffmpeg` is missing, the file is not one that they decode, or its
/// audio is damaged or too long.
pub fn read_video_audio(path: &Path) -> Result<Option<Pcm>, MediaError> {
    if path.is_dir() || !Probe::of(path)?.has_audio() {
        return Ok(None);
    }
    let output = ["-map", "0:a:0", "-c:a", "pcm_s16le", "-f", "wav", "pipe:1"];
    let mut program = Program::start(FFMPEG, path, &["-nostdin"], &output)?;
    let stream = ReadOnlySource::new(program.stdout());
    match read_audio_stream(
        &display(path),
        b"RIFF\xff\xff\xff\xffWAVE",
        Box::new(stream),
    ) {
        Ok(pcm) => Ok(Some(pcm)),
        // What `ffmpeg` said, if it failed, is nearer to the cause than what its cut-off output
        // looks like.
        Err(error) => match program.finish() {
            Some(message) => Err(MediaError::program_failed(display(path), FFMPEG, message)),
            None => Err(error),
        },
    }
}

/// `ffprobe`'s answer.
#[derive(Deserialize)]
struct Probe {
    #[serde(default)]
    streams: Vec<Stream>,
}

/// One stream of a file.
#[derive(Deserialize)]
struct Stream {
    #[serde(default)]
    codec_type: String,
    /// Frames a second as a fraction, e.g. `30000/1001`.
    #[serde(default)]
    avg_frame_rate: String,
    /// The same, guessed from the time stamps.
    #[serde(default)]
    r_frame_rate: String,
    /// Number of packets, one a frame.
    #[serde(default)]
    nb_read_packets: String,
    #[serde(default)]
    disposition: Disposition,
}

#[derive(Deserialize, Default)]
struct Disposition {
    /// 1 for a cover picture, which is a video stream in name only.
    #[serde(default)]
    attached_pic: u8,
}

impl Probe {
    fn of(path: &Path) -> Result<Self, MediaError> {
        let name = display(path);
        let metadata = path
            .metadata()
            .map_err(|error| MediaError::read(&name, error))?;
        if !metadata.is_file() {
            return Err(MediaError::unexpected(
                name,
                "a video file",
                "something that is not a file",
            ));
        }
        let entries = "stream=codec_type,avg_frame_rate,r_frame_rate,nb_read_packets:\
                       stream_disposition=attached_pic";
        let output = ["-count_packets", "-show_entries", entries, "-of", "json"];
        let mut program = Program::start(FFPROBE, path, &output, &[])?;
        let mut answer = Vec::new();
        let stream = program.stdout();
        stream
            .take(ANSWER_BYTES)
            .read_to_end(&mut answer)
            .map_err(|error| MediaError::read(&name, error))?;
        if let Some(message) = program.finish() {
            return Err(MediaError::program_failed(name, FFPROBE, message));
        }
        serde_json::from_slice(&answer)
            .map_err(|error| MediaError::program_failed(name, FFPROBE, error.to_string()))
    }

    /// Number and rate of the frames of the first real video stream.
    fn frames(&self) -> Option<(usize, f64)> {
        let is_video =
            |stream: &&Stream| stream.codec_type == "video" && stream.disposition.attached_pic == 0;
        let stream = self.streams.iter().find(is_video)?;
        let total = stream
            .nb_read_packets
            .parse()
            .ok()
            .filter(|&total| total > 0)?;
        let fps = fraction(&stream.avg_frame_rate).or_else(|| fraction(&stream.r_frame_rate))?;
        Some((total, fps))
    }

    fn has_audio(&self) -> bool {
        self.streams
            .iter()
            .any(|stream| stream.codec_type == "audio")
    }
}

/// A rate above 0 from `numerator/denominator`.
fn fraction(text: &str) -> Option<f64> {
    let (numerator, denominator) = text.split_once('/')?;
    let rate = numerator.parse::<f64>().ok()? / denominator.parse::<f64>().ok()?;
    (rate > 0.0 && rate.is_finite()).then_some(rate)
}

/// The next image of a stream of binary ppm images; `None` at its end, also in the middle of an
/// image.
fn read_ppm(stream: &mut impl Read, name: &str) -> Result<Option<RgbImage>, MediaError> {
    let broken = |found: String| MediaError::program_failed(name, FFMPEG, found);
    let Some(magic) = read_word(stream) else {
        return Ok(None);
    };
    if magic != "P6" {
        return Err(broken(format!(
            "its output starts with {magic:?}, not a ppm image"
        )));
    }
    let mut numbers = [0u32; 3];
    for number in &mut numbers {
        let Some(word) = read_word(stream) else {
            return Ok(None);
        };
        *number = word
            .parse()
            .map_err(|_| broken(format!("{word:?} is not a size")))?;
    }
    let [width, height, _] = numbers;
    check_size(name, width, height)?;
    let mut samples = vec![0; width as usize * height as usize * 3];
    match stream.read_exact(&mut samples) {
        Ok(()) => Ok(RgbImage::from_raw(width, height, samples)),
        Err(_) => Ok(None),
    }
}

/// The characters up to the next white space, which is taken too.
fn read_word(stream: &mut impl Read) -> Option<String> {
    const LONGEST: usize = 16;
    let mut word = String::new();
    let mut byte = [0];
    while word.len() < LONGEST && stream.read_exact(&mut byte).is_ok() {
        if byte[0].is_ascii_whitespace() {
            return Some(word);
        }
        word.push(char::from(byte[0]));
    }
    (word.len() == LONGEST).then_some(word)
}

/// A child process, killed when it is dropped.
struct Program {
    /// What errors call the file.
    name: String,
    program: &'static str,
    child: Child,
    /// Keeps reading its messages, which would block it otherwise.
    messages: Option<JoinHandle<String>>,
}

impl Program {
    /// Starts `program INPUT_OPTIONS -i file:PATH OUTPUT_OPTIONS`.
    fn start(
        program: &'static str,
        path: &Path,
        input: &[&str],
        output: &[&str],
    ) -> Result<Self, MediaError> {
        let mut file = OsString::from("file:");
        file.push(path);
        let mut child = Command::new(program)
            .args(["-v", "error", "-protocol_whitelist", "file,pipe"])
            .args(["-format_whitelist", CONTAINERS])
            .args(input)
            .args([OsStr::new("-i"), &file])
            .args(output)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => {
                    MediaError::new(display(path), MediaProblem::ProgramMissing { program })
                }
                _ => MediaError::program_failed(display(path), program, error.to_string()),
            })?;
        let messages = child
            .stderr
            .take()
            .map(|stderr| std::thread::spawn(|| last_bytes(stderr)));
        Ok(Self {
            name: display(path),
            program,
            child,
            messages,
        })
    }

    /// Its output; to be taken once.
    fn stdout(&mut self) -> BufReader<ChildStdout> {
        BufReader::new(
            self.child
                .stdout
                .take()
                .expect("the output is piped and taken once"),
        )
    }

    /// Waits for its end; its last message, or its status, when it failed.
    fn finish(&mut self) -> Option<String> {
        let status = self.child.wait();
        let messages = self.messages.take().and_then(|thread| thread.join().ok());
        let last = messages
            .as_deref()
            .unwrap_or_default()
            .lines()
            .last()
            .map(str::to_owned);
        match status {
            Ok(status) if status.success() => None,
            Ok(status) => Some(last.unwrap_or_else(|| status.to_string())),
            Err(error) => Some(error.to_string()),
        }
    }

    /// The error of a program that did not give what was asked for; `otherwise` where it does not
    /// say why.
    fn failure(&mut self, otherwise: &str) -> MediaError {
        let message = self.finish().unwrap_or_else(|| otherwise.into());
        MediaError::program_failed(&self.name, self.program, message)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last [`MESSAGE_BYTES`] of a stream.
fn last_bytes(mut stream: impl Read) -> String {
    let mut kept = Vec::new();
    let mut chunk = [0; 1024];
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        kept.extend_from_slice(&chunk[..count]);
        kept.drain(..kept.len().saturating_sub(MESSAGE_BYTES));
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ppm_images_are_read_one_after_the_other() {
        let mut stream: &[u8] = b"P6\n2 1\n255\nabcdefP6\n1 1\n255\nxyzP6\n1 1\n255\nx";
        let first = read_ppm(&mut stream, "a").unwrap().unwrap();
        assert_eq!(
            (first.dimensions(), first.as_raw().as_slice()),
            ((2, 1), &b"abcdef"[..])
        );
        assert_eq!(
            read_ppm(&mut stream, "a").unwrap().unwrap().as_raw(),
            b"xyz"
        );
        assert!(read_ppm(&mut stream, "a").unwrap().is_none());
        let mut junk: &[u8] = b"P5\n1 1\n255\nx";
        assert!(read_ppm(&mut junk, "a").is_err());
    }

    #[test]
    fn rates_are_fractions_above_zero() {
        assert_eq!(fraction("30/1"), Some(30.0));
        assert_eq!(fraction("30000/1001"), Some(30000.0 / 1001.0));
        assert_eq!(fraction("0/0"), None);
        assert_eq!(fraction(""), None);
    }

    #[test]
    fn a_cover_picture_is_not_a_video() {
        let probe: Probe = serde_json::from_str(
            r#"{"streams": [
                {"codec_type": "video", "avg_frame_rate": "0/0", "nb_read_packets": "1",
                 "disposition": {"attached_pic": 1}},
                {"codec_type": "audio"},
                {"codec_type": "video", "avg_frame_rate": "0/0", "r_frame_rate": "25/1",
                 "nb_read_packets": "50"}]}"#,
        )
        .unwrap();
        assert_eq!(probe.frames(), Some((50, 25.0)));
        assert!(probe.has_audio());
    }
}
