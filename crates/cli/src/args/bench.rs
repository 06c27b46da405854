//! `bench`.

use std::path::PathBuf;

use burn_omni::Quantize;
use burn_omni_model::config::Config;
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};

use super::{ContextArg, DeviceArg, OnLoadArg, values};

/// Examples below the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  burn-omni bench
  burn-omni bench -m path/to/checkpoint --prompt-tokens 4096 --no-speech
  burn-omni bench --synthetic qwen3-omni-30b-a3b --device cuda --json
  burn-omni bench --synthetic qwen3-omni-30b-a3b --write random-nvfp4";

/// What is measured, and how.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Checkpoint folder [default: as for `run`]
    // Not the argument of the other commands: a folder that the environment names does not keep from --synthetic.
    #[arg(
        short = 'm',
        long = "model",
        value_name = "DIR",
        conflicts_with = "synthetic"
    )]
    pub(crate) dir: Option<PathBuf>,
    /// Read no checkpoint: random weights in the geometry of this model, made on the device
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Config::presets()))]
    pub(crate) synthetic: Option<String>,
    /// With --synthetic, the format of attention and experts of the thinker
    ///
    /// The head has it with --quantize-head; everything else is stored in BF16.
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "nvfp4",
        requires = "synthetic"
    )]
    pub(crate) format: Format,
    /// With --synthetic, write the weights as a checkpoint to this folder, and measure nothing
    ///
    /// A folder that every command takes for -m, for tests of loading at full size: matrices in the layout of
    /// compressed-tensors, and a tokenizer whose every token has a made-up text. No GPU is needed. A folder that is not
    /// empty is left as it is; a run that was stopped goes on where it was when it is repeated.
    #[arg(
        long,
        value_name = "DIR",
        requires = "synthetic",
        conflicts_with_all = [
            "device", "w4a4", "max_context", "kv_dtype", "memory_limit", "prompt_tokens", "decode_tokens", "frames", "repeat",
            "timeline",
        ]
    )]
    pub(crate) write: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) device: DeviceArg,
    #[command(flatten)]
    pub(crate) quantize: OnLoadArg,
    /// Round prompts to 4 bits too where 4-bit weights multiply them: see `burn-omni run --help`
    #[arg(long)]
    pub(crate) w4a4: bool,
    #[command(flatten)]
    pub(crate) context: ContextArg,
    /// Tokens of the prompt
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = values::count, default_value = "512")]
    pub(crate) prompt_tokens: usize,
    /// Tokens that are decoded behind it
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = values::count, default_value = "64")]
    pub(crate) decode_tokens: usize,
    /// Frames of 80 ms that become sound, and those of the spoken answer
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = values::count, default_value = "125")]
    pub(crate) frames: usize,
    /// Measurements of each figure, after one that warms up
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = values::count, default_value = "5")]
    pub(crate) repeat: usize,
    /// Measure one part alone
    #[arg(long, value_name = "PART")]
    pub(crate) only: Option<Part>,
    /// Leave out talker and code2wav
    #[arg(long)]
    pub(crate) no_speech: bool,
    /// Draw what the thinker, the talker and code2wav did when in one spoken answer
    #[arg(long, value_name = "FILE.svg", conflicts_with = "no_speech")]
    pub(crate) timeline: Option<PathBuf>,
    /// Write one JSON object a figure to stdout, as they come
    #[arg(long)]
    pub(crate) json: bool,
}

/// What figures are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Prompt and decoded tokens
    Thinker,
    /// Talker and code predictor
    Talker,
    /// Codes that become samples
    #[value(name = "code2wav")]
    Code2Wav,
    /// Whole spoken answers
    Answer,
}

impl From<Part> for burn_omni::bench::Part {
    fn from(part: Part) -> Self {
        match part {
            Part::Thinker => Self::Thinker,
            Part::Talker => Self::Talker,
            Part::Code2Wav => Self::Code2Wav,
            Part::Answer => Self::Answer,
        }
    }
}

/// How matrices of the text decoder are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// 4-bit floats in blocks of 16
    Nvfp4,
    /// 4-bit floats in blocks of 32
    Mxfp4,
    /// 16-bit floats
    Bf16,
}

impl Format {
    pub(crate) fn quantize(self) -> Option<Quantize> {
        match self {
            Self::Nvfp4 => Some(Quantize::Nvfp4),
            Self::Mxfp4 => Some(Quantize::Mxfp4),
            Self::Bf16 => None,
        }
    }
}
