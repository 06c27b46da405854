//! A model of random weights, stage by stage, on the CPU against itself: the harness of what other devices are held to at
//! the size of a release.

use burn::tensor::Device;
use burn_omni_ops::PackedFormat;
use burn_omni_tests::drawn::{self, Drawn};

#[test]
fn a_model_is_itself() {
    is_itself(&Drawn::shallow("omni-demo", 2, Some(PackedFormat::NVFP4)));
}

#[test]
#[ignore = "takes minutes on two cores, and 6 GB"]
fn a_model_of_the_releases_size_is_itself() {
    let format = Some(PackedFormat::NVFP4);
    is_itself(&Drawn::shallow("qwen3-omni-30b-a3b", 2, format));
}

fn is_itself(model: &Drawn) {
    let device = Device::flex();
    drawn::decoders(model, &device).finish("decoders");
    drawn::answer(model, &device).finish("answer");
    drawn::towers(model, &device).finish("encoders");
    drawn::code2wav(model, &device).finish("code2wav");
    assert!(
        drawn::captured(model, &device, burn::tensor::DType::BF16.into()).is_none(),
        "the CPU captures nothing"
    );
}
