use super::*;

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

const IMAGE: Medium = Medium::Image {
    grid: Grid { t: 1, h: 2, w: 4 },
};

fn film(audio_tokens: Option<usize>) -> Medium {
    Medium::Video {
        grid: Grid { t: 2, h: 2, w: 4 },
        second_per_grid: 0.2,
        audio_tokens,
    }
}

#[test]
fn each_pad_becomes_the_rows_of_the_next_medium_of_its_kind() {
    let media = [Medium::Audio { tokens: 3 }, IMAGE, film(None)];
    let prompt = expand(&[9, 6, 2, 7, 4, 1, 5, 9, 6, 3, 7], &media, &TOKENS).unwrap();
    assert_eq!(
        prompt.ids,
        [9, 6, 2, 2, 7, 4, 1, 1, 1, 5, 9, 6, 3, 3, 3, 3, 7]
    );
    let spans = [(1, 2..4), (0, 6..9), (2, 12..16)];
    assert_eq!(
        prompt.spans,
        spans.map(|(medium, range)| MediaSpan { medium, range })
    );
}

#[test]
fn film_and_sound_are_interleaved_by_time() {
    // Steps at 0 and 0.2·13 = 2.6: the second comes before sound 3.
    let prompt = expand(&[6, 3, 7], &[film(Some(5))], &TOKENS).unwrap();
    assert_eq!(prompt.ids, [6, 4, 3, 3, 1, 1, 1, 3, 3, 1, 1, 5, 7]);
    assert_eq!(
        prompt.spans,
        [MediaSpan {
            medium: 0,
            range: 2..11
        }]
    );
}

#[test]
fn films_with_and_without_sound_may_be_mixed() {
    let prompt = expand(&[6, 3, 7, 6, 3, 7], &[film(None), film(Some(1))], &TOKENS).unwrap();
    assert_eq!(prompt.ids, [6, 3, 3, 3, 3, 7, 6, 4, 3, 3, 1, 3, 3, 5, 7]);
}

#[test]
fn text_alone_stays_as_it_is() {
    assert_eq!(
        expand(&[9, 8, 6, 4], &[], &TOKENS).unwrap().ids,
        [9, 8, 6, 4]
    );
}

#[test]
fn counts_that_differ_are_an_error_with_both_numbers() {
    let error = expand(&[6, 2, 7, 2], &[IMAGE], &TOKENS).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`<|image_pad|>` in the prompt: expected 1, one for each image of the request, found 2"
    );
    assert_eq!(
        error.hint().unwrap(),
        "a text that itself contains `<|image_pad|>` counts as a placeholder"
    );
    let error = expand(&[9], &[film(None)], &TOKENS).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`<|video_pad|>` in the prompt: expected 1, one for each video of the request, found 0"
    );
}

#[test]
fn bare_pads_are_an_error() {
    let error = expand(&[6, 2, 7, 9, 2, 7], &[IMAGE, IMAGE], &TOKENS).unwrap_err();
    let expected = "`<|image_pad|>` number 1 of the prompt: expected between its start and end tokens, found bare";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn sizes_that_cannot_be_laid_out_are_an_error() {
    let error = expand(&[4, 1, 5], &[Medium::Audio { tokens: 0 }], &TOKENS).unwrap_err();
    assert_eq!(
        error.to_string(),
        "medium 0 (audio): audio tokens: expected 1 or more, found 0"
    );
    let odd = Medium::Image {
        grid: Grid { t: 1, h: 3, w: 4 },
    };
    let error = expand(&[6, 2, 7], &[odd], &TOKENS).unwrap_err();
    let expected = "medium 0 (image): grid: expected height and width to be positive multiples of 2, found 1x3x4";
    assert_eq!(error.to_string(), expected);
    let grid = Grid { t: 1, h: 2, w: 2 };
    let still = Medium::Video {
        grid,
        second_per_grid: f64::NAN,
        audio_tokens: None,
    };
    assert!(expand(&[6, 3, 7], &[still], &TOKENS).is_err());
}
