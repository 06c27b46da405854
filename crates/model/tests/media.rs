//! The media doors on real files: every format, every refusal. The files and `fixtures/make.py`,
//! which made them, lie side by side.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};

use burn_omni_model::processor::media::{
    AudioConfig, ImageConfig, LogMelExtractor, MediaError, MediaProblem, Pcm, VideoConfig,
    image_patches, read_audio, read_audio_bytes, read_image, read_image_bytes, read_video,
    read_video_audio, resample, resize_bicubic, video_patches,
};
use image::{ImageEncoder, RgbImage};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(name)
}

fn image_config() -> ImageConfig {
    ImageConfig {
        min_pixels: 3136,
        max_pixels: 12_845_056,
        patch_size: 16,
        temporal_patch_size: 2,
        merge_size: 2,
        image_mean: [0.5; 3],
        image_std: [0.5; 3],
    }
}

/// The signal of the sound fixtures at `rate` Hz.
fn tone(samples: usize, rate: f64) -> Vec<f32> {
    let wave = |hz: f64, t: f64| (std::f64::consts::TAU * hz * t).sin();
    let sample = |t: f64| (0.4 * wave(440.0, t) + 0.2 * wave(1330.0, t)) as f32;
    (0..samples)
        .map(|index| sample(index as f64 / rate))
        .collect()
}

/// Signal-to-noise ratio in decibels over the samples in the middle, away from what codecs do at
/// the ends.
fn snr(expected: &[f32], found: &[f32]) -> f64 {
    let middle = expected.len() / 5..expected.len() * 4 / 5;
    let power = |values: &mut dyn Iterator<Item = f32>| -> f64 {
        values.map(|x| f64::from(x).powi(2)).sum()
    };
    let signal = power(&mut expected[middle.clone()].iter().copied());
    let noise = power(
        &mut expected[middle.clone()]
            .iter()
            .zip(&found[middle])
            .map(|(x, y)| x - y),
    );
    10.0 * (signal / noise.max(1e-30)).log10()
}

/// A picture of the fixtures as `make.py` describes it.
fn picture() -> RgbImage {
    RgbImage::from_fn(24, 16, |x, y| {
        image::Rgb([10 * x as u8, 15 * y as u8, 5 * (x + y) as u8])
    })
}

fn fnv(bytes: &[u8]) -> String {
    let step = |value: u64, byte: &u8| (value ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    format!("{:016x}", bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

fn wav(
    spec: hound::WavSpec,
    write: impl Fn(&mut hound::WavWriter<&mut std::io::Cursor<Vec<u8>>>),
) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut bytes, spec).unwrap();
    write(&mut writer);
    writer.finalize().unwrap();
    bytes.into_inner()
}

fn spec(channels: u16, bits_per_sample: u16, sample_format: hound::SampleFormat) -> hound::WavSpec {
    hound::WavSpec {
        channels,
        sample_rate: 16_000,
        bits_per_sample,
        sample_format,
    }
}

fn message(error: MediaError) -> String {
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

#[test]
fn every_sound_format_is_read_without_delay() {
    // What the lossy codecs lose of a tone is their own; one sample of delay would cost more than
    // these limits leave.
    for (name, least) in [
        ("tone.wav", 90.0),
        ("tone.flac", 90.0),
        ("tone.mp3", 20.0),
        ("tone.ogg", 15.0),
        ("tone.m4a", 12.0),
    ] {
        let pcm = read_audio(&fixture(name)).unwrap();
        assert_eq!(pcm.sample_rate, 16_000, "{name}");
        assert!(
            (2400..2400 + 1024).contains(&pcm.samples.len()),
            "{name}: {}",
            pcm.samples.len()
        );
        let found = snr(&tone(2400, 16_000.0), &pcm.samples);
        assert!(found > least, "{name}: {found:.1} dB");
        let bytes = std::fs::read(fixture(name)).unwrap();
        assert_eq!(read_audio_bytes(&bytes).unwrap(), pcm, "{name}");
    }
}

#[test]
fn wav_integers_become_fractions_of_full_scale() {
    let int = hound::SampleFormat::Int;
    let one = wav(spec(1, 16, int), |out| {
        [-32768i16, 16384, 1]
            .iter()
            .for_each(|&x| out.write_sample(x).unwrap())
    });
    assert_eq!(
        read_audio_bytes(&one).unwrap().samples,
        [-1.0, 0.5, 1.0 / 32768.0]
    );
    let eight = wav(spec(1, 8, int), |out| {
        [-128i8, 64]
            .iter()
            .for_each(|&x| out.write_sample(x).unwrap())
    });
    assert_eq!(read_audio_bytes(&eight).unwrap().samples, [-1.0, 0.5]);
    let wide = wav(spec(1, 24, int), |out| {
        [-(1 << 23), 1 << 22]
            .iter()
            .for_each(|&x: &i32| out.write_sample(x).unwrap())
    });
    assert_eq!(read_audio_bytes(&wide).unwrap().samples, [-1.0, 0.5]);
    let widest = wav(spec(1, 32, int), |out| {
        [i32::MIN, 1 << 30]
            .iter()
            .for_each(|&x| out.write_sample(x).unwrap())
    });
    assert_eq!(read_audio_bytes(&widest).unwrap().samples, [-1.0, 0.5]);
}

#[test]
fn channels_are_averaged() {
    let stereo = wav(spec(2, 16, hound::SampleFormat::Int), |out| {
        [16384i16, 0, -16384, -16384]
            .iter()
            .for_each(|&x| out.write_sample(x).unwrap());
    });
    assert_eq!(read_audio_bytes(&stereo).unwrap().samples, [0.25, -0.5]);
}

#[test]
fn a_sample_that_is_not_a_number_is_refused_with_its_time() {
    let float = wav(spec(1, 32, hound::SampleFormat::Float), |out| {
        (0..8000)
            .map(|i| if i == 7000 { f32::NAN } else { 0.0 })
            .for_each(|x| out.write_sample(x).unwrap());
    });
    let text = message(read_audio_bytes(&float).unwrap_err());
    assert!(text.contains("found NaN"), "{text}");
}

#[test]
fn what_is_not_sound_is_refused_by_name() {
    let empty = wav(spec(1, 16, hound::SampleFormat::Int), |_| ());
    let folder = tempfile::tempdir().unwrap();
    let cases: [(&str, &[u8], &str); 5] = [
        ("empty.wav", b"", "found an empty file"),
        (
            "text.wav",
            b"this is text, no sound",
            "found text starting \"this is text, no sound\"",
        ),
        ("zero.wav", &empty, "audio with at least one sample"),
        (
            "picture.wav",
            &std::fs::read(fixture("picture.png")).unwrap(),
            "found a png image",
        ),
        ("cut.wav", &empty[..30], "wav audio"),
    ];
    for (name, bytes, expected) in cases {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let text = message(read_audio(&path).unwrap_err());
        assert!(text.contains(name) && text.contains(expected), "{text}");
    }
    assert!(message(read_audio(folder.path()).unwrap_err()).contains("found a folder"));
    let missing = read_audio(&folder.path().join("none.wav")).unwrap_err();
    assert!(matches!(missing.problem, MediaProblem::Read(_)));
}

#[test]
fn sound_cut_off_in_the_middle_is_read_up_to_there() {
    let bytes = std::fs::read(fixture("tone.wav")).unwrap();
    let pcm = read_audio_bytes(&bytes[..bytes.len() / 2]).unwrap();
    assert!(
        (1000..1300).contains(&pcm.samples.len()),
        "{}",
        pcm.samples.len()
    );
}

#[test]
fn resampling_keeps_time_and_level() {
    for rate in [8_000u32, 11_025, 22_050, 24_000, 44_100, 48_000, 16_001] {
        let samples = rate as usize + 7;
        let pcm = Pcm {
            sample_rate: rate,
            samples: tone(samples, f64::from(rate)),
        };
        let found = resample(&pcm, 16_000).unwrap();
        assert_eq!(
            found.samples.len(),
            (samples * 16_000).div_ceil(rate as usize),
            "{rate}"
        );
        let expected = tone(found.samples.len(), 16_000.0);
        let ratio = snr(&expected, &found.samples);
        assert!(ratio > 95.0, "{rate} Hz: {ratio:.1} dB");
    }
}

#[test]
fn resampling_to_the_same_rate_is_a_copy_and_absurd_rates_are_refused() {
    let pcm = Pcm {
        sample_rate: 16_000,
        samples: tone(999, 16_000.0),
    };
    assert_eq!(resample(&pcm, 16_000).unwrap(), pcm);
    for rate in [0, 999, u32::MAX] {
        assert!(resample(&pcm, rate).is_err());
        assert!(
            resample(
                &Pcm {
                    sample_rate: rate,
                    samples: vec![0.0]
                },
                16_000
            )
            .is_err()
        );
    }
}

#[test]
fn one_sample_can_be_resampled_and_heard() {
    let pcm = Pcm {
        sample_rate: 44_100,
        samples: vec![0.5],
    };
    let one = resample(&pcm, 16_000).unwrap();
    assert_eq!(one.samples.len(), 1);
    let config = AudioConfig {
        feature_size: 128,
        hop_length: 160,
        n_fft: 400,
        sampling_rate: 16_000,
        dither: 0.0,
    };
    let mel = LogMelExtractor::new(&config).extract(&one).unwrap();
    assert_eq!((mel.mels, mel.frames, mel.data.len()), (128, 1, 128));
}

#[test]
fn every_picture_format_gives_the_same_pixels() {
    for name in ["picture.png", "picture.webp"] {
        assert_eq!(read_image(&fixture(name)).unwrap(), picture(), "{name}");
    }
    let gif = read_image(&fixture("moving.gif")).unwrap();
    assert_eq!(gif.dimensions(), (24, 16));
    // The jpeg says that it is to be turned right.
    let jpeg = read_image(&fixture("picture.jpg")).unwrap();
    assert_eq!(jpeg.dimensions(), (16, 24));
    let turned = image::imageops::rotate90(&picture());
    let furthest = jpeg
        .as_raw()
        .iter()
        .zip(turned.as_raw())
        .map(|(x, y)| x.abs_diff(*y))
        .max();
    assert!(furthest < Some(16), "{furthest:?}");
}

#[test]
fn alpha_lets_white_through_only_where_the_reference_does() {
    let alpha = read_image(&fixture("alpha.png")).unwrap();
    let expected = |value: u32, x: u32| {
        (f64::from(value * 10 * x + 255 * (255 - 10 * x)) / 255.0).round() as u8
    };
    for (x, y, pixel) in alpha.enumerate_pixels() {
        assert_eq!(
            pixel.0,
            [10 * x, 15 * y, 5 * (x + y)].map(|value| expected(value, x)),
            "{x}, {y}"
        );
    }
    let palette = read_image(&fixture("palette.png")).unwrap();
    let sum = std::fs::read_to_string(fixture("palette.fnv")).unwrap();
    assert_eq!(fnv(palette.as_raw()), sum.trim());
}

#[test]
fn sixteen_bit_pictures_keep_their_high_bytes() {
    let mut bytes = Vec::new();
    let samples: Vec<u8> = [0u16, 0x12ff, 0xfffe]
        .iter()
        .flat_map(|value| value.to_ne_bytes())
        .collect();
    let encoder = image::codecs::png::PngEncoder::new(&mut bytes);
    encoder
        .write_image(&samples, 3, 1, image::ExtendedColorType::L16)
        .unwrap();
    let image = read_image_bytes(&bytes).unwrap();
    assert_eq!(
        image.as_raw(),
        &[0, 0, 0, 0x12, 0x12, 0x12, 0xff, 0xff, 0xff]
    );
}

/// A png that claims a size and has no pixels.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut chunk = b"IHDR".to_vec();
    chunk.extend(width.to_be_bytes());
    chunk.extend(height.to_be_bytes());
    chunk.extend([8, 2, 0, 0, 0]);
    let crc = chunk.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 {
                (crc >> 1) ^ 0xedb8_8320
            } else {
                crc >> 1
            }
        })
    });
    [
        b"\x89PNG\r\n\x1a\n\0\0\0\x0d",
        chunk.as_slice(),
        &(!crc).to_be_bytes(),
        b"\0\0\0\0IDAT",
    ]
    .concat()
}

#[test]
fn what_is_not_a_picture_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let cases: [(&str, &[u8], &str); 6] = [
        ("empty.png", b"", "found an empty file"),
        (
            "text.png",
            b"this is text",
            "found text starting \"this is text\"",
        ),
        (
            "cut.png",
            &std::fs::read(fixture("picture.png")).unwrap()[..60],
            "damaged png image",
        ),
        (
            "sound.png",
            &std::fs::read(fixture("tone.flac")).unwrap(),
            "found flac audio",
        ),
        (
            "huge.png",
            &png_header(20_000, 20_000),
            "20000×20000 pixels, the limit is 100 megapixels",
        ),
        (
            "thin.png",
            &png_header(30_000, 10),
            "differ by at most 200 times, found 30000×10 pixels",
        ),
    ];
    for (name, bytes, expected) in cases {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let text = message(read_image(&path).unwrap_err());
        assert!(text.contains(name) && text.contains(expected), "{text}");
    }
}

#[test]
fn resizes_equal_the_reference_bit_for_bit() {
    #[derive(serde::Deserialize)]
    struct Case {
        from: [u32; 2],
        to: [u32; 2],
        fnv: String,
    }
    let text = std::fs::read_to_string(fixture("resizes.json")).unwrap();
    for case in serde_json::from_str::<Vec<Case>>(&text).unwrap() {
        let [height, width] = case.from;
        let mut state = 12345u32;
        let noise = (0..height * width * 3).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        });
        let image = RgbImage::from_raw(width, height, noise.collect()).unwrap();
        let resized = resize_bicubic(&image, case.to[1], case.to[0]);
        assert_eq!(
            fnv(resized.as_raw()),
            case.fnv,
            "{:?} to {:?}",
            case.from,
            case.to
        );
    }
}

#[test]
fn one_pixel_becomes_one_even_picture() {
    let image = RgbImage::from_pixel(1, 1, image::Rgb([255, 0, 51]));
    let patches = image_patches(&image, &image_config()).unwrap();
    assert_eq!((patches.grid, patches.token_count(2)), ([1, 4, 4], 4));
    let row = &patches.data[..3 * 2 * 256];
    for (colour, value) in [1.0, -1.0, (51.0 - 127.5) / 127.5].into_iter().enumerate() {
        assert!(
            row[colour * 512..(colour + 1) * 512]
                .iter()
                .all(|&found| found == value)
        );
    }
}

#[test]
fn a_gif_is_a_video_with_a_pace() {
    let (config, image) = (VideoConfig::default(), image_config());
    let video = read_video(&fixture("moving.gif"), &config, &image).unwrap();
    // 8 frames in 0.8 s are sampled at the fewest frames that are taken.
    assert_eq!((video.frames.len(), video.fps), (4, Some(5.0)));
    let patches = video_patches(&video, &config, &image).unwrap();
    assert_eq!(patches.patches.grid[0], 2);
    assert_eq!(patches.second_per_grid, 0.4);
}

#[test]
fn a_folder_of_frames_is_a_video_in_natural_order() {
    let folder = tempfile::tempdir().unwrap();
    for shade in [10u8, 9, 2, 100, 11] {
        let path = folder.path().join(format!("frame{shade}.png"));
        RgbImage::from_pixel(32, 32, image::Rgb([shade; 3]))
            .save(path)
            .unwrap();
    }
    std::fs::write(folder.path().join("notes.txt"), "not a frame").unwrap();
    let (config, image) = (VideoConfig::default(), image_config());
    let video = read_video(folder.path(), &config, &image).unwrap();
    let shades: Vec<u8> = video.frames.iter().map(|frame| frame.as_raw()[0]).collect();
    assert_eq!(shades, [2, 9, 10, 11, 100]);
    let patches = video_patches(&video, &config, &image).unwrap();
    assert_eq!(
        (patches.patches.grid, patches.second_per_grid),
        ([3, 24, 24], 1.0)
    );
    // The last frame stands twice in the last step.
    let last = &patches.patches.data[patches.patches.data.len() - 512..];
    assert_eq!(last[..256], last[256..]);

    RgbImage::new(33, 32)
        .save(folder.path().join("frame5.png"))
        .unwrap();
    let text = message(read_video(folder.path(), &config, &image).unwrap_err());
    assert!(
        text.contains("frame5.png") && text.contains("32×32") && text.contains("33×32"),
        "{text}"
    );
}

#[test]
fn what_is_not_a_video_is_refused_by_name() {
    let (config, image) = (VideoConfig::default(), image_config());
    let folder = tempfile::tempdir().unwrap();
    let text = message(read_video(folder.path(), &config, &image).unwrap_err());
    assert!(
        text.contains("a folder with png, jpeg or webp frames"),
        "{text}"
    );
    let path = folder.path().join("clip.mp4");
    std::fs::write(&path, "no video").unwrap();
    let text = message(read_video(&path, &config, &image).unwrap_err());
    assert!(
        text.contains("clip.mp4") && text.contains("found text"),
        "{text}"
    );
}

/// Runs `ffmpeg`; false when it is not installed, and the test then has nothing to say.
fn ffmpeg(arguments: &[&str], output: &Path) -> bool {
    let run = std::process::Command::new("ffmpeg")
        .args(["-v", "error", "-y"])
        .args(arguments)
        .arg(output)
        .status();
    run.is_ok_and(|status| status.success())
}

#[test]
fn other_videos_come_through_ffmpeg_with_their_sound() {
    let folder = tempfile::tempdir().unwrap();
    // A name that a shell or an option parser would stumble over.
    let path = folder.path().join("-i $(x) 'y'.mp4");
    let picture = [
        "-f",
        "lavfi",
        "-i",
        "testsrc=duration=3:size=320x240:rate=10",
    ];
    let sound = [
        "-f",
        "lavfi",
        "-i",
        "sine=frequency=440:duration=3:sample_rate=48000",
        "-shortest",
    ];
    let codecs = ["-c:v", "mpeg4", "-c:a", "aac"];
    if !ffmpeg(&[&picture[..], &sound, &codecs].concat(), &path) {
        return;
    }
    let (config, image) = (VideoConfig::default(), image_config());
    let video = read_video(&path, &config, &image).unwrap();
    assert_eq!((video.frames.len(), video.fps), (6, Some(2.0)));
    assert_eq!(video.frames[0].dimensions(), (448, 320));
    assert_ne!(video.frames[0], video.frames[5]);
    let pcm = read_video_audio(&path).unwrap().unwrap();
    assert_eq!(pcm.sample_rate, 48_000);
    assert!((pcm.seconds() - 3.0).abs() < 0.1, "{}", pcm.seconds());

    let bytes = std::fs::read(&path).unwrap();
    let broken = folder.path().join("broken.mp4");
    std::fs::write(&broken, &bytes[..bytes.len() / 3]).unwrap();
    let error = read_video(&broken, &config, &image).unwrap_err();
    assert!(
        matches!(error.problem, MediaProblem::ProgramFailed { .. }),
        "{error}"
    );
    assert!(message(error).contains("broken.mp4"));
}
