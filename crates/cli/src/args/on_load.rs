//! `--quantize` and `--quantize-head`.

use burn_omni::Quantize;
use burn_omni_quant::formats::AtLoad;
use clap::{Args, ValueEnum};

use crate::failure::Failure;

#[derive(Debug, Args)]
pub(crate) struct OnLoadArg {
    /// Quantize the text decoder on loading: none, nvfp4, mxfp4
    ///
    /// Attention, feed-forward blocks and experts of the thinker then take a quarter of their BF16 size. Matrices that the
    /// checkpoint stores quantized stay in their own format; router, embeddings, encoders and speech are never quantized
    /// here, and the head only with --quantize-head.
    #[arg(long, value_name = "FORMAT", default_value = "none")]
    quantize: Stored,
    /// With --quantize, quantize the head of the text decoder too
    #[arg(long)]
    quantize_head: bool,
}

/// What is quantized on loading.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OnLoad {
    pub(crate) format: Option<Quantize>,
    pub(crate) head: bool,
}

impl OnLoadArg {
    /// What was asked for, where that can be.
    pub(crate) fn checked(&self) -> Result<OnLoad, Failure> {
        let (format, head) = (self.quantize.format(), self.quantize_head);
        if head && format.is_none() {
            return Err(Failure::usage(
                "--quantize-head: nothing is quantized on loading",
                "add --quantize nvfp4 or --quantize mxfp4",
            ));
        }
        Ok(OnLoad { format, head })
    }
}

impl OnLoadArg {
    /// The same where weights are made in the format of `--format`: whether the head is in it too.
    pub(crate) fn head_of_drawn(&self) -> Result<bool, Failure> {
        if self.quantize != Stored::None {
            return Err(Failure::usage(
                "--quantize: with --synthetic there is nothing to quantize",
                "weights are made in the format of --format",
            ));
        }
        Ok(self.quantize_head)
    }
}

impl OnLoad {
    /// The same for a memory plan.
    pub(crate) fn at_load(self) -> Option<AtLoad> {
        self.format.map(|format| AtLoad {
            format: format.format(),
            head: self.head,
        })
    }
}

/// What plain matrices become on loading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stored {
    /// As they are stored
    None,
    /// 4-bit floats in blocks of 16
    Nvfp4,
    /// 4-bit floats in blocks of 32
    Mxfp4,
}

impl Stored {
    fn format(self) -> Option<Quantize> {
        match self {
            Self::None => None,
            Self::Nvfp4 => Some(Quantize::Nvfp4),
            Self::Mxfp4 => Some(Quantize::Mxfp4),
        }
    }
}
