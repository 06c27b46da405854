//! Videos that need no video codec: a folder of image files, or a gif.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use image::codecs::gif::GifDecoder;
use image::{AnimationDecoder, ImageDecoder, Limits, RgbImage};

use super::content::HEAD_BYTES;
use super::error::{MediaError, display};
use super::guard::guarded;
use super::image_file::{check_size, read_file, read_image};
use super::video::{FrameReader, Video};

/// Extensions of the files in a folder that are frames; others are left alone.
const FRAME_EXTENSIONS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];
/// Most pixels of all frames of a gif that are decoded: a short file can hold very many.
const MAX_GIF_PIXELS: u64 = 10_000_000_000;
/// Shortest delay of a gif frame in milliseconds that is believed, and what a shorter one means, as
/// in browsers.
const SHORTEST_DELAY: f64 = 20.0;
const DEFAULT_DELAY: f64 = 100.0;

/// The first bytes of a file.
pub(super) fn read_head(path: &Path) -> Result<Vec<u8>, MediaError> {
    let mut head = Vec::new();
    File::open(path)
        .and_then(|file| file.take(HEAD_BYTES as u64).read_to_end(&mut head))
        .map_err(|error| MediaError::read(display(path), error))?;
    Ok(head)
}

/// All frames of a folder in natural order.
pub(super) fn read_folder(path: &Path, reader: &FrameReader<'_>) -> Result<Video, MediaError> {
    let files = frame_files(path)?;
    let most = reader.config.max_frames;
    if files.is_empty() {
        let expected = "a folder with png, jpeg or webp frames";
        return Err(MediaError::unexpected(&reader.name, expected, "none"));
    }
    if files.len() > most {
        let (found, limit) = (files.len().to_string(), most.to_string());
        return Err(MediaError::too_large(
            &reader.name,
            "number of frames",
            found,
            limit,
        ));
    }
    let mut first: Option<(u32, u32)> = None;
    let mut frames = Vec::with_capacity(files.len());
    for file in &files {
        let frame = read_image(file)?;
        let size = frame.dimensions();
        let expected = *first.get_or_insert(size);
        FrameReader::check_same_size(expected, size, &display(file))?;
        frames.push(reader.fit(&frame, files.len())?);
    }
    Ok(Video { frames, fps: None })
}

/// The image files of a folder in natural order.
fn frame_files(path: &Path) -> Result<Vec<PathBuf>, MediaError> {
    let failed = |error| MediaError::read(display(path), error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        let extension = file
            .extension()
            .map(|extension| extension.to_string_lossy().to_lowercase());
        let is_frame = extension.is_some_and(|found| FRAME_EXTENSIONS.contains(&found.as_str()));
        if is_frame && file.is_file() {
            files.push(file);
        }
    }
    files.sort_by(|a, b| natural_order(&name_of(a), &name_of(b)));
    Ok(files)
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Compares names so that numbers in them count by value: `frame2` before `frame10`.
fn natural_order(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        let order = match (left.chars().next(), right.chars().next()) {
            (Some(x), Some(y)) if x.is_ascii_digit() && y.is_ascii_digit() => {
                let numbers = (take_number(&mut left), take_number(&mut right));
                // Without leading zeros the longer number is the larger one.
                numbers
                    .0
                    .len()
                    .cmp(&numbers.1.len())
                    .then(numbers.0.cmp(numbers.1))
            }
            (Some(x), Some(y)) => {
                (left, right) = (&left[x.len_utf8()..], &right[y.len_utf8()..]);
                x.cmp(&y)
            }
            (None, None) => return a.cmp(b),
            (x, y) => return x.cmp(&y),
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// Cuts the digits off the front of `text` and returns them without leading zeros.
fn take_number<'a>(text: &mut &'a str) -> &'a str {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    *text = rest;
    number.trim_start_matches('0')
}

/// Chosen frames of a gif, each as it is shown; what is transparent in all frames so far is white.
pub(super) fn read_gif(path: &Path, reader: &FrameReader<'_>) -> Result<Video, MediaError> {
    let bytes = read_file(path, "a gif")?;
    guarded(&reader.name, "gif", || gif_frames(&bytes, reader))
}

fn gif_frames(bytes: &[u8], reader: &FrameReader<'_>) -> Result<Video, MediaError> {
    let damaged = |error| MediaError::damaged(&reader.name, "gif", error);
    let open = || -> Result<_, MediaError> {
        let mut decoder = GifDecoder::new(Cursor::new(bytes)).map_err(damaged)?;
        let (width, height) = decoder.dimensions();
        check_size(&reader.name, width, height)?;
        // A frame can claim any size, but only one within the picture is of use.
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(4 * decoder.total_bytes());
        decoder.set_limits(limits).map_err(damaged)?;
        Ok((decoder.into_frames(), u64::from(width) * u64::from(height)))
    };
    // A first pass counts: which frames are wanted depends on how many there are.
    let (frames, pixels) = open()?;
    let (mut total, mut milliseconds) = (0usize, 0.0);
    for frame in frames {
        let (numerator, denominator) = frame.map_err(damaged)?.delay().numer_denom_ms();
        let delay = f64::from(numerator) / f64::from(denominator.max(1));
        milliseconds += if delay < SHORTEST_DELAY {
            DEFAULT_DELAY
        } else {
            delay
        };
        total += 1;
        if total as u64 * pixels > MAX_GIF_PIXELS {
            let found = format!("more than {total} frames of {pixels} pixels");
            let limit = format!("{} megapixels", MAX_GIF_PIXELS / 1_000_000);
            return Err(MediaError::too_large(
                &reader.name,
                "gif size",
                found,
                limit,
            ));
        }
    }
    if total == 0 {
        return Err(MediaError::unexpected(
            &reader.name,
            "a gif with at least one frame",
            "none",
        ));
    }
    let (indices, fps) = reader.sample(total, total as f64 * 1000.0 / milliseconds);
    let mut chosen = Vec::with_capacity(indices.len());
    let mut wanted = indices.iter().peekable();
    for (index, frame) in open()?.0.enumerate() {
        let frame = frame.map_err(damaged)?;
        if wanted.next_if(|&&next| next == index).is_some() {
            let frame: RgbImage = super::image_file::paste_on_white(frame.buffer());
            chosen.push(reader.fit(&frame, indices.len())?);
        }
    }
    Ok(Video {
        frames: chosen,
        fps: Some(fps),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_count_by_value() {
        let mut names = [
            "f10.png", "f9.png", "f009.png", "f1a2", "f1a10", "a", "f", "é2", "é10", "f1",
        ];
        names.sort_by(|a, b| natural_order(a, b));
        assert_eq!(
            names,
            [
                "a", "f", "f1", "f1a2", "f1a10", "f009.png", "f9.png", "f10.png", "é2", "é10"
            ]
        );
    }
}
