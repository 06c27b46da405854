//! The thinker's decoder, layer by layer and greedily, against the reference.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use burn_omni_tests::compare::{Comparison, TOLERANCE, values};
use burn_omni_tests::reply::run;
use burn_omni_tests::tiny::{Case, engine, golden, parts};

#[test]
fn every_layer_of_the_prefill_is_the_references() {
    let mut compared = Comparison::new(&golden().tensors);
    for (name, case) in &golden().cases {
        prefill(name, case, &mut compared);
        compared.covers(name, "thinker");
    }
    compared.finish("thinker");
}

/// Passes a prompt through the decoder and compares everything on the way.
fn prefill(name: &str, case: &Case, compared: &mut Comparison<'_>) {
    let thinking = parts().thinking();
    let rows = &case.facts.rows["thinker"];
    let prompt = parts().processor.prepare(&case.conversation());
    let prompt = prompt.expect("the case is sound");
    let at = &prompt.positions;
    let axes: Vec<f32> = [&at.t, &at.h, &at.w]
        .into_iter()
        .flatten()
        .copied()
        .collect();
    compared.whole(name, "thinker/positions", &axes);

    let thinker = &thinking.thinker;
    let rope = thinker.rope([&at.t, &at.h, &at.w]);
    let input = thinker.embed(&prompt);
    let mut state = thinker.state(prompt.ids.len());
    let mut taps: BTreeMap<String, Tensor<2>> = BTreeMap::new();
    let output = thinker.forward_with(&input, &rope, &mut state, &mut |layer, x| {
        taps.insert(layer.to_owned(), x.clone());
    });
    compared.rows(name, "thinker/embeds", input.embeds.clone(), rows);
    let mut entering = input.embeds;
    for (i, route) in thinking.routes.iter().enumerate() {
        let chosen = route.choose(entering, &rope);
        let place = |what: &str| format!("thinker/{what}.{i}");
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
    // The last norm is applied to the last row alone: that is all that the logits need.
    let last = [rows.len() - 1];
    assert_eq!(
        rows[last[0]],
        prompt.ids.len() - 1,
        "the golden rows end with the last"
    );
    let golden = golden().tensors.require(&format!("{name}/thinker/norm"));
    let [_, width] = golden.rows();
    let row = &golden.data[last[0] * width..];
    compared.against(name, "thinker/norm", &values(taps["norm"].clone()), row);
    compared.whole(name, "thinker/logits", &values(output.logits));
}

#[test]
fn greedy_answers_are_the_references() {
    let mut compared = Comparison::new(&golden().tensors);
    for (name, case) in &golden().cases {
        let request = case.text_request(golden().limits[0]);
        let reply = run(engine(), request).expect("the case is sound");
        let (answer, facts) = (reply.answer, &case.facts);
        compared.equal(
            &format!("{name}: ids"),
            &answer.token_ids,
            &facts.output_ids,
        );
        let finish = answer.finish_reason.name();
        compared.equal(&format!("{name}: finish"), &finish, &facts.finish.as_str());
        let prompt = answer.usage.prompt_tokens;
        compared.equal(&format!("{name}: prompt"), &prompt, &facts.prompt_ids.len());
        assert!(answer.speech.is_none());
    }
    compared.finish("greedy answers");
}
