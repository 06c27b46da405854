//! What two prompts have in common.

use super::*;
use burn_omni_model::processor::MediaSpan;

/// A prompt of these tokens, with a clip at each of these places.
fn prompt(ids: &[u32], clips: &[(std::ops::Range<usize>, f32)]) -> Prompt {
    let axis: Vec<f32> = (0..ids.len()).map(|row| row as f32).collect();
    let mut prompt = Prompt {
        ids: ids.to_vec(),
        positions: Positions {
            t: axis.clone(),
            h: axis.clone(),
            w: axis,
            delta: 0.0,
        },
        ..Prompt::default()
    };
    for (medium, (range, value)) in clips.iter().cloned().enumerate() {
        let tokens = range.len();
        prompt.spans.push(MediaSpan { medium, range });
        prompt.media.push(Medium::Audio { tokens });
        prompt.audio.push(LogMel {
            mels: 1,
            frames: 1,
            data: [value].into(),
        });
    }
    prompt
}

fn in_common(old: &Prompt, answer: &[u32], new: &Prompt) -> usize {
    let ids = [&old.ids, answer].concat();
    common((old, &ids), new)
}

#[test]
fn prompt_and_answer_are_kept_as_far_as_tokens_are_equal() {
    let old = prompt(&[1, 2, 3], &[]);
    assert_eq!(
        in_common(&old, &[4, 5], &prompt(&[1, 2, 3, 4, 5, 6], &[])),
        5
    );
    assert_eq!(
        in_common(&old, &[4, 5], &prompt(&[1, 2, 3, 4, 9, 6], &[])),
        4
    );
    assert_eq!(
        in_common(&old, &[4, 5], &prompt(&[1, 2], &[])),
        1,
        "one passes always"
    );
    assert_eq!(in_common(&old, &[4], &prompt(&[7, 2, 3], &[])), 0);
    assert_eq!(in_common(&Prompt::default(), &[], &old), 0);
}

#[test]
fn rows_at_other_positions_are_others() {
    let old = prompt(&[1, 2, 3], &[]);
    let mut new = prompt(&[1, 2, 3, 4], &[]);
    new.positions.h[1] = 7.0;
    assert_eq!(in_common(&old, &[4], &new), 1);
}

#[test]
fn media_are_kept_whole_and_only_where_their_features_are_equal() {
    let old = prompt(&[1, 9, 9, 2, 9, 9, 3], &[(1..3, 0.5), (4..6, 0.7)]);
    let new = |clips: &[(std::ops::Range<usize>, f32)]| {
        let new = prompt(&[1, 9, 9, 2, 9, 9, 3, 5], clips);
        in_common(&old, &[], &new)
    };
    assert_eq!(new(&[(1..3, 0.5), (4..6, 0.7)]), 7);
    assert_eq!(new(&[(1..3, 0.5), (4..6, 0.8)]), 4);
    assert_eq!(new(&[(1..3, 0.4), (4..6, 0.7)]), 1);
    // A clip that is longer than the old one begins with the same tokens.
    let longer = prompt(&[1, 9, 9, 2, 9, 9, 9], &[(1..3, 0.5), (4..7, 0.7)]);
    assert_eq!(in_common(&old, &[], &longer), 4);
}

#[test]
fn the_rest_has_the_media_that_are_new() {
    let whole = prompt(&[1, 9, 9, 2, 9, 9, 3], &[(1..3, 0.5), (4..6, 0.7)]);
    let rest = |rows| {
        let rest = rest(&whole, rows);
        let clips: Vec<f32> = rest.audio.iter().map(|clip| clip.data[0]).collect();
        (rest.ids, clips)
    };
    assert_eq!(rest(4), (vec![9, 9, 3], vec![0.7]));
    assert_eq!(rest(3), (vec![2, 9, 9, 3], vec![0.7]));
    assert_eq!(rest(6), (vec![3], vec![]));
    assert_eq!(rest(1).1, [0.5, 0.7]);
}
