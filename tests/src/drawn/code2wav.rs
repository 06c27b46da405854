//! Codes to samples.

use burn::tensor::{Device, Tensor, TensorData};
use burn_omni_model::code2wav::Code2Wav;
use burn_omni_ops::check::Random;
use burn_omni_quant::checkpoint::Component;

use super::table::worst;
use super::{Drawn, Rounding, Table};
use crate::parts::device as cpu;

/// Frames of 80 ms, in the packets in which a stream gets them.
const PACKETS: [usize; 3] = [7, 1, 4];
/// Products of a stage: a transposed convolution and three units of two, or what stands before the decoder.
const PRODUCTS: usize = 7;
/// Products of a layer of the transformer.
const LAYER: usize = 7;

/// A stream of random codes, stage by stage, and its samples; errors go on from each stage to the next.
///
/// # Panics
/// When the model does not speak.
#[must_use]
pub fn code2wav(model: &Drawn, device: &Device) -> Table {
    let config = model.config.code2wav.as_ref().expect("the model speaks");
    let mut random = Random(9);
    let mut code = || ((random.number() + 1.0) / 2.0 * config.codebook_size as f32) as u32;
    let mut frame = |_| (0..config.num_quantizers).map(|_| code()).collect();
    let packets: Vec<Vec<Vec<u32>>> = PACKETS
        .map(|frames| (0..frames).map(&mut frame).collect())
        .to_vec();
    let [found, expected] = [device, &cpu()].map(|device| {
        let model = model.on(device, Component::Code2Wav, |weights| {
            Code2Wav::load(weights, config)
        });
        let mut state = model.state();
        let packet = |frames: &Vec<Vec<u32>>| {
            let mut taps: Vec<(String, Tensor<2>)> = Vec::new();
            let wave = model.push_with(&mut state, frames, &mut |stage, x| {
                taps.push((stage.to_owned(), x.clone()));
            });
            let wave = wave.expect("the codes are the model's");
            let count = wave.len();
            let wave = Tensor::<2>::from_data(TensorData::new(wave, [1, count]), device);
            taps.push(("samples".to_owned(), wave));
            taps
        };
        packets.iter().map(packet).collect::<Vec<_>>()
    });
    let mut table = Table::default();
    let rounding = Rounding::on(device, false);
    for (found, expected) in found.into_iter().zip(expected) {
        packet(
            &mut table,
            rounding,
            config.num_hidden_layers,
            [found, expected],
        );
    }
    table
}

/// Notes the stages of a packet, as they were found and as they are expected.
fn packet(
    table: &mut Table,
    rounding: Rounding,
    layers: usize,
    [found, expected]: [Vec<(String, Tensor<2>)>; 2],
) {
    assert_eq!(found.len(), expected.len(), "every stage is seen on both");
    let mut variance = rounding.products(LAYER * layers);
    for ((stage, x), (other, y)) in found.into_iter().zip(&expected) {
        assert_eq!(&stage, other, "stages follow one another as on the CPU");
        let [rows, _] = y.dims();
        let error = worst(x, y, None, |_| true);
        table.note(
            format!("code2wav {stage}"),
            rows,
            error,
            rounding.bound(variance),
        );
        // An activation `x + sin(x)^2` makes an error twice as large at most, and its square half again as large in the mean.
        // What the norms and sums of a stage with several of them take back is not derived: twice a stage is assumed.
        variance = 2.0 * variance + rounding.products(PRODUCTS);
    }
}
