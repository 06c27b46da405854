//! Talker and code predictor, layer by layer and greedily, against the reference.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use burn_omni_tests::compare::{Comparison, TOLERANCE, values};
use burn_omni_tests::spoken::{Frame, Spoken};
use burn_omni_tests::tiny::{Case, golden, parts};

#[test]
fn every_layer_and_every_code_are_the_references() {
    let mut compared = Comparison::new(&golden().tensors);
    let mut count = 0;
    for (name, case) in &golden().cases {
        let Some(voice) = &case.speak else {
            continue;
        };
        count += 1;
        let prompt = parts().processor.prepare(&case.conversation());
        let prompt = prompt.expect("the case is sound");
        let spoken = Spoken::new(parts(), &prompt, &case.facts.output_ids, voice);
        prefill(name, case, &spoken, &mut compared);
        let frames = spoken.frames(golden().limits[1], {
            let (compared, mut first) = (&mut compared, true);
            move |frame| {
                if std::mem::take(&mut first) {
                    first_frame(name, &frame, compared);
                }
            }
        });
        compared.integers(name, "talker/codes", &frames.concat());
        compared.covers(name, "predictor");
        // `pipeline.rs` compares the wave.
        compared.seen(name, "talker/wav");
        compared.covers(name, "talker");
    }
    assert_eq!(count, 8);
    compared.finish("talker and code predictor");
}

/// The prompt's pass, layer by layer.
fn prefill(name: &str, case: &Case, spoken: &Spoken<'_>, compared: &mut Comparison<'_>) {
    let rows = &case.facts.rows["talker"];
    let axes = spoken.axes();
    compared.whole(name, "talker/positions", &axes.concat());
    let delta = Some(spoken.positions.delta);
    let what = format!("{name}: the talker's delta");
    compared.equal(&what, &delta, &case.facts.talker_rope_delta);
    compared.rows(name, "talker/embeds", spoken.rows.clone(), rows);
    compared.whole(name, "talker/trailing", &values(spoken.text.clone()));

    let talking = parts().talking();
    let mut taps: BTreeMap<String, Tensor<2>> = BTreeMap::new();
    let mut state = talking.talker.state(spoken.turns.talker_rows());
    let mut tap = |layer: &str, x: &Tensor<2>| {
        taps.insert(layer.to_owned(), x.clone());
    };
    let input = spoken.rows.clone();
    let step = talking
        .talker
        .forward_with(&mut state, input, axes, &mut tap);
    compared.rows(name, "talker/norm", taps["norm"].clone(), rows);
    compared.whole(name, "talker/logits", &values(step.logits));

    let rope = talking.rope.table(axes, &spoken.rows.device());
    let mut entering = spoken.rows.clone();
    for (i, route) in talking.routes.iter().enumerate() {
        let chosen = route.choose(entering, &rope);
        let place = |what: &str| format!("talker/{what}.{i}");
        compared.integers(name, &place("router"), &chosen.experts_of(rows));
        let (weights, width) = (&chosen.weights, chosen.top_k);
        compared.tensor(
            name,
            &place("weights"),
            weights,
            width,
            Some(rows),
            TOLERANCE,
        );
        entering = taps[&format!("layers.{i}")].clone();
        compared.rows(name, &place("layer"), entering.clone(), rows);
    }
}

/// What the code predictor reads and says in the first frame, and the row that follows it.
fn first_frame(name: &str, frame: &Frame<'_>, compared: &mut Comparison<'_>) {
    let code = parts().talking().codec_embedding.forward(&frame.codes[..1]);
    let input = Tensor::cat(vec![frame.step.hidden.clone(), code], 0);
    compared.whole(name, "predictor/input", &values(input));
    compared.whole(name, "predictor/logits", frame.logits);
    compared.whole(name, "talker/x0", &values(frame.next.clone()));
}
