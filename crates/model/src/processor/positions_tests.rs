use proptest::prelude::*;

use super::*;
use crate::processor::reference_fixture::{demo_dir, media, runs, section, special_tokens};
use crate::processor::{Grid, Tokenizer, expand};

const TOKENS: SpecialTokens = SpecialTokens {
    audio: 1,
    image: 2,
    video: 3,
    audio_start: 4,
    audio_end: 5,
    vision_start: 6,
    vision_end: 7,
    position_id_per_seconds: 13.0,
    spatial_merge_size: 2,
};

fn image(h: usize, w: usize) -> Medium {
    Medium::Image {
        grid: Grid { t: 1, h, w },
    }
}

fn video(t: usize, h: usize, w: usize, audio_tokens: Option<usize>) -> Medium {
    Medium::Video {
        grid: Grid { t, h, w },
        second_per_grid: 1.0,
        audio_tokens,
    }
}

/// Positions of `before` plain tokens, the media with their start and end tokens, `after` plain
/// tokens.
fn laid_out(before: usize, media: &[Medium], after: usize) -> Positions {
    let mut ids = vec![100; before];
    for medium in media {
        match medium.kind() {
            MediaKind::Audio => ids.extend([4, 1, 5]),
            MediaKind::Image => ids.extend([6, 2, 7]),
            MediaKind::Video => ids.extend([6, 3, 7]),
        }
    }
    ids.extend(vec![100; after]);
    let prompt = expand(&ids, media, &TOKENS).unwrap();
    positions(&prompt.ids, media, &TOKENS).unwrap()
}

/// Text as one number a token.
fn same(range: std::ops::RangeInclusive<usize>) -> Vec<[f32; 3]> {
    range.map(|position| [position as f32; 3]).collect()
}

/// Rows of one step in time.
fn frame(t: usize, start: usize, rows: usize, columns: usize) -> Vec<[f32; 3]> {
    let cell = |index: usize| {
        [
            t as f32,
            (start + index / columns) as f32,
            (start + index % columns) as f32,
        ]
    };
    (0..rows * columns).map(cell).collect()
}

fn assert_positions(found: &Positions, expected: &[Vec<[f32; 3]>], delta: f32) {
    let expected = expected.concat();
    let found_thw: Vec<[f32; 3]> = found
        .t
        .iter()
        .zip(&found.h)
        .zip(&found.w)
        .map(|((t, h), w)| [*t, *h, *w])
        .collect();
    assert_eq!(found_thw, expected);
    assert_eq!(found.delta, delta);
}

#[test]
fn text_alone_counts_up() {
    let found = positions(&[100, 101, 102], &[], &TOKENS).unwrap();
    assert_positions(&found, &[same(0..=2)], 0.0);
    assert_eq!(found.decoded(3), 3.0);
    assert_positions(&positions(&[], &[], &TOKENS).unwrap(), &[], 0.0);
}

#[test]
fn image_between_text() {
    let found = laid_out(3, &[image(4, 6)], 2);
    assert_positions(&found, &[same(0..=3), frame(4, 4, 2, 3), same(7..=9)], -3.0);
    assert_eq!(found.decoded(13), 10.0);
}

#[test]
fn audio_then_image() {
    let found = laid_out(3, &[Medium::Audio { tokens: 3 }, image(4, 4)], 2);
    assert_positions(
        &found,
        &[same(0..=8), frame(9, 9, 2, 2), same(11..=13)],
        -2.0,
    );
}

#[test]
fn video_steps_by_seconds() {
    let found = laid_out(3, &[video(2, 4, 4, None)], 2);
    let steps = [frame(4, 4, 2, 2), frame(17, 4, 2, 2)].concat();
    assert_positions(&found, &[same(0..=3), steps, same(18..=20)], 6.0);
}

#[test]
fn video_with_sound_that_outlasts_it() {
    let found = laid_out(3, &[video(2, 4, 4, Some(16))], 2);
    let steps = [
        frame(5, 5, 2, 2),
        same(5..=17),
        frame(18, 5, 2, 2),
        same(18..=20),
    ];
    assert_positions(&found, &[same(0..=4), steps.concat(), same(21..=24)], -8.0);
}

#[test]
fn video_that_outlasts_its_sound() {
    let found = laid_out(1, &[video(2, 8, 4, Some(1))], 1);
    let steps = [frame(3, 3, 4, 2), same(3..=3), frame(16, 3, 4, 2)];
    assert_positions(&found, &[same(0..=2), steps.concat(), same(17..=19)], -3.0);
}

/// Two thirteenths of a second are two positions, so film and sound tie at every step, where rounding decides. The
/// reference decides twice, in the prompt and in the positions, and can give a row of film the place of a sound.
#[test]
fn film_and_sound_keep_their_own_times_where_they_tie() {
    let film = Medium::Video {
        grid: Grid { t: 15, h: 2, w: 2 },
        second_per_grid: 2.0 / 13.0,
        audio_tokens: Some(40),
    };
    let ids = [vec![100; 100], vec![6, 3, 7]].concat();
    let prompt = expand(&ids, &[film], &TOKENS).unwrap();
    let found = positions(&prompt.ids, &[film], &TOKENS).unwrap();
    let times = |id| {
        prompt
            .ids
            .iter()
            .zip(&found.t)
            .filter(move |(other, _)| **other == id)
            .map(|(_, t)| *t)
    };
    assert!(times(1).eq((102..142).map(|t| t as f32)));
    assert!(
        times(3)
            .enumerate()
            .all(|(step, t)| (t - (102 + 2 * step) as f32).abs() < 1e-4)
    );
}

#[test]
fn text_is_counted_from_the_start_of_its_run() {
    let film = Medium::Video {
        grid: Grid { t: 2, h: 2, w: 2 },
        second_per_grid: 0.02,
        audio_tokens: None,
    };
    let found = laid_out(0, &[film], 30);
    // 3.26 + 29; adding 1 at a time rounds to 32.260002.
    assert_eq!(found.t.last(), Some(&32.26));
}

#[test]
fn start_tokens_without_media_are_text() {
    let found = positions(&[6, 100, 4, 5, 6], &[], &TOKENS).unwrap();
    assert_positions(&found, &[same(0..=4)], 0.0);
}

#[test]
fn run_of_another_length_is_an_error() {
    let error = positions(&[6, 2, 2, 7], &[image(4, 4)], &TOKENS).unwrap_err();
    assert_eq!(
        error.to_string(),
        "token 1: expected 4 rows of image, found 2"
    );
    assert!(positions(&[6, 2, 2, 7], &[], &TOKENS).is_err());
    assert!(positions(&[6, 4, 3, 1, 5, 7], &[video(1, 2, 2, None)], &TOKENS).is_err());
}

#[test]
fn media_that_no_token_stands_for_are_an_error() {
    let error = positions(&[100], &[image(4, 4)], &TOKENS).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`<|image_pad|>` in the prompt: expected 1, one for each image of the request, found 0"
    );
}

#[test]
fn positions_equal_the_reference() {
    let tokenizer = Tokenizer::load(&demo_dir()).unwrap();
    let tokens = special_tokens(&tokenizer);
    let cases = section("positions");
    assert!(cases.len() >= 40);
    for case in cases {
        let text = case["text"].as_str().unwrap();
        let media = media(&case["media"]);
        let prompt = expand(&tokenizer.encode(text).unwrap(), &media, &tokens).unwrap();
        let expected_ids: Vec<u32> = runs(&case["ids"]).into_iter().map(|id| id as u32).collect();
        assert_eq!(prompt.ids, expected_ids, "ids of {text:?} with {media:?}");
        let found = positions(&prompt.ids, &media, &tokens).unwrap();
        for (axis, found) in [&found.t, &found.h, &found.w].into_iter().enumerate() {
            let expected: Vec<f32> = runs(&case["thw"][axis])
                .into_iter()
                .map(|v| v as f32)
                .collect();
            assert_eq!(*found, expected, "axis {axis} of {text:?} with {media:?}");
        }
        assert_eq!(
            found.delta,
            case["delta"].as_f64().unwrap() as f32,
            "delta of {text:?} with {media:?}"
        );
    }
}

proptest! {
    #[test]
    fn any_ids_give_positions_or_an_error(ids in prop::collection::vec(0_u32..9, 0..40), media in any_media()) {
        if let Ok(found) = positions(&ids, &media, &TOKENS) {
            prop_assert_eq!(found.len(), ids.len());
            prop_assert_eq!(found.h.len(), ids.len());
            prop_assert_eq!(found.w.len(), ids.len());
        }
    }
}

fn any_media() -> impl Strategy<Value = Vec<Medium>> {
    let medium = prop_oneof![
        (0_usize..4).prop_map(|tokens| Medium::Audio { tokens }),
        (0_usize..5, 0_usize..5).prop_map(|(h, w)| image(h, w)),
        (
            0_usize..3,
            0_usize..5,
            0_usize..5,
            prop::option::of(0_usize..4)
        )
            .prop_map(|(t, h, w, audio)| video(t, h, w, audio)),
    ];
    prop::collection::vec(medium, 0..4)
}
