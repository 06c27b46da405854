//! `quantize`.

use std::path::PathBuf;

use burn_omni_quant::write::{Form, Glob, WriteOptions};
use clap::{Args, ValueEnum};

use super::values;

/// Examples below the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  burn-omni quantize Qwen3-Omni-30B-A3B-Instruct qwen3-omni-nvfp4
  burn-omni quantize Qwen3-Omni-30B-A3B-Instruct qwen3-omni-ct --format nvfp4-ct --quantize-talker
  burn-omni quantize assets/omni-demo demo-mxfp4 --format mxfp4 --ignore '*.layers.0' --json";

/// What is quantized, and how.
#[derive(Debug, Args)]
pub(crate) struct QuantizeArgs {
    /// Checkpoint folder in BF16, F16 or F32, in either layout
    #[arg(value_name = "SRC")]
    pub(crate) source: PathBuf,
    /// Folder to write to, made when it does not exist
    #[arg(value_name = "DST")]
    pub(crate) destination: PathBuf,
    /// What is written
    #[arg(long, value_name = "FORMAT", default_value = "nvfp4")]
    pub(crate) format: Format,
    /// Leave modules as they are whose names match, and all below them
    ///
    /// A shell glob over names like `thinker.model.layers.0.mlp.experts.3.up_proj`, with or without the first part; `*`
    /// also stands for dots. Routers, embeddings, norms, encoders, the code predictor and code2wav always stay as they
    /// are.
    #[arg(long, value_name = "GLOB")]
    pub(crate) ignore: Vec<Glob>,
    /// Quantize the talker's layers too
    #[arg(long)]
    pub(crate) quantize_talker: bool,
    /// Quantize the head too, and with --quantize-talker that of the talker
    #[arg(long)]
    pub(crate) quantize_head: bool,
    /// Largest size of a file with weights
    #[arg(long, value_name = "SIZE", value_parser = values::size, default_value = "5GB")]
    pub(crate) shard_size: u64,
    /// Replace the checkpoint in DST; other files in it stay
    #[arg(long)]
    pub(crate) force: bool,
    /// Write one JSON object to stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// NVFP4 as nvidia-modelopt writes it: thinker/, talker/ and code2wav/
    Nvfp4,
    /// NVFP4 as compressed-tensors writes it, in one folder
    Nvfp4Ct,
    /// MXFP4 as compressed-tensors writes it, in one folder
    Mxfp4,
}

impl QuantizeArgs {
    pub(crate) fn options(&self) -> WriteOptions {
        WriteOptions {
            form: match self.format {
                Format::Nvfp4 => Form::ModelOpt,
                Format::Nvfp4Ct => Form::CompressedTensors,
                Format::Mxfp4 => Form::Mxfp4,
            },
            ignore: self.ignore.clone(),
            talker: self.quantize_talker,
            head: self.quantize_head,
            shard_bytes: self.shard_size,
        }
    }
}
