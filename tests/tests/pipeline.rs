//! The tiny model through the engine, from conversation to samples, against the reference.

use burn_omni_tests::compare::Comparison;
use burn_omni_tests::reply::run;
use burn_omni_tests::tiny::{engine, golden};

#[test]
fn spoken_answers_have_the_references_codes_and_samples() {
    let mut compared = Comparison::new(&golden().tensors);
    let mut spoken = 0;
    for (name, case) in &golden().cases {
        if case.speak.is_none() {
            continue;
        }
        spoken += 1;
        let facts = &case.facts;
        let reply = run(engine(), case.request(golden().limits)).expect("the case is sound");
        let speech = reply.answer.speech.expect("speech was asked for");
        compared.equal(
            &format!("{name}: ids"),
            &reply.answer.token_ids,
            &facts.output_ids,
        );
        compared.equal(
            &format!("{name}: frames"),
            &Some(speech.codes.len()),
            &facts.frames,
        );
        let codes: Vec<u32> = speech.codes.concat();
        compared.integers(name, "talker/codes", &codes);
        let finish = Some(speech.finish_reason.name().to_owned());
        compared.equal(&format!("{name}: finish"), &finish, &facts.talker_finish);
        let samples = reply.samples.len();
        compared.equal(&format!("{name}: samples"), &Some(samples), &facts.samples);
        compared.equal(
            &format!("{name}: usage"),
            &Some(reply.answer.usage.audio_frames),
            &facts.frames,
        );
        compared.wave(name, "talker/wav", &reply.samples);
        let mean = reply
            .samples
            .iter()
            .map(|x| f64::from(x.abs()))
            .sum::<f64>()
            / samples as f64;
        let error = facts
            .wav_mean_abs
            .map_or(f64::INFINITY, |golden| (mean - golden).abs());
        compared.note("mean magnitude of samples", error, name);
        compared.equal(
            &format!("{name}: mean magnitude {mean} is close"),
            &(error < 1e-5),
            &true,
        );
    }
    assert_eq!(spoken, 8);
    compared.finish("pipeline");
}
