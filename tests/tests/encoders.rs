//! The encoders of sound and sight, layer by layer, against the reference.

use burn::tensor::Tensor;
use burn_omni_model::processor::media::Patches;
use burn_omni_model::thinker::VisionRows;
use burn_omni_tests::compare::{Comparison, values};
use burn_omni_tests::tiny::{Case, golden, parts};

#[test]
fn every_layer_of_the_audio_encoder_is_the_references() {
    let mut compared = Comparison::new(&golden().tensors);
    let (mut cases, tower) = (0, &parts().towers().audio);
    for (name, case) in &golden().cases {
        let Some(rows) = case.facts.rows.get("audio") else {
            continue;
        };
        cases += 1;
        let prompt = parts().processor.prepare(&case.conversation());
        let clips = prompt.expect("the case is sound").audio;
        // All clips of a prompt in one call, as the thinker does.
        let out = tower.forward_with(&clips, &mut |layer, x| {
            let place = match layer.strip_prefix("layers.") {
                Some(i) => format!("audio/layer.{i}"),
                None if layer == "stem" => "audio/stem".into(),
                None => return,
            };
            compared.rows(name, &place, x.clone(), rows);
        });
        compared.rows(name, "audio/rows", out, rows);
        if name == "audio-two" {
            let alone = tower.forward(&clips[..1]);
            compared.whole(name, "audio/alone", &values(alone));
        }
        for clip in 0..clips.len() {
            // `processor.rs` compares the log-mel.
            compared.seen(name, &format!("audio/mel.{clip}"));
        }
        compared.covers(name, "audio");
    }
    assert_eq!(cases, 7);
    compared.finish("audio encoder");
}

#[test]
fn every_layer_of_the_vision_encoder_is_the_references() {
    let mut compared = Comparison::new(&golden().tensors);
    let mut calls = 0;
    for (name, case) in &golden().cases {
        let prompt = parts().processor.prepare(&case.conversation());
        let prompt = prompt.expect("the case is sound");
        for (stage, media) in [("image", &prompt.images), ("video", &prompt.videos)] {
            if !media.is_empty() {
                calls += 1;
                see((name, stage), case, media, &mut compared);
            }
        }
    }
    assert_eq!(calls, 8);
    compared.finish("vision encoder");
}

/// One call of the encoder, for all pictures or all films of a prompt.
fn see((name, stage): (&str, &str), case: &Case, media: &[Patches], compared: &mut Comparison<'_>) {
    let rows = &case.facts.rows[stage];
    let tower = &parts().towers().vision;
    let VisionRows {
        rows: out,
        deepstack,
    } = tower.forward_with(media, &mut |layer, x: &Tensor<2>| {
        let place = match layer.strip_prefix("blocks.") {
            Some(i) => format!("{stage}/layer.{i}"),
            None => format!("{stage}/embed"),
        };
        compared.rows(name, &place, x.clone(), rows);
    });
    let merged = &case.facts.rows[&format!("{stage}.merged")];
    compared.rows(name, &format!("{stage}/merged"), out, merged);
    for (i, level) in deepstack.into_iter().enumerate() {
        compared.rows(name, &format!("{stage}/deepstack.{i}"), level, merged);
    }
    // `processor.rs` compares the patches.
    compared.seen(name, &format!("{stage}/patches"));
    compared.covers(name, stage);
}
