//! The checkpoint of a geometry without weights.

use burn::tensor::{DType, Device};
use burn_omni_model::code2wav::Code2Wav;
use burn_omni_model::config::Config;
use burn_omni_model::processor::side_files;
use burn_omni_model::talker::Talker;
use burn_omni_model::thinker::Thinker;
use burn_omni_quant::checkpoint::Component;
use burn_omni_quant::write::{Drawn, Form};
use burn_omni_quant::{LoadOptions, Warnings, asked};

use crate::{Error, Quantize};

/// A geometry of which a checkpoint of random weights can be written.
#[derive(Clone, Debug)]
pub struct Untrained {
    /// The geometry, for example a [`Config::preset`].
    pub config: Config,
    /// Format of the matrices of the text decoder, in the layout of compressed-tensors, all others being bf16; without it
    /// those are too.
    pub quantize: Option<Quantize>,
    /// Whether the head of the text decoder has that format.
    pub quantize_head: bool,
    /// Whether there are talker and code2wav.
    pub speech: bool,
}

impl Untrained {
    /// The checkpoint, of which nothing is in memory: config, tokenizer and the names, shapes and formats of all tensors
    /// that a model of this geometry is loaded from. `device` holds tensors without content for a moment.
    ///
    /// # Errors
    /// When the vocabulary is too small for a tokenizer.
    pub fn checkpoint(&self, device: &Device) -> Result<Drawn, Error> {
        let mut config = self.config.clone();
        if !self.speech {
            (config.talker, config.code2wav) = (None, None);
        }
        let files = side_files(&config).ok_or_else(|| Error::BadSetting {
            field: "vocab_size",
            expected: "room for 256 bytes, the special tokens and the role words".into(),
            found: config.thinker.text_config.vocab_size.to_string(),
        })?;
        let form = self.quantize.map(|format| match format {
            Quantize::Nvfp4 => Form::CompressedTensors,
            Quantize::Mxfp4 => Form::Mxfp4,
        });
        let mut drawn = Drawn::new(config.to_json(), files, (form, self.quantize_head));
        let warnings = Warnings::new();
        let options = LoadOptions::new(device, DType::F32, &warnings);
        let accept = config
            .talker
            .as_ref()
            .map(|talker| talker.accept_hidden_layer);
        let thinker = asked(Component::Thinker, options, |weights| {
            Thinker::load(weights, &config.thinker, accept)
        });
        drawn.add(Component::Thinker, thinker);
        if let Some(config) = &config.talker {
            let talker = asked(Component::Talker, options, |weights| {
                Talker::load(weights, config)
            });
            drawn.add(Component::Talker, talker);
        }
        if let Some(config) = &config.code2wav {
            let code2wav = asked(Component::Code2Wav, options, |weights| {
                Code2Wav::load(weights, config)
            });
            drawn.add(Component::Code2Wav, code2wav);
        }
        Ok(drawn)
    }
}
