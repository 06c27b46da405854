//! What the trained demo model says aloud, against the reference: codes, samples, and its own ears.

use burn_omni::{FinishReason, to_i16};
use burn_omni_tests::compare::Comparison;
use burn_omni_tests::demo::{cases, engine, goldens, heard, log_mel, request, words};
use burn_omni_tests::reply::run;
use burn_omni_tests::tensors::Tensors;

/// Largest difference of a sample: 33 steps of 16 bits.
const SAMPLE: f64 = 1e-3;
/// Largest difference of a log-mel value, in powers of ten; what is stored in 16 bits is off by up to 2e-3 itself.
const LOG_MEL: f64 = 1e-2;

#[test]
fn codes_and_samples_of_the_goldens_are_the_references() {
    let none = Tensors::default();
    let mut compared = Comparison::new(&none);
    let mut spoken = 0;
    for golden in goldens() {
        let Some(voice) = &golden.speaker else {
            continue;
        };
        spoken += 1;
        let id = &golden.id;
        let reply = run(engine(), request(&golden.messages, Some(voice))).expect("it is sound");
        let speech = reply.answer.speech.expect("speech was asked for");
        compared.equal(&format!("{id}: text"), &reply.answer.text, &golden.text);
        compared.equal(
            &format!("{id}: ids"),
            &reply.answer.token_ids,
            &golden.output_ids,
        );
        let frames = golden.frames().expect("it was spoken");
        compared.equal(&format!("{id}: codes"), &speech.codes, &frames);
        compared.equal(
            &format!("{id}: finish"),
            &speech.finish_reason,
            &FinishReason::Stop,
        );
        compared.equal(
            &format!("{id}: samples"),
            &Some(reply.samples.len()),
            &golden.samples,
        );

        let wave = golden.wave().expect("it was spoken");
        let pairs = reply.samples.iter().map(|x| to_i16(*x)).zip(wave);
        let steps = pairs.map(|(a, b)| a.abs_diff(b)).max().unwrap_or_default();
        let error = f64::from(steps) / 32_767.0;
        compared.note("wave", error, id);
        compared.equal(
            &format!("{id}: wave within {SAMPLE}: {error}"),
            &(error < SAMPLE),
            &true,
        );

        let features = golden.log_mel().expect("it was spoken");
        let ours = log_mel(&reply.samples);
        compared.equal(
            &format!("{id}: log-mel values"),
            &ours.len(),
            &features.len(),
        );
        let pairs = ours.iter().zip(&features);
        let error = pairs
            .map(|(a, b)| f64::from((a - b).abs()))
            .fold(0.0, f64::max);
        compared.note("log-mel (absolute)", error, id);
        let what = format!("{id}: log-mel within {LOG_MEL}: {error}");
        compared.equal(&what, &(error < LOG_MEL), &true);
    }
    assert_eq!(spoken, 12);
    compared.finish("speech of the demo model");
}

#[test]
fn the_model_understands_everything_it_says() {
    let spoken: Vec<_> = cases()
        .into_iter()
        .filter(|case| case.speaker.is_some())
        .collect();
    assert_eq!(spoken.len(), 42);
    let mut failures = Vec::new();
    for case in &spoken {
        let reply = run(engine(), request(&case.messages, case.speaker.as_deref()));
        let reply = reply.expect("the case is sound");
        let heard = heard(engine(), reply.samples).expect("a clip and a text");
        if words(&heard) != words(&case.expect) {
            failures.push(format!(
                "{}: `{}` was heard as `{heard}`",
                case.id, case.expect
            ));
        }
    }
    let count = failures.len();
    assert!(
        failures.is_empty(),
        "{count} of 42:\n{}",
        failures.join("\n")
    );
}
