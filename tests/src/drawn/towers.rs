//! The encoders of sound and sight.

use burn::tensor::{DType, Device, Tensor};
use burn_omni_model::processor::media::{LogMel, Patches};
use burn_omni_model::thinker::{AudioTower, VisionTower};
use burn_omni_ops::KvFormat;
use burn_omni_ops::check::Random;
use burn_omni_quant::Weights;
use burn_omni_quant::checkpoint::Component;

use super::rounding::joined;
use super::table::{shares, worst};
use super::{Drawn, Rounding, Table};
use crate::parts::device as cpu;

/// Frames of sound: nine seconds, which are a window and a part of another.
const FRAMES: usize = 850;
/// What a tower's sound is multiplied with, so that random convolutions give rows as large as the positions added to them.
const LOUD: f32 = 20.0;
/// Patches of the picture, downwards and across.
const PATCHES: [usize; 2] = [14, 18];
/// Convolutions of the stem, and the product behind them.
const STEM: usize = 4;
/// Products behind the last layer.
const HEAD: usize = 2;

/// What leaves each stage, by name.
type Taps = Vec<(String, Tensor<2>)>;

/// A sound and a picture on a device, stage by stage; errors go on from each to the next.
#[must_use]
pub fn towers(model: &Drawn, device: &Device) -> Table {
    let mut table = Table::default();
    let rounding = Rounding::on(device, false);
    let [found, expected] = [device, &cpu()].map(|device| hear(model, device));
    compare("audio", (&found, &expected), rounding, &mut table);
    let [found, expected] = [device, &cpu()].map(|device| see(model, device));
    compare("vision", (&found, &expected), rounding, &mut table);
    table
}

fn compare(tower: &str, (found, expected): (&Taps, &Taps), rounding: Rounding, table: &mut Table) {
    assert_eq!(found.len(), expected.len(), "every stage is seen on both");
    let mut variance = rounding.products(STEM);
    let mut before: Option<&Tensor<2>> = None;
    for ((stage, x), (_, y)) in found.iter().zip(expected) {
        let [rows, _] = y.dims();
        match before {
            // The halves of a layer are not seen.
            Some(before) if is_layer(stage) => {
                let format = KvFormat::Float(DType::F32);
                let heard = rounding.attention(rows, variance, format);
                let added = heard + rounding.feed_forward(rows, variance + heard);
                variance = joined([variance, added], shares(y, before));
            }
            _ => variance += rounding.products(HEAD),
        }
        let error = worst(x.clone(), y, None, |_| true);
        table.note(
            format!("{tower} {stage}"),
            rows,
            error,
            rounding.bound(variance),
        );
        before = Some(y);
    }
}

fn is_layer(stage: &str) -> bool {
    stage.starts_with("layers.") || stage.starts_with("blocks.")
}

fn hear(model: &Drawn, device: &Device) -> Taps {
    let config = &model.config.thinker.audio_config;
    let tower = on(model, device, |weights| {
        AudioTower::load(&weights.at("audio_tower"), config)
    });
    let mut random = Random(5);
    let mels = config.num_mel_bins;
    let numbers = (0..mels * FRAMES).map(|_| random.number() * LOUD);
    let clip = LogMel {
        mels,
        frames: FRAMES,
        data: numbers.collect(),
    };
    let mut taps = Taps::new();
    let _ = tower.forward_with(&[clip], &mut |stage, x| {
        taps.push((stage.to_owned(), x.clone()));
    });
    taps
}

fn see(model: &Drawn, device: &Device) -> Taps {
    let config = &model.config.thinker.vision_config;
    let tower = on(model, device, |weights| {
        VisionTower::load(&weights.at("visual"), config)
    });
    let mut random = Random(6);
    let [height, width] = PATCHES;
    let numbers = (0..height * width * config.patch_values()).map(|_| random.number());
    let picture = Patches {
        grid: [1, height, width],
        data: numbers.collect(),
    };
    let mut taps = Taps::new();
    let rows = tower.forward_with(&[picture], &mut |stage, x| {
        taps.push((stage.to_owned(), x.clone()));
    });
    let deepstack = rows.deepstack.into_iter().enumerate();
    let deepstack = deepstack.map(|(level, rows)| (format!("deepstack.{level}"), rows));
    taps.push(("merged".to_owned(), rows.rows));
    taps.extend(deepstack);
    taps
}

fn on<T>(model: &Drawn, device: &Device, build: impl Fn(&Weights<'_>) -> T) -> T {
    model.on(device, Component::Thinker, build)
}
