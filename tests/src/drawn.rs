//! A model of random weights on two devices, which both draw the same ones: every stage of the one against the same stage
//! of the other, at any size and without a checkpoint.
//!
//! | module | what |
//! |---|---|
//! | [`decoders`] | the layers of thinker, talker and code predictor, each half by itself, and as captured steps |
//! | [`answer`] | a prompt and the tokens behind it, through the thinker as the program runs it |
//! | [`towers`], [`code2wav`] | sounds, pictures and codes, stage by stage |
//!
//! Bounds are not fitted to what was seen: [`Rounding`] adds up what a device rounds on the way. Assumed are how errors grow in
//! code2wav, and which share of rows may be set aside because experts are as good as one another.

mod answer;
mod code2wav;
mod decoders;
mod rounding;
mod stack;
mod table;
mod towers;

use burn::tensor::{DType, Device, Tensor};
use burn_omni_model::config::Config;
use burn_omni_ops::PackedFormat;
use burn_omni_quant::checkpoint::Component;
use burn_omni_quant::formats::AtLoad;
use burn_omni_quant::{LoadOptions, Warnings, Weights, draw};

pub use answer::answer;
pub use code2wav::code2wav;
pub use decoders::{captured, decoders};
pub use rounding::Rounding;
pub use table::Table;
pub use towers::towers;

/// A geometry, and how the weights of its text decoder are stored.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// The geometry.
    pub config: Config,
    /// Format of attention, experts and head of the thinker; without it those are bf16 as all others are.
    pub quantize: Option<PackedFormat>,
}

impl Drawn {
    /// A preset with at most so many layers in each of its stacks.
    ///
    /// # Panics
    /// When there is no such preset, or it does not speak.
    #[must_use]
    pub fn shallow(name: &str, layers: usize, quantize: Option<PackedFormat>) -> Self {
        let mut config = Config::preset(name).expect("a preset");
        let thinker = &mut config.thinker;
        let talker = config.talker.as_mut().expect("the model speaks");
        let code2wav = config.code2wav.as_mut().expect("the model speaks");
        for count in [
            &mut thinker.text_config.num_hidden_layers,
            &mut thinker.audio_config.encoder_layers,
            &mut thinker.vision_config.depth,
            &mut talker.text_config.num_hidden_layers,
            &mut talker.code_predictor_config.num_hidden_layers,
            &mut code2wav.num_hidden_layers,
        ] {
            *count = layers.min(*count);
        }
        // Mergers behind the first blocks that there are.
        let indexes = &mut thinker.vision_config.deepstack_visual_indexes;
        indexes.truncate(thinker.vision_config.depth);
        *indexes = (0..indexes.len()).collect();
        talker.accept_hidden_layer = talker.accept_hidden_layer.min(layers);
        Self { config, quantize }
    }

    /// Draws a component.
    fn on<T>(&self, device: &Device, component: Component, build: impl Fn(&Weights<'_>) -> T) -> T {
        let warnings = Warnings::new();
        let options = LoadOptions {
            quantize: self.quantize.map(|format| AtLoad { format, head: true }),
            ..LoadOptions::new(device, DType::F32, &warnings)
        };
        draw(component, options, build)
    }
}

/// The same numbers on another device.
fn there<const D: usize>(x: &Tensor<D>, device: &Device) -> Tensor<D> {
    Tensor::from_data(x.clone().into_data(), device)
}
