//! No bytes make a media door panic: arbitrary ones, and real files with some of their bytes
//! changed or cut off.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::sync::LazyLock;

use burn_omni_model::processor::media::{
    LogMelExtractor, MediaConfig, Pcm, PixelLimits, VideoConfig, image_patches, read_audio_bytes,
    read_image_bytes, read_video, resample, smart_resize,
};
use proptest::prelude::*;

const FILES: [&str; 11] = [
    "tone.wav",
    "tone.flac",
    "tone.mp3",
    "tone.ogg",
    "tone.m4a",
    "picture.png",
    "picture.webp",
    "picture.jpg",
    "alpha.png",
    "palette.png",
    "moving.gif",
];

const CONFIG: &str = r#"{
    "feature_size": 80, "hop_length": 160, "n_fft": 400, "sampling_rate": 16000,
    "min_pixels": 3136, "max_pixels": 65536, "patch_size": 16, "temporal_patch_size": 2,
    "merge_size": 2, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}"#;

/// Usual sample rates in Hz, the lowest and highest that are taken, and two that share no factor
/// with 16,000.
const RATES: [u32; 11] = [
    1_000, 8_000, 11_025, 16_000, 16_001, 22_050, 24_000, 44_100, 47_999, 48_000, 768_000,
];

static SEEDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    FILES
        .iter()
        .map(|name| std::fs::read(folder.join(name)).unwrap())
        .collect()
});

/// A real file with up to eight bytes changed, a stretch of it doubled or dropped, or its end cut
/// off.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8);
    let head_changes = prop::collection::vec((0usize..128, any::<u8>()), 0..4);
    (
        0..FILES.len(),
        changes,
        head_changes,
        any::<prop::sample::Index>(),
        0..4,
    )
        .prop_map(|(file, changes, head_changes, at, how)| {
            let mut bytes = SEEDS[file].clone();
            for (index, byte) in changes {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
            for (index, byte) in head_changes {
                if let Some(place) = bytes.get_mut(index) {
                    *place = byte;
                }
            }
            let at = at.index(bytes.len());
            match how {
                0 => bytes.truncate(at),
                1 => drop(bytes.drain(at..(at + 9).min(SEEDS[file].len()))),
                2 => bytes.extend_from_within(at..),
                _ => {}
            }
            bytes
        })
}

/// Every door on the same bytes.
fn all_doors(bytes: &[u8]) {
    if let Ok(pcm) = read_audio_bytes(bytes) {
        assert!(!pcm.samples.is_empty() && pcm.samples.iter().all(|sample| sample.is_finite()));
    }
    if let Ok(image) = read_image_bytes(bytes) {
        assert!(image.width() > 0 && image.height() > 0);
    }
    let image = MediaConfig::from_json(CONFIG).unwrap().image;
    if bytes.starts_with(b"GIF8") {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gif");
        std::fs::write(&path, bytes).unwrap();
        let config = VideoConfig {
            min_pixels: 4096,
            max_pixels: 1 << 14,
            ..VideoConfig::default()
        };
        let _ = read_video(&path, &config, &image);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(512),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        all_doors(&bytes);
    }

    #[test]
    fn changed_files_never_panic(bytes in mutated()) {
        all_doors(&bytes);
    }

    #[test]
    fn any_samples_have_features(
        samples in prop::collection::vec(-1e30f32..1e30, 1..2000),
        rate in prop::sample::select(RATES.as_slice()),
    ) {
        let pcm = resample(&Pcm { sample_rate: rate, samples }, 16_000).unwrap();
        let config = MediaConfig::from_json(CONFIG).unwrap();
        let mel = LogMelExtractor::new(&config.audio).extract(&pcm).unwrap();
        prop_assert_eq!(mel.frames, (pcm.samples.len() / 160).max(1));
        prop_assert!(mel.data.iter().all(|value| value.is_finite()));
    }

    #[test]
    fn any_size_is_resized_into_the_limits(height in 1usize..9000, width in 1usize..9000) {
        let limits = PixelLimits { factor: 32, min_pixels: 3136, max_pixels: 12_845_056 };
        if let Ok((h, w)) = smart_resize(height, width, limits) {
            prop_assert!(h % 32 == 0 && w % 32 == 0 && h * w >= 3136 && h * w <= 12_845_056);
            // Rounding can push the sides of an extreme picture past what is taken.
            if h.max(w) <= 200 * h.min(w) {
                prop_assert_eq!(smart_resize(h, w, limits).unwrap(), (h, w));
            }
        }
    }

    #[test]
    fn any_small_picture_is_cut_into_its_grid(height in 1u32..90, width in 1u32..90) {
        let config = MediaConfig::from_json(CONFIG).unwrap();
        let patches = image_patches(&image::RgbImage::new(width, height), &config.image).unwrap();
        prop_assert_eq!(patches.data.len(), patches.rows() * 1536);
        prop_assert!(patches.data.iter().all(|&value| value == -1.0));
    }
}
