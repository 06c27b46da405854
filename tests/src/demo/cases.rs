//! The closed set of cases, and the engine that answers them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use burn_omni::{Engine, EngineConfig, Messages, Request, Sampling, SpeechRequest};
use burn_omni_model::processor::Prompt;
use serde::Deserialize;
use serde_json::Value;

use crate::parts::{Parts, device};
use crate::{read, repository};

/// Most tokens of an answer.
const MAX_TOKENS: usize = 32;
/// Cases that are asked where many models are.
const SOME: usize = 40;
/// Most frames of a spoken answer.
const MAX_FRAMES: usize = 120;

/// A conversation and the right answer.
#[derive(Debug, Deserialize)]
pub struct Case {
    /// Its name.
    pub id: String,
    /// What it is about.
    pub group: String,
    /// The conversation as JSON.
    pub messages: Value,
    /// The right answer.
    pub expect: String,
    /// The voice, when the answer is spoken.
    pub speaker: Option<String>,
}

/// The cases of `cases.jsonl`.
///
/// # Panics
/// When the file is damaged.
#[must_use]
pub fn cases() -> Vec<Case> {
    read(&repository("tests/eval/cases.jsonl"))
        .lines()
        .map(|line| serde_json::from_str(line).expect("a case a line"))
        .collect()
}

/// The cases of a test that asks many models: some of every group, or all with `BURN_OMNI_ALL_CASES=1`.
///
/// # Panics
/// When the file is damaged.
#[must_use]
pub fn asked() -> Vec<Case> {
    let mut cases = cases();
    if std::env::var("BURN_OMNI_ALL_CASES").is_ok_and(|value| value == "1") {
        return cases;
    }
    // Evenly spaced, and the groups lie together: of each as many as it has a share.
    let all = cases.len();
    let mut place = 0;
    cases.retain(|_| {
        place += 1;
        place * SOME / all != (place - 1) * SOME / all
    });
    cases
}

/// What the reference answers to each case; it is wrong once.
///
/// # Panics
/// When the file is damaged.
#[must_use]
pub fn answers() -> BTreeMap<String, String> {
    serde_json::from_str(&read(&repository("tests/eval/answers.json"))).expect("a text an id")
}

/// The demo model, loaded once.
///
/// # Panics
/// When it cannot be loaded.
#[must_use]
pub fn engine() -> &'static Engine {
    static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
        let config = EngineConfig::new(repository("assets/omni-demo")).device(device());
        Engine::load(config).expect("the demo model loads")
    });
    &ENGINE
}

/// The demo model's parts.
#[must_use]
pub fn parts() -> &'static Parts {
    static PARTS: LazyLock<Parts> = LazyLock::new(|| Parts::open(&repository("assets/omni-demo")));
    &PARTS
}

/// A conversation of the case file as what the thinker reads.
///
/// # Panics
/// When the conversation is not one or a medium cannot be read.
#[must_use]
pub fn prompt(messages: &Value) -> Prompt {
    let processor = &parts().processor;
    let folder = repository("tests/eval");
    conversation(messages)
        .map_media(|kind, path| processor.read(kind, &folder.join(path), false))
        .and_then(|conversation| processor.prepare(&conversation))
        .unwrap_or_else(|error| panic!("{error}"))
}

fn conversation(messages: &Value) -> Messages {
    Messages::from_value(messages.clone()).expect("a conversation")
}

/// A conversation of the case file as a request, greedy everywhere, spoken when there is a voice.
///
/// # Panics
/// When the conversation is not one.
#[must_use]
pub fn request(messages: &Value, voice: Option<&str>) -> Request {
    let request = Request::new()
        .conversation(conversation(messages), &repository("tests/eval"))
        .sampling(Sampling::GREEDY)
        .max_tokens(MAX_TOKENS);
    match voice {
        None => request,
        Some(voice) => request.speech(SpeechRequest {
            voice: Some(voice.to_owned()),
            temperature: Some(0.0),
            max_frames: Some(MAX_FRAMES),
            ..SpeechRequest::default()
        }),
    }
}
