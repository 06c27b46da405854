//! The harness draws what the golden values were made from.

use burn_omni_model::processor::MediaInput;
use burn_omni_tests::tiny::{Case, Generator, Part, golden, media};

#[test]
fn the_weights_are_the_manifests() {
    let generator = Generator::load();
    let (mut count, mut checksum) = (0_u64, 0_u64);
    for (name, _, bits) in generator.draw() {
        for x in &bits {
            count += 1;
            checksum = checksum.wrapping_add(count.wrapping_mul(u64::from(*x)));
        }
        if let Some(first) = generator.first_values.get(name) {
            let drawn: Vec<String> = bits[..first.len()]
                .iter()
                .map(|x| format!("{x:04x}"))
                .collect();
            assert_eq!(&drawn, first, "{name}");
        }
    }
    assert_eq!(count, generator.parameters);
    assert_eq!(format!("{checksum:016x}"), generator.checksum);
}

#[test]
fn the_media_are_the_references() {
    for check in &golden().media {
        let values: Vec<i64> = match check.part {
            Part::Audio { samples, seed } => media::audio(samples, seed)
                .into_iter()
                .map(i64::from)
                .collect(),
            Part::Image {
                height,
                width,
                seed,
            } => bytes([media::image(height, width, seed)]),
            Part::Video {
                frames,
                height,
                width,
                seed,
            } => bytes(media::video(frames, height, width, seed)),
            Part::Text { .. } => panic!("text is not a medium"),
        };
        assert_eq!(values[..check.first.len()], check.first, "{:?}", check.part);
        let sum: i64 = (1..).zip(&values).map(|(i, x)| i * x).sum();
        assert_eq!(sum, check.checksum, "{:?}", check.part);
    }
}

#[test]
fn every_medium_of_every_case_is_drawn() {
    let media = |case: &Case| case.conversation().media().count();
    let all: usize = golden().cases.values().map(media).sum();
    assert_eq!((golden().cases.len(), all), (13, 17));
    let film = &golden().cases["video-audio"].conversation();
    let with_sound =
        |(_, medium): (_, &MediaInput)| matches!(medium, MediaInput::Video(_, Some(_)));
    assert!(film.media().any(with_sound));
}

fn bytes(frames: impl IntoIterator<Item = image::RgbImage>) -> Vec<i64> {
    let values = frames.into_iter().flat_map(image::RgbImage::into_raw);
    values.map(i64::from).collect()
}
