//! Videos to frames and patches (spec D.2).
//!
//! Followed is the flow that the model was evaluated with, without its double resize: frames are
//! chosen as the reference's helper library chooses them (2 a second, spread evenly from the first
//! to the last), then resized once with the video processor's own limits. Of the latter's options
//! the cap over the whole video is off, as it is by default in transformers 5.17; see
//! [`VideoConfig::cap_pixels`].

use std::borrow::Cow;
use std::path::Path;

use image::RgbImage;

use super::config::ImageConfig;
use super::content::describe;
use super::error::{MediaError, display};
use super::patches::{Patches, PixelLimits, cut, fit, smart_resize};
use super::{ffmpeg, frames};

/// Most pixels of all frames of a video together, after the resize.
///
/// Twice as many as fill the 65,536 positions of the published model; above it a video is refused
/// before memory is.
pub const MAX_VIDEO_PIXELS: usize = 1 << 28;

/// What the doors for videos take.
pub(super) const EXPECTED: &str = "a video, a gif or a folder of frames";

/// The cap of the reference's helper library: tokens of context of which a video may take nine
/// tenths.
const CAP_TOKENS: f64 = 128_000.0;
const CAP_SHARE: f64 = 0.9;
/// How far above the fewest pixels of a frame the cap stays at least.
const CAP_FLOOR: f64 = 1.05;

/// How frames are chosen and resized.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoConfig {
    /// Frames a second that are taken; also the rate that a folder of frames is believed to have.
    pub fps: f64,
    /// Fewest frames that are taken, unless the video has fewer.
    pub min_frames: usize,
    /// Most frames that are taken.
    pub max_frames: usize,
    /// Fewest pixels of a frame after the resize.
    pub min_pixels: usize,
    /// Most pixels of a frame after the resize.
    pub max_pixels: usize,
    /// Pixels of all frames together are kept below nine tenths of 128,000 tokens, as the helper
    /// library does and transformers will by default.
    pub cap_pixels: bool,
}

impl Default for VideoConfig {
    /// The reference's values: 2 frames a second, 4 to 768 of them, 128 to 768 tokens a frame of
    /// 32² pixels a token.
    fn default() -> Self {
        Self {
            fps: 2.0,
            min_frames: 4,
            max_frames: 768,
            min_pixels: 128 * 32 * 32,
            max_pixels: 768 * 32 * 32,
            cap_pixels: false,
        }
    }
}

impl VideoConfig {
    /// Checks each field.
    ///
    /// # Errors
    /// When a field has a value that cannot work, naming it.
    pub fn validate(&self) -> Result<(), MediaError> {
        let refuse = |expected: &str, found: String| {
            Err(MediaError::unexpected("video settings", expected, found))
        };
        if !(self.fps > 0.0 && self.fps.is_finite()) {
            return refuse("fps above 0", self.fps.to_string());
        }
        if self.max_frames == 0 || self.min_frames > self.max_frames {
            return refuse(
                "min_frames up to max_frames, and those above 0",
                format!("{} and {}", self.min_frames, self.max_frames),
            );
        }
        if self.min_pixels == 0 || self.min_pixels > self.max_pixels {
            return refuse(
                "min_pixels above 0 and up to max_pixels",
                format!("{} and {}", self.min_pixels, self.max_pixels),
            );
        }
        Ok(())
    }

    /// Limits of one frame of a video of which `frames` are taken.
    fn limits(&self, frames: usize, image: &ImageConfig) -> PixelLimits {
        let factor = image.factor();
        let mut max_pixels = self.max_pixels;
        if self.cap_pixels {
            let total = (CAP_TOKENS * (factor * factor) as f64 * CAP_SHARE) as usize;
            let share = total * image.temporal_patch_size / frames.max(1);
            let floor = (self.min_pixels as f64 * CAP_FLOOR) as usize;
            max_pixels = max_pixels.min(share).max(floor);
        }
        PixelLimits {
            factor,
            min_pixels: self.min_pixels,
            max_pixels,
        }
    }
}

/// Chosen frames of a video, resized to whole patches.
#[derive(Debug, Clone, PartialEq)]
pub struct Video {
    /// Frames in time order, all of one size.
    pub frames: Vec<RgbImage>,
    /// Frames a second as they are here, after the choice; `None` where nothing says it.
    pub fps: Option<f64>,
}

/// Patches of a video and their pace.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoPatches {
    /// The patches; a step of the grid in time holds `temporal_patch_size` frames.
    pub patches: Patches,
    /// Seconds from one step in time to the next: `temporal_patch_size / fps` with the pace of the
    /// chosen frames, so that positions follow physical time. The reference's own default call
    /// takes 1 frame a second whatever the video is (spec G.4); to follow it, overwrite this with
    /// `temporal_patch_size`.
    pub second_per_grid: f64,
}

/// Reads a video: a folder of frames, a gif, or any file that FFmpeg decodes.
///
/// - A folder's png, jpeg and webp files in natural order (`2` before `10`) are all taken, as
///   frames of one size.
/// - A gif's frames are chosen by [`sample_frames`]; its delays say its pace.
/// - Any other file goes through the programs `ffprobe` and `ffmpeg`.
///
/// # Errors When the path cannot be read, is not a video, is damaged or too large, or a program is
/// needed and missing.
pub fn read_video(
    path: &Path,
    config: &VideoConfig,
    image: &ImageConfig,
) -> Result<Video, MediaError> {
    let reader = FrameReader {
        name: display(path),
        config,
        image,
    };
    if path.is_dir() {
        return frames::read_folder(path, &reader);
    }
    let head = frames::read_head(path)?;
    let found = describe(&head);
    // Ogg may hold either.
    let is_audio = found.ends_with(" audio") && found != "ogg audio";
    if head.is_empty() || is_audio || found.starts_with("text ") {
        return Err(MediaError::unexpected(reader.name, EXPECTED, found));
    }
    if found == "a gif image" {
        return frames::read_gif(path, &reader);
    }
    ffmpeg::read_video(path, &reader)
}

/// Cuts the frames of a video into patches.
///
/// `config` says the pace where the video does not. An odd number of frames is made even by
/// repeating the last one.
///
/// # Errors When there are no frames, they differ in size, or their sides differ by more than the
/// processor takes.
pub fn video_patches(
    video: &Video,
    config: &VideoConfig,
    image: &ImageConfig,
) -> Result<VideoPatches, MediaError> {
    let reader = FrameReader {
        name: "video".into(),
        config,
        image,
    };
    let Some(first) = video.frames.first() else {
        return Err(MediaError::unexpected(
            "video",
            "at least one frame",
            "none",
        ));
    };
    for frame in &video.frames {
        FrameReader::check_same_size(first.dimensions(), frame.dimensions(), "video")?;
    }
    let limits = config.limits(video.frames.len(), image);
    let frames: Vec<Cow<'_, RgbImage>> = if fits(first, limits) {
        video.frames.iter().map(Cow::Borrowed).collect()
    } else {
        let fit = |frame| reader.fit(frame, video.frames.len()).map(Cow::Owned);
        video.frames.iter().map(fit).collect::<Result<_, _>>()?
    };
    let patches = cut(&frames.iter().map(AsRef::as_ref).collect::<Vec<_>>(), image);
    let fps = video.fps.unwrap_or(config.fps);
    Ok(VideoPatches {
        patches,
        second_per_grid: image.temporal_patch_size as f64 / fps,
    })
}

/// Whether a frame needs no resize, as the ones of [`read_video`] do not.
///
/// They are not resized again: rounding can push the sides of an extreme frame past what a resize
/// takes.
fn fits(frame: &RgbImage, limits: PixelLimits) -> bool {
    let (width, height) = (frame.width() as usize, frame.height() as usize);
    let whole = width.is_multiple_of(limits.factor) && height.is_multiple_of(limits.factor);
    whole && (limits.min_pixels..=limits.max_pixels).contains(&(width * height))
}

/// Which frames of a video are taken, and how many a second these are.
///
/// As the reference's helper library: `total / fps · config.fps` frames, kept between the limits,
/// rounded down to a multiple of `frame_factor` (`temporal_patch_size`), spread evenly from the
/// first to the last. Fewer frames than `frame_factor`, which the library refuses, are all taken.
pub fn sample_frames(
    total: usize,
    fps: f64,
    config: &VideoConfig,
    frame_factor: usize,
) -> (Vec<usize>, f64) {
    if total < frame_factor {
        return ((0..total).collect(), fps);
    }
    let floor = |frames: f64| (frames / frame_factor as f64).floor() as usize * frame_factor;
    let most = floor(config.max_frames.min(total) as f64).max(frame_factor);
    let least = config.min_frames.next_multiple_of(frame_factor);
    let wanted = total as f64 / fps * config.fps;
    let count = floor(wanted.max(least as f64).min(most as f64)).max(frame_factor);
    let indices = (0..count)
        .map(|index| spread(index, count, total - 1))
        .collect();
    (indices, count as f64 / total as f64 * fps)
}

/// Element `index` of `count` numbers evenly spread over `0..=last`, rounded.
///
/// In the arithmetic of the reference's `linspace`, which is `f32` and counts from the nearer end:
/// in long videos other arithmetic rounds to other frames.
fn spread(index: usize, count: usize, last: usize) -> usize {
    let step = last as f32 / (count - 1).max(1) as f32;
    let exact = if index < count / 2 {
        step * index as f32
    } else {
        last as f32 - step * (count - 1 - index) as f32
    };
    (exact.round_ties_even() as usize).min(last)
}

/// What each way of reading frames needs to know.
pub(super) struct FrameReader<'a> {
    /// What errors call the video.
    pub(super) name: String,
    pub(super) config: &'a VideoConfig,
    pub(super) image: &'a ImageConfig,
}

impl FrameReader<'_> {
    /// [`sample_frames`] for this reader.
    pub(super) fn sample(&self, total: usize, fps: f64) -> (Vec<usize>, f64) {
        sample_frames(total, fps, self.config, self.image.temporal_patch_size)
    }

    /// One of `total` frames, resized; refused when all of them would be too much.
    pub(super) fn fit(&self, frame: &RgbImage, total: usize) -> Result<RgbImage, MediaError> {
        let limits = self.config.limits(total, self.image);
        let (height, width) = smart_resize(frame.height() as usize, frame.width() as usize, limits)
            .map_err(|error| error.named(&self.name))?;
        if height * width * total > MAX_VIDEO_PIXELS {
            let found = format!("{total} frames of {width}×{height}");
            let limit = format!("{} megapixels", MAX_VIDEO_PIXELS / 1_000_000);
            return Err(MediaError::too_large(
                &self.name,
                "video size",
                found,
                limit,
            ));
        }
        fit(frame, limits)
    }

    /// Refuses frame `name` when its size (width, height) is not that of the first one.
    pub(super) fn check_same_size(
        expected: (u32, u32),
        found: (u32, u32),
        name: &str,
    ) -> Result<(), MediaError> {
        if expected == found {
            return Ok(());
        }
        let expected = format!(
            "a frame of {}×{} pixels like the first",
            expected.0, expected.1
        );
        Err(MediaError::unexpected(
            name,
            expected,
            format!("{}×{}", found.0, found.1),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indices(total: usize, fps: f64) -> Vec<usize> {
        sample_frames(total, fps, &VideoConfig::default(), 2).0
    }

    #[test]
    fn frames_are_those_of_the_reference() {
        // Written by the helper library's own formula with torch.
        let twenty = [
            0, 16, 31, 47, 63, 79, 94, 110, 126, 142, 157, 173, 189, 205, 220, 236, 252, 268, 283,
            299,
        ];
        assert_eq!(indices(300, 30.0), twenty);
        assert_eq!(indices(75, 25.0), [0, 15, 30, 44, 59, 74]);
        assert_eq!(indices(30, 30.0), [0, 10, 19, 29]);
        assert_eq!(indices(5, 30.0), [0, 1, 3, 4]);
        assert_eq!(indices(4, 1.0), [0, 1, 2, 3]);
        assert_eq!(indices(3, 24.0), [0, 2]);
        assert_eq!(indices(2, 30.0), [0, 1]);
        assert_eq!(indices(100_000, 30.0).len(), 768);
    }

    #[test]
    fn fewer_frames_than_a_patch_holds_are_all_taken() {
        assert_eq!(indices(1, 30.0), [0]);
        assert!(indices(0, 30.0).is_empty());
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let default = VideoConfig::default;
        assert!(default().validate().is_ok());
        for config in [
            VideoConfig {
                fps: 0.0,
                ..default()
            },
            VideoConfig {
                fps: f64::NAN,
                ..default()
            },
            VideoConfig {
                max_frames: 3,
                ..default()
            },
            VideoConfig {
                min_pixels: 1 << 20,
                ..default()
            },
        ] {
            assert!(config.validate().is_err(), "{config:?}");
        }
    }

    #[test]
    fn the_pace_is_that_of_the_chosen_frames() {
        let (frames, fps) = sample_frames(300, 30.0, &VideoConfig::default(), 2);
        assert_eq!((frames.len(), fps), (20, 2.0));
    }

    #[test]
    fn the_cap_shares_one_budget_between_all_frames() {
        let image = ImageConfig {
            min_pixels: 3136,
            max_pixels: 12_845_056,
            patch_size: 16,
            temporal_patch_size: 2,
            merge_size: 2,
            image_mean: [0.5; 3],
            image_std: [0.5; 3],
        };
        let mut config = VideoConfig::default();
        assert_eq!(config.limits(768, &image).max_pixels, 786_432);
        config.cap_pixels = true;
        assert_eq!(config.limits(20, &image).max_pixels, 786_432);
        assert_eq!(config.limits(768, &image).max_pixels, 117_964_800 * 2 / 768);
        assert_eq!(config.limits(5000, &image).max_pixels, 137_625);
    }
}
