//! `burn-omni run`: one request.

mod question;
mod report;

use std::cell::Cell;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use burn_omni::{FinishReason, Request, Speech, SpeechRequest, WavWriter};

use self::question::Question;
use self::report::Report;
use super::load::{Loaded, Voice, load, sampling};
use crate::answer::{self, AfterInterrupt, AudioOut, Finished};
use crate::args::{RunArgs, SpeechArgs};
use crate::failure::Failure;
use crate::output::{self, Output};

/// Where speech goes that was asked for without a place.
const DEFAULT_WAV: &str = "answer.wav";

/// Where the speech goes.
#[derive(Debug, PartialEq, Eq)]
enum Destination {
    Nowhere,
    File(PathBuf),
    Stdout,
}

/// Answers one request.
pub(crate) fn run(args: RunArgs, output: &Output) -> Result<(), Failure> {
    let output = output.without_progress(args.json);
    let destination = destination(&args)?;
    let question = Question::read(&args)?;
    let voice = match destination {
        Destination::Nowhere => Voice::None,
        _ => Voice::Wanted(args.speech.voice.clone()),
    };
    let loaded = load(&args.model, voice, &output)?;
    let request = request(&args, question, &destination, &loaded);
    let audio = match &destination {
        Destination::Nowhere => AudioOut::None,
        Destination::File(path) => AudioOut::wav(path)?,
        Destination::Stdout => AudioOut::Raw,
    };
    let text_on_stdout = destination != Destination::Stdout;
    let to_file = matches!(destination, Destination::File(_));
    let midway = Cell::new(false);
    let say = |text: &str| {
        midway.set(!text.ends_with('\n'));
        match (args.json, text_on_stdout) {
            (true, _) => {}
            (false, true) => match output::data(text) {
                // Nobody reads the text any more, but the file was asked for as well.
                Err(gone) if gone.kind() == io::ErrorKind::BrokenPipe && to_file => {}
                written => written?,
            },
            (false, false) => output.note_part(text),
        }
        Ok(())
    };
    let ask = || loaded.engine.generate(request);
    let outcome = answer::give(ask, audio, AfterInterrupt::Leave, say);
    if midway.get() || outcome.is_ok() {
        say("\n")?;
    }
    let finished = outcome?;
    if args.json {
        output::json(&Report::new(&finished, &loaded, args.speech.dump_codes))?;
    }
    conclude(&finished, &output);
    Ok(())
}

/// Where the speech goes; whether it can go there is found out before minutes are spent on it.
fn destination(args: &RunArgs) -> Result<Destination, Failure> {
    let SpeechArgs { speak, output, .. } = &args.speech;
    let path = match (output, speak) {
        (None, false) => return Ok(Destination::Nowhere),
        (None, true) => Path::new(DEFAULT_WAV),
        (Some(path), _) => path,
    };
    if path != Path::new("-") {
        WavWriter::check(path)?;
        return Ok(Destination::File(path.into()));
    }
    if args.json {
        return Err(Failure::usage(
            "--json and -o - both want stdout",
            "write the speech to a file: -o answer.wav",
        ));
    }
    if io::stdout().is_terminal() {
        return Err(Failure::usage(
            "-o - writes raw samples, which a terminal cannot show",
            "pipe them on, for example `| aplay -f S16_LE -r 24000`, or write a file: -o answer.wav",
        ));
    }
    Ok(Destination::Stdout)
}

fn request(
    args: &RunArgs,
    question: Question,
    destination: &Destination,
    loaded: &Loaded,
) -> Request {
    let mut request = question.into_request().seed(args.model.seed);
    request = request.on_overflow(args.model.on_overflow.into());
    request = request.use_audio_in_video(args.use_audio_in_video);
    if let Some(sampling) = sampling(&args.text, &loaded.engine) {
        request = request.sampling(sampling);
    }
    if let Some(tokens) = args.text.max_tokens {
        request = request.max_tokens(tokens);
    }
    if *destination == Destination::Nowhere {
        return request;
    }
    let SpeechArgs {
        voice,
        talker_temperature,
        max_frames,
        first_chunk,
        chunk,
        ..
    } = &args.speech;
    let usual = SpeechRequest::default();
    request.speech(SpeechRequest {
        voice: voice.clone(),
        temperature: *talker_temperature,
        max_frames: *max_frames,
        first_chunk: first_chunk.unwrap_or(usual.first_chunk),
        chunk: chunk.unwrap_or(usual.chunk),
        ..usual
    })
}

/// Says on stderr what the answer itself does not show.
fn conclude(finished: &Finished, output: &Output) {
    let answer = &finished.answer;
    if let Some(line) = answer::describe_speech(finished) {
        output.note(line);
    }
    if answer.finish_reason == FinishReason::Length {
        let tokens = answer.usage.completion_tokens;
        output.note(format!(
            "note: the answer was cut off after {tokens} tokens, see --max-tokens and --max-context"
        ));
    }
    let cut = |speech: &&Speech| speech.finish_reason == FinishReason::Length;
    if let Some(speech) = answer.speech.as_ref().filter(cut) {
        let frames = speech.codes.len();
        output.note(format!(
            "note: the speech was cut off after {frames} frames, see --max-frames"
        ));
    }
    tracing::info!(target: "burn_omni", usage = ?answer.usage, timings = ?answer.timings, "answered");
}
