//! Image files to 8-bit RGB: png, jpeg, webp, and the first frame of a gif.
//!
//! Followed is the flow of the reference's helper library for opening a file: RGBA is pasted on
//! white, every other kind is converted as Pillow's `convert("RGB")` does it, which drops
//! transparency (grey with alpha, palettes, gifs). Unlike there, and like transformers'
//! `load_image`, the EXIF orientation is applied. 16-bit channels keep their high byte; for 16-bit
//! grey that differs from Pillow, which cuts everything above 255 off and returns a white image.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage, RgbaImage};

use super::content::describe;
use super::error::{MediaError, display};
use super::guard::guarded;
use super::patches::check_aspect;

/// Most pixels of an image that is decoded.
pub const MAX_IMAGE_PIXELS: u64 = 100_000_000;
/// Most bytes of an image file that are read.
pub const MAX_IMAGE_BYTES: u64 = 256 << 20;

const EXPECTED: &str = "a png, jpeg, webp or gif image";

/// Reads an image file as RGB; the content decides the format, not the extension.
///
/// # Errors When the file cannot be read, is not one of the four formats, is damaged, has more than
/// [`MAX_IMAGE_PIXELS`] or sides that differ by more than the processor takes.
pub fn read_image(path: &Path) -> Result<RgbImage, MediaError> {
    let name = display(path);
    decode_image(&read_file(path, EXPECTED)?, &name)
}

/// Reads an image from the bytes of a file; see [`read_image`]. Errors call them `image bytes`.
///
/// # Errors
/// As [`read_image`].
pub fn read_image_bytes(bytes: &[u8]) -> Result<RgbImage, MediaError> {
    decode_image(bytes, "image bytes")
}

/// The bytes of a file that is not larger than [`MAX_IMAGE_BYTES`].
pub(super) fn read_file(path: &Path, expected: &str) -> Result<Vec<u8>, MediaError> {
    let name = display(path);
    let file = File::open(path).map_err(|error| MediaError::read(&name, error))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(MediaError::unexpected(name, expected, "a folder"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_IMAGE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| MediaError::read(&name, error))?;
    if bytes.len() as u64 > MAX_IMAGE_BYTES {
        let (found, limit) = ("more".to_owned(), format!("{} MiB", MAX_IMAGE_BYTES >> 20));
        return Err(MediaError::too_large(name, "file size", found, limit));
    }
    Ok(bytes)
}

fn decode_image(bytes: &[u8], name: &str) -> Result<RgbImage, MediaError> {
    let format = match image::guess_format(bytes) {
        Ok(
            format @ (ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP | ImageFormat::Gif),
        ) => format,
        _ => return Err(MediaError::unexpected(name, EXPECTED, describe(bytes))),
    };
    guarded(name, &describe(bytes), || decode(bytes, format, name))
}

fn decode(bytes: &[u8], format: ImageFormat, name: &str) -> Result<RgbImage, MediaError> {
    let damaged = |error: image::ImageError| MediaError::damaged(name, describe(bytes), error);
    let reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    check_size(name, width, height)?;
    // A damaged EXIF block says nothing about the pixels.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    image.apply_orientation(orientation);
    Ok(to_rgb(image, has_alpha(format, bytes)))
}

/// Refuses a size before anything is allocated for it.
pub(super) fn check_size(name: &str, width: u32, height: u32) -> Result<(), MediaError> {
    if width == 0 || height == 0 {
        return Err(MediaError::unexpected(
            name,
            "an image of at least 1×1 pixels",
            format!("{width}×{height}"),
        ));
    }
    if u64::from(width) * u64::from(height) > MAX_IMAGE_PIXELS {
        let found = format!("{width}×{height} pixels");
        let limit = format!("{} megapixels", MAX_IMAGE_PIXELS / 1_000_000);
        return Err(MediaError::too_large(name, "image size", found, limit));
    }
    check_aspect(name, width as usize, height as usize)
}

/// Whether Pillow would open this file in mode RGBA.
fn has_alpha(format: ImageFormat, bytes: &[u8]) -> bool {
    /// Where a png says its colour type, and the type that is RGB with alpha.
    const PNG_COLOR_TYPE: (usize, u8) = (25, 6);
    match format {
        ImageFormat::WebP => true,
        ImageFormat::Png => bytes.get(PNG_COLOR_TYPE.0) == Some(&PNG_COLOR_TYPE.1),
        _ => false,
    }
}

/// RGB of a decoded image; with `paste` its alpha lets white through, else alpha is dropped.
fn to_rgb(image: DynamicImage, paste: bool) -> RgbImage {
    let high = |value: &u16| (value >> 8) as u8;
    let eight_bit = match image {
        DynamicImage::ImageLuma16(image) => DynamicImage::ImageLuma8(map_samples(&image, high)),
        DynamicImage::ImageLumaA16(image) => DynamicImage::ImageLumaA8(map_samples(&image, high)),
        DynamicImage::ImageRgb16(image) => DynamicImage::ImageRgb8(map_samples(&image, high)),
        DynamicImage::ImageRgba16(image) => DynamicImage::ImageRgba8(map_samples(&image, high)),
        image => image,
    };
    match eight_bit {
        DynamicImage::ImageRgba8(image) if paste => paste_on_white(&image),
        image => image.into_rgb8(),
    }
}

/// An image of the same size with every sample mapped.
fn map_samples<P, Q>(
    image: &image::ImageBuffer<P, Vec<P::Subpixel>>,
    map: impl Fn(&P::Subpixel) -> Q::Subpixel,
) -> image::ImageBuffer<Q, Vec<Q::Subpixel>>
where
    P: image::Pixel,
    Q: image::Pixel,
{
    let samples = image.as_raw().iter().map(map).collect();
    image::ImageBuffer::from_raw(image.width(), image.height(), samples)
        .expect("the same channels and size hold as many samples")
}

/// Alpha over white in Pillow's integer arithmetic.
pub(super) fn paste_on_white(image: &RgbaImage) -> RgbImage {
    let blend = |value: u8, alpha: u8| {
        let sum = 255 * (255 - u32::from(alpha)) + u32::from(value) * u32::from(alpha) + 128;
        ((sum + (sum >> 8)) >> 8) as u8
    };
    let pixel = |pixel: &image::Rgba<u8>| {
        let [r, g, b, alpha] = pixel.0;
        [blend(r, alpha), blend(g, alpha), blend(b, alpha)]
    };
    let samples = image.pixels().flat_map(pixel).collect();
    RgbImage::from_raw(image.width(), image.height(), samples)
        .expect("three samples were written for each pixel")
}
