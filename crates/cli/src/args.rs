//! What can be typed.

mod bench;
mod media;
mod on_load;
mod quantize;
mod values;

use std::path::PathBuf;

use burn_omni::Overflow;
use clap::{ArgAction, ArgGroup, Args, Parser, Subcommand, ValueEnum};

pub(crate) use bench::BenchArgs;
pub(crate) use media::{MediaArgs, Medium};
pub(crate) use on_load::{OnLoad, OnLoadArg};
pub(crate) use quantize::QuantizeArgs;

use crate::device::Choice;
use crate::model_dir::VARIABLE;

/// Qwen3-Omni: text, audio, images and video in; text and speech out
///
/// Runs a checkpoint folder of Qwen3-Omni, the tiny demo model by default. Answers are written to stdout, messages to
/// stderr. The exit code is 0 when it is done, 1 when the request or the run failed, 2 when the command line is wrong.
///
/// CUDA kernels are compiled once and kept in the user's cache folder. The variable BURN_OMNI_CACHE names another folder, or none
/// when it is empty.
#[derive(Debug, Parser)]
#[command(
    name = "burn-omni",
    version,
    max_term_width = 100,
    infer_long_args = false
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) messages: MessageArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Answer one request: the text goes to stdout as it is made, speech to a file
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<RunArgs>),
    /// Hold a conversation in the terminal
    Chat(ChatArgs),
    /// Write a quantized copy of a checkpoint
    ///
    /// Weights alone are quantized, each to the nearest value. A run that is stopped leaves a folder that no reader takes for
    /// a checkpoint; the same command goes on where it stopped.
    #[command(after_help = quantize::EXAMPLES)]
    Quantize(QuantizeArgs),
    /// Show what a checkpoint holds, whether it is complete, and the memory it takes
    Inspect(InspectArgs),
    /// Measure the speed of each stage, with a checkpoint or without any
    ///
    /// Every figure is the median of several measurements, with the smallest and the largest beside it. Where the bytes of
    /// the weights are the limit, it says which share of the device's copy bandwidth they came to, which is measured in the
    /// same run.
    #[command(after_help = bench::EXAMPLES)]
    Bench(BenchArgs),
    /// Show devices, drivers and tools, and whether the chosen device can run a model
    Doctor(DoctorArgs),
}

const RUN_EXAMPLES: &str = "\
Examples:
  burn-omni run -p \"What is three plus four?\"
  burn-omni run -p \"Count from 2 to 6.\" --speak -o answer.wav
  burn-omni run --audio question.wav --image photo.png -p \"What is this?\"
  echo \"Spell 407.\" | burn-omni run --json";

/// How much is said on stderr.
#[derive(Debug, Args)]
#[command(next_help_heading = "Messages")]
pub(crate) struct MessageArgs {
    /// Say nothing on stderr but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Show the log on stderr; repeat for more
    ///
    /// -v shows what is done and how long it took, -vv and -vvv what the parts below do. The variable RUST_LOG overrides
    /// what is chosen. Internal errors come with a back-trace.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Show no progress bars
    ///
    /// They are only shown on a terminal anyway, and never with --quiet or --json.
    #[arg(long, global = true)]
    pub(crate) no_progress: bool,
}

/// What runs the request, and on what.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct ModelArgs {
    #[command(flatten)]
    pub(crate) model: ModelDir,
    #[command(flatten)]
    pub(crate) device: DeviceArg,
    /// Number format of activations
    ///
    /// Weights stay in the format they are stored in. Activations are f32 on every device so far.
    #[arg(long, value_name = "TYPE", default_value = "auto")]
    pub(crate) dtype: Dtype,
    #[command(flatten)]
    pub(crate) quantize: OnLoadArg,
    /// Round prompts to 4 bits too where 4-bit weights multiply them: faster, less exact
    ///
    /// For weights in NVFP4 or MXFP4 on NVIDIA GPUs of compute capability 12.0 and 12.1. Single tokens, which would gain
    /// nothing by it, are not rounded. Not yet run on such a GPU: see `burn-omni doctor --kernels`.
    #[arg(long)]
    pub(crate) w4a4: bool,
    #[command(flatten)]
    pub(crate) context: ContextArg,
    /// What happens to a conversation that does not fit: error, drop-oldest
    ///
    /// `drop-oldest` forgets the oldest questions with their answers until there is room for an answer: a quarter of the
    /// context, or --max-tokens where that is less. Instructions and the last question stay.
    #[arg(long, value_name = "WHAT", default_value = "error")]
    pub(crate) on_overflow: OnOverflow,
    /// Seed of all random choices: the same seed gives the same answer
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        default_value_t = 0
    )]
    pub(crate) seed: u64,
}

/// Number format of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dtype {
    /// The best that the device has
    Auto,
    /// 32 bits
    F32,
    /// 16 bits with the exponent of f32
    Bf16,
    /// 16 bits
    F16,
}

/// Number format of keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KvDtype {
    /// bf16 in captured steps, else f32
    Auto,
    /// 16 bits with the exponent of f32
    Bf16,
    /// 8 bits, E4M3
    Fp8,
}

impl From<KvDtype> for burn_omni::KvDtype {
    fn from(dtype: KvDtype) -> Self {
        match dtype {
            KvDtype::Auto => Self::Auto,
            KvDtype::Bf16 => Self::Bf16,
            KvDtype::Fp8 => Self::Fp8,
        }
    }
}

/// What happens to a conversation that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnOverflow {
    /// It is refused
    Error,
    /// Its oldest turns are forgotten
    DropOldest,
}

impl From<OnOverflow> for Overflow {
    fn from(on_overflow: OnOverflow) -> Self {
        match on_overflow {
            OnOverflow::Error => Self::Error,
            OnOverflow::DropOldest => Self::DropOldest,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ModelDir {
    /// Checkpoint folder [default: the demo model]
    ///
    /// A folder in either layout: one with an index, or thinker/, talker/ and code2wav/. Without it the demo model is
    /// taken: ./assets/omni-demo, else assets/omni-demo beside the executable, else burn-omni/omni-demo in your data
    /// folder ($XDG_DATA_HOME or ~/.local/share).
    #[arg(short = 'm', long = "model", value_name = "DIR", env = VARIABLE, hide_env_values = true)]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DeviceArg {
    /// Where to compute: auto, cpu, cuda or cuda:N, vulkan or vulkan:N, vulkan:cpu, wgpu, metal
    ///
    /// `auto` takes the first compiled-in backend that has a device, cards before the CPU. `vulkan:cpu` is a Vulkan adapter
    /// that is a program, which is slow and never taken by itself. See `burn-omni doctor` for the devices of this machine.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub(crate) device: Choice,
}

#[derive(Debug, Args)]
pub(crate) struct ContextArg {
    /// Longest prompt and answer together, in tokens [default: what the model was made for; on NVIDIA GPUs, where room is
    /// made when the model is loaded, 32768 at most]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = values::count)]
    pub(crate) max_context: Option<usize>,
    /// Number format of the thinker's keys and values: auto, bf16, fp8
    ///
    /// `auto` is bf16 where tokens come from captured steps (NVIDIA GPUs from compute capability 8.0 on), else f32. `fp8` is
    /// E4M3 without a scale, which takes half of what bf16 takes and is less exact: a context of 32768 tokens of
    /// Qwen3-Omni-30B-A3B then takes 1.5 GiB, not 3. Speech keeps its own.
    #[arg(long, value_name = "TYPE", default_value = "auto")]
    pub(crate) kv_dtype: KvDtype,
    /// Memory that the model may take on its device, such as 31GiB [default: what is free there, where that is known]
    ///
    /// Without --max-context the context becomes as long as fits; with it, a model that does not fit is refused before a
    /// weight is read.
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub(crate) memory_limit: Option<u64>,
}

/// How the text is chosen.
#[derive(Debug, Args)]
#[command(next_help_heading = "Text")]
pub(crate) struct TextArgs {
    /// Longest answer, in tokens [default: the checkpoint's, else 1024]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = values::count)]
    pub(crate) max_tokens: Option<usize>,
    /// Randomness: 0 always takes the likeliest token [default: the checkpoint's, else 0]
    #[arg(long, value_name = "F", allow_negative_numbers = true, value_parser = values::temperature)]
    pub(crate) temperature: Option<f32>,
    /// Choose among the N likeliest tokens; 0 is all
    ///
    /// Without --temperature, and where the checkpoint has none, the temperature is then 1.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) top_k: Option<usize>,
    /// Choose among the likeliest tokens whose probabilities reach F together; 1 is all
    ///
    /// Without --temperature, and where the checkpoint has none, the temperature is then 1.
    #[arg(long, value_name = "F", allow_negative_numbers = true, value_parser = values::share)]
    pub(crate) top_p: Option<f32>,
    /// Make tokens that occurred less likely; 1 is off
    #[arg(long, value_name = "F", allow_negative_numbers = true, value_parser = values::positive)]
    pub(crate) repetition_penalty: Option<f32>,
}

/// `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// What to ask; without it the text is read from stdin unless that is a terminal
    #[arg(short, long, value_name = "TEXT", help_heading = "Request")]
    pub(crate) prompt: Option<String>,
    /// A whole conversation as JSON, `-` for stdin
    ///
    /// A list of {"role", "content"}, where content is a text or a list of parts like {"type": "audio", "audio":
    /// "question.wav"}. Paths are relative to the file. Media and prompt of the command line follow as the last message.
    #[arg(long, value_name = "FILE.json", help_heading = "Request")]
    pub(crate) messages: Option<PathBuf>,
    /// Instructions that stand before the conversation
    #[arg(long, value_name = "TEXT", help_heading = "Request")]
    pub(crate) system: Option<String>,
    #[command(flatten)]
    pub(crate) media: MediaArgs,
    /// Hear the sound of videos too
    #[arg(long, help_heading = "Request")]
    pub(crate) use_audio_in_video: bool,
    #[command(flatten)]
    pub(crate) text: TextArgs,
    #[command(flatten)]
    pub(crate) speech: SpeechArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Write one JSON object with text, token ids, times and memory to stdout
    #[arg(long, help_heading = "Messages")]
    pub(crate) json: bool,
}

/// How the answer is spoken.
#[derive(Debug, Args)]
#[command(
    next_help_heading = "Speech",
    group = ArgGroup::new("spoken").args(["speak", "output"]).multiple(true)
)]
pub(crate) struct SpeechArgs {
    /// Speak the answer
    #[arg(long)]
    pub(crate) speak: bool,
    /// Where the speech goes, with --speak implied; `-` is raw 24 kHz s16le on stdout [default: answer.wav]
    ///
    /// The file is replaced when it exists, and appears only when it is whole; Ctrl-C ends it where the speech was. A pipe
    /// gets its samples as they are made. With `-` the text goes to stderr.
    #[arg(short, long, value_name = "FILE.wav")]
    pub(crate) output: Option<PathBuf>,
    /// Who speaks [default: the checkpoint's first choice]
    #[arg(long, value_name = "NAME", requires = "spoken")]
    pub(crate) voice: Option<String>,
    /// Randomness of the voice: 0 always takes the likeliest sound [default: the checkpoint's]
    #[arg(long, value_name = "F", allow_negative_numbers = true, value_parser = values::temperature, requires = "spoken")]
    pub(crate) talker_temperature: Option<f32>,
    /// Longest speech, in frames of 80 ms [default: the checkpoint's]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = values::count, requires = "spoken")]
    pub(crate) max_frames: Option<usize>,
    /// Frames of the first packet of sound: fewer start sooner
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = values::count, requires = "spoken")]
    pub(crate) first_chunk: Option<usize>,
    /// Frames of the largest packets; those before it double
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = values::count, requires = "spoken")]
    pub(crate) chunk: Option<usize>,
    /// Put the codes of every frame into the JSON result
    #[arg(long, requires = "spoken", requires = "json")]
    pub(crate) dump_codes: bool,
}

/// `chat`.
#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    /// Instructions that stand before the conversation
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Speak the answers in this voice, into answer-001.wav and so on
    #[arg(long, value_name = "NAME")]
    pub(crate) voice: Option<String>,
    #[command(flatten)]
    pub(crate) text: TextArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

/// `inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) model: ModelDir,
    #[command(flatten)]
    pub(crate) quantize: OnLoadArg,
    #[command(flatten)]
    pub(crate) context: ContextArg,
    /// Read every tensor and report those with NaN or infinite weights, or with scales that are none
    #[arg(long)]
    pub(crate) check: bool,
    /// Write one JSON object to stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// `doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) model: ModelDir,
    #[command(flatten)]
    pub(crate) device: DeviceArg,
    /// Check every operation of the device against its reference
    #[arg(long)]
    pub(crate) kernels: bool,
    /// Write one JSON object to stdout
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
