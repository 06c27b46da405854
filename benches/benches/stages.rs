//! The stages of requests to the demo model, as JSON lines `{"what", "value", "unit"}` with the names that
//! `benches/reference.py` prints for transformers: `benches/compare.sh` runs both and prints the ratios.

use std::path::Path;
use std::time::{Duration, Instant};

use burn::tensor::{DType, Device};
use burn_omni::{
    Answer, Content, Engine, EngineConfig, Event, Messages, Request, Sampling, SpeechRequest,
};
use burn_omni_benches::median;
use burn_omni_model::code2wav::Code2Wav;
use burn_omni_model::config::Config;
use burn_omni_quant::checkpoint::{Checkpoint, Component};
use burn_omni_quant::{LoadOptions, Warnings, load};

type Failure = Box<dyn std::error::Error>;

const REPEAT: usize = 9;
const QUESTION: &str = "Count from 2 to 6.";
const NEW_TOKENS: usize = 200;
const FRAMES: usize = 43;

fn main() -> Result<(), Failure> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let model = root.join("assets/omni-demo");
    let start = Instant::now();
    let engine = Engine::load(EngineConfig::new(&model).device(Device::flex()))?;
    print("load", start.elapsed().as_secs_f64(), "s");
    first_token(&engine, &root.join("tests/eval"))?;

    let request = Request::new()
        .user([Content::text(QUESTION)])
        .min_tokens(NEW_TOKENS)
        .max_tokens(NEW_TOKENS);
    let steps = (NEW_TOKENS - 1) as f64;
    let answers = run(&engine, &request)?;
    print(
        "thinker.decode",
        median_of(&answers, |answer| seconds(answer.timings.decode) / steps) * 1e3,
        "ms/token",
    );
    speech(&engine)?;
    code2wav(&model)
}

fn first_token(engine: &Engine, eval: &Path) -> Result<(), Failure> {
    let text = Request::new().user([Content::text(QUESTION)]);
    let cases = [
        ("text", text),
        ("audio", case(eval, "audio-000")?),
        ("image", case(eval, "image-000")?),
    ];
    for (what, request) in cases {
        let answers = run(engine, &request.max_tokens(1))?;
        let value = median_of(&answers, |answer| seconds(answer.timings.first_token));
        print(&format!("first_token.{what}"), value * 1e3, "ms");
    }
    Ok(())
}

/// A case of the evaluation set.
fn case(eval: &Path, id: &str) -> Result<Request, Failure> {
    for line in std::fs::read_to_string(eval.join("cases.jsonl"))?.lines() {
        let mut case: serde_json::Value = serde_json::from_str(line)?;
        if case["id"] == id {
            let conversation = Messages::from_value(case["messages"].take())?;
            return Ok(Request::new().conversation(conversation, eval));
        }
    }
    Err(format!("no case {id}").into())
}

fn speech(engine: &Engine) -> Result<(), Failure> {
    let speech = SpeechRequest {
        voice: Some("ethan".into()),
        sampling: Some(Sampling {
            repetition_penalty: 1.05,
            ..Sampling::GREEDY
        }),
        ..SpeechRequest::default()
    };
    let answers = run(
        engine,
        &Request::new()
            .user([Content::text(QUESTION)])
            .speech(speech),
    )?;
    let frames = |answer: &Answer| answer.usage.audio_frames as f64;
    print(
        "spoken_reply",
        median_of(&answers, |answer| seconds(answer.timings.total)),
        "s",
    );
    print("spoken_reply.frames", median_of(&answers, frames), "frames");
    let talker = median_of(&answers, |answer| {
        seconds(answer.timings.talker) / frames(answer)
    });
    print("talker.frame", talker * 1e3, "ms/frame");
    Ok(())
}

fn code2wav(model: &Path) -> Result<(), Failure> {
    let checkpoint = Checkpoint::open(model)?;
    let config = Config::from_checkpoint(&checkpoint)?
        .code2wav
        .ok_or("the demo model speaks")?;
    let tensors = checkpoint
        .component(Component::Code2Wav)
        .ok_or("the demo model speaks")?;
    let (device, warnings) = (Device::flex(), Warnings::new());
    let options = LoadOptions::new(&device, DType::F32, &warnings);
    let code2wav = load(tensors, options, |weights| Code2Wav::load(weights, &config))?;
    let groups = config.num_quantizers;
    let code = |group: usize, frame: usize| {
        ((group * FRAMES + frame) * 7919 % config.codebook_size) as u32
    };
    let frames: Vec<Vec<u32>> = (0..FRAMES)
        .map(|f| (0..groups).map(|g| code(g, f)).collect())
        .collect();
    let mut times = Vec::new();
    for _ in 0..=REPEAT {
        let start = Instant::now();
        code2wav.decode(&frames)?;
        times.push(start.elapsed().as_secs_f64());
    }
    print(
        &format!("code2wav.{FRAMES}"),
        median(times.split_off(1)),
        "s",
    );
    Ok(())
}

/// The answers to a request, after one that warms up.
fn run(engine: &Engine, request: &Request) -> Result<Vec<Answer>, burn_omni::Error> {
    let once = || {
        let mut last = Answer::default();
        for event in engine.generate(request.clone())? {
            if let Event::Done(answer) = event? {
                last = *answer;
            }
        }
        Ok(last)
    };
    once()?;
    (0..REPEAT).map(|_| once()).collect()
}

fn median_of(answers: &[Answer], f: impl Fn(&Answer) -> f64) -> f64 {
    median(answers.iter().map(f).collect())
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

#[expect(clippy::print_stdout, reason = "the figures are the output")]
fn print(what: &str, value: f64, unit: &str) {
    println!(
        "{}",
        serde_json::json!({"what": what, "value": value, "unit": unit})
    );
}
