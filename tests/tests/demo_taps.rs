//! What happens within the trained demo model, against the reference: a text, a clip and a picture.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, s};
use burn_omni_model::processor::Prompt;
use burn_omni_model::thinker::Rows;
use burn_omni_tests::compare::{Comparison, values};
use burn_omni_tests::demo::{Golden, goldens, parts, prompt};
use burn_omni_tests::spoken::Spoken;
use burn_omni_tests::tensors::Tensors;

#[test]
fn every_stored_tensor_is_the_references() {
    let goldens: Vec<(Golden, Tensors)> = goldens()
        .into_iter()
        .filter_map(|golden| golden.taps().map(|taps| (golden, taps)))
        .collect();
    assert_eq!(goldens.len(), 3);
    let taps = goldens.iter().map(|(_, taps)| taps.clone());
    let all = taps.fold(Tensors::default(), Tensors::and);
    let mut compared = Comparison::new(&all);
    for (golden, _) in &goldens {
        let prompt = prompt(&golden.messages);
        compared.equal(
            &format!("{}: ids", golden.id),
            &prompt.ids,
            &golden.prompt_ids,
        );
        let rows = parts().thinking().thinker.embed(&prompt);
        features(&golden.id, &prompt, &mut compared);
        encoders(&golden.id, (&prompt, &rows), &mut compared);
        thinker(&golden.id, (&prompt, &rows), &mut compared);
        talker(golden, &prompt, &mut compared);
        compared.covers(&golden.id, "");
    }
    compared.finish("inside of the demo model");
}

/// What enters the encoders.
fn features(id: &str, prompt: &Prompt, compared: &mut Comparison<'_>) {
    if let [mel] = &prompt.audio[..] {
        compared.whole(id, "input_features", &mel.data);
    }
    if let [patches] = &prompt.images[..] {
        compared.whole(id, "pixel_values", &patches.data);
        let grid = patches.grid.map(|x| u32::try_from(x).expect("small"));
        compared.integers(id, "image_grid_thw", &grid);
    }
}

/// What leaves the encoders: the rows in the places of their tokens.
fn encoders(id: &str, (prompt, rows): (&Prompt, &Rows), compared: &mut Comparison<'_>) {
    let config = &parts().config.thinker;
    for (token, place, deepstack) in [
        (config.audio_token_id, "audio_rows", false),
        (config.image_token_id, "image_rows", true),
    ] {
        let Some(first) = prompt.ids.iter().position(|id| *id == token) else {
            continue;
        };
        let count = prompt.ids.iter().filter(|id| **id == token).count();
        let part = |x: &Tensor<2>| values(x.clone().slice(s![first..first + count, ..]));
        compared.whole(id, place, &part(&rows.embeds));
        for (i, level) in rows.deepstack.iter().enumerate().filter(|_| deepstack) {
            compared.whole(id, &format!("deepstack.{i}"), &part(level));
        }
    }
}

/// The residual stream and the logits of every row.
fn thinker(id: &str, (prompt, rows): (&Prompt, &Rows), compared: &mut Comparison<'_>) {
    let thinker = &parts().thinking().thinker;
    let (at, count) = (&prompt.positions, prompt.ids.len());
    let rope = thinker.rope([&at.t, &at.h, &at.w]);
    let mut taps: BTreeMap<String, Tensor<2>> = BTreeMap::new();
    let mut state = thinker.state(count);
    let whole = thinker.forward_with(rows, &rope, &mut state, &mut |layer, x| {
        taps.insert(layer.to_owned(), x.clone());
    });
    compared.whole(id, "thinker_hidden.0", &values(rows.embeds.clone()));
    let last = parts().thinking().routes.len();
    for i in 1..last {
        // The reference stores the stream before the rows of pictures are added to it.
        let stream = taps[&format!("layers.{}", i - 1)].clone();
        let stream = match rows.deepstack.get(i - 1) {
            Some(added) => stream - added.clone(),
            None => stream,
        };
        compared.whole(id, &format!("thinker_hidden.{i}"), &values(stream));
    }
    // Row by row, as an answer is decoded, for the norm and the logits of each.
    let (mut norms, mut logits) = (Vec::new(), Vec::new());
    let mut state = thinker.state(count);
    for row in 0..count {
        let rope = thinker.rope([&at.t, &at.h, &at.w].map(|axis| &axis[row..=row]));
        let row = rows.slice(row..row + 1);
        let output = thinker.forward_with(&row, &rope, &mut state, &mut |layer, x| {
            if layer == "norm" {
                norms.extend(values(x.clone()));
            }
        });
        logits.extend(values(output.logits));
    }
    compared.whole(id, &format!("thinker_hidden.{last}"), &norms);
    compared.whole(id, "thinker_logits", &logits);
    let pairs = values(whole.logits)
        .into_iter()
        .zip(logits[logits.len() / count * (count - 1)..].iter());
    let error = pairs
        .map(|(a, b)| f64::from((a - b).abs()))
        .fold(0.0, f64::max);
    compared.note("one pass and row by row", error, id);
    compared.equal(
        &format!("{id}: one pass and row by row: {error}"),
        &(error < 1e-3),
        &true,
    );
}

/// The talker's prompt and what it first says.
fn talker(golden: &Golden, prompt: &Prompt, compared: &mut Comparison<'_>) {
    let voice = golden.speaker.as_ref().expect("all three are spoken");
    let spoken = Spoken::new(parts(), prompt, &golden.output_ids, voice);
    compared.whole(&golden.id, "talker_prefix", &values(spoken.rows.clone()));
    compared.whole(
        &golden.id,
        "talker_trailing_text",
        &values(spoken.text.clone()),
    );
    let talker = &parts().talking().talker;
    let mut state = talker.state(spoken.turns.talker_rows());
    let step = talker.prefill(&mut state, spoken.rows.clone(), spoken.axes());
    compared.whole(&golden.id, "talker_first_logits", &values(step.logits));
}
