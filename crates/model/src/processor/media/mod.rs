//! Media files to the numbers the towers take: sound to log-mel, images and videos to patches.
//!
//! Each step is held to the reference processor of transformers (spec C.1, C.2, D.1, D.2); where
//! the reference has two ways, the module says which one is followed.

mod audio_file;
mod config;
mod content;
mod edit_list;
mod error;
mod ffmpeg;
mod frames;
mod guard;
mod image_file;
mod mel;
mod patches;
mod pcm;
mod resize;
mod video;

pub use audio_file::{MAX_AUDIO_SAMPLES, MAX_AUDIO_SECONDS, read_audio, read_audio_bytes};
pub use config::{AudioConfig, ImageConfig, MediaConfig};
pub use error::{MediaError, MediaProblem};
pub use ffmpeg::read_video_audio;
pub use image_file::{MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS, read_image, read_image_bytes};
pub use mel::{LogMel, LogMelExtractor, audio_token_count};
pub use patches::{MAX_ASPECT, Patches, PixelLimits, image_patches, smart_resize};
pub use pcm::{Pcm, SAMPLE_RATES, resample};
pub use resize::resize_bicubic;
pub use video::{
    MAX_VIDEO_PIXELS, Video, VideoConfig, VideoPatches, read_video, sample_frames, video_patches,
};
