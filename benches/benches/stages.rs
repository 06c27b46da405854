//! The stages of requests to the demo model, as JSON lines `{"what", "value", "unit"}` with the names that
//! `benches/reference.py` prints for transformers, so that both can be run one after the other and compared.

use std::time::{Duration, Instant};

use burn_omni::{
    Answer, Content, Device, Engine, EngineConfig, Event, Request, Sampling, SpeechRequest,
};
use burn_omni_benches::median;

const REPEAT: usize = 7;

fn main() -> Result<(), burn_omni::Error> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let start = Instant::now();
    let engine =
        Engine::load(EngineConfig::new(format!("{root}/assets/omni-demo")).device(Device::flex()))?;
    print("load", start.elapsed().as_secs_f64(), "s");

    let media = |name: &str| format!("{root}/tests/eval/media/{name}");
    let prompts = [
        (
            "first_token.text",
            vec![Content::text("What is three plus four?")],
        ),
        (
            "first_token.audio",
            vec![Content::audio_file(media("audio-000.wav"))],
        ),
        (
            "first_token.image",
            vec![
                Content::image_file(media("image-002.png")),
                Content::text("What is this?"),
            ],
        ),
    ];
    for (what, parts) in prompts {
        let request = Request::new().user(parts).max_tokens(1);
        let times = repeat(&engine, &request, |answer| {
            seconds(answer.timings.first_token)
        })?;
        print(what, median(times) * 1e3, "ms");
    }

    let request = Request::new()
        .user([Content::text("Hello!")])
        .min_tokens(200)
        .max_tokens(200);
    let times = repeat(&engine, &request, |answer| {
        seconds(answer.timings.decode) / 199.0
    })?;
    print("decode", median(times) * 1e3, "ms/token");

    let speech = SpeechRequest {
        voice: Some("ethan".into()),
        sampling: Some(Sampling {
            repetition_penalty: 1.05,
            ..Sampling::GREEDY
        }),
        ..SpeechRequest::default()
    };
    let request = Request::new()
        .user([Content::text("Count from 2 to 6.")])
        .speech(speech);
    let frames = |answer: &Answer| answer.usage.audio_frames as f64;
    let answers = run(&engine, &request)?;
    print("spoken_reply.frames", frames(&answers[0]), "frames");
    print(
        "spoken_reply",
        median_of(&answers, |answer| seconds(answer.timings.total)),
        "s",
    );
    let talker = median_of(&answers, |answer| {
        seconds(answer.timings.talker) / frames(answer)
    });
    print("talker", talker * 1e3, "ms/frame");
    let code2wav = median_of(&answers, |answer| {
        seconds(answer.timings.code2wav) / frames(answer)
    });
    print("code2wav", code2wav * 1e3, "ms/frame");
    Ok(())
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

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
    once()?; // warms caches up
    (0..REPEAT).map(|_| once()).collect()
}

fn repeat(
    engine: &Engine,
    request: &Request,
    f: impl Fn(&Answer) -> f64,
) -> Result<Vec<f64>, burn_omni::Error> {
    Ok(run(engine, request)?.iter().map(f).collect())
}

fn median_of(answers: &[Answer], f: impl Fn(&Answer) -> f64) -> f64 {
    median(answers.iter().map(f).collect())
}

#[expect(clippy::print_stdout, reason = "the figures are the output")]
fn print(what: &str, value: f64, unit: &str) {
    println!(
        "{}",
        serde_json::json!({"what": what, "value": value, "unit": unit})
    );
}
