//! The trained demo model with quantized weights: what it still knows.

use burn::tensor::Device;
use burn_omni::{Engine, EngineConfig, Quantize};
use burn_omni_tests::demo::{answers, cases, request};
use burn_omni_tests::reply::run;
use burn_omni_tests::repository;

/// Every so manieth case is asked, so that all kinds are among them; all with `BURN_OMNI_ALL_CASES=1`.
const STEP: usize = 8;
/// Answers that must stay those of the BF16 weights, of a hundred.
const KEPT: usize = 98;

#[test]
fn answers_of_quantized_weights_are_those_of_the_plain_ones() {
    let step = if std::env::var_os("BURN_OMNI_ALL_CASES").is_some() {
        1
    } else {
        STEP
    };
    let (cases, golden) = (cases(), answers());
    for format in [Quantize::Nvfp4, Quantize::Mxfp4] {
        let config = EngineConfig::new(repository("assets/omni-demo"))
            .device(Device::flex())
            .quantize(Some(format));
        let engine = Engine::load(config).expect("the demo model loads");
        let mut others = Vec::new();
        let mut asked = 0;
        for case in cases.iter().step_by(step) {
            asked += 1;
            let reply = run(&engine, request(&case.messages, None)).expect("the case is sound");
            let text = reply.answer.text;
            if text != golden[&case.id] {
                others.push(format!("{}: `{text}`", case.id));
            }
        }
        println!("{format:?}: {} of {asked} answers differ", others.len());
        assert!(
            (asked - others.len()) * 100 >= asked * KEPT,
            "{format:?}: {} of {asked} answers differ:\n{}",
            others.len(),
            others.join("\n")
        );
    }
}
