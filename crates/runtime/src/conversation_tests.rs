//! What a conversation keeps of its turns, with the demo model.

use std::sync::LazyLock;

use burn::tensor::Device;
use burn_omni_model::processor::media::{LogMel, Pcm};

use super::*;
use crate::{Answer, Content, EngineConfig, Sampling};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/omni-demo");
/// Tokens of an answer: few enough that none of its events has to be read before it ends.
const TOKENS: usize = 16;

fn engine() -> &'static Engine {
    static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
        let config = EngineConfig::new(DEMO).device(Device::flex());
        Engine::load(config).expect("the demo model loads")
    });
    &ENGINE
}

fn asked(request: Request) -> Request {
    let request = request.sampling(Sampling::GREEDY);
    request.min_tokens(TOKENS).max_tokens(TOKENS)
}

fn turn(conversation: &mut Conversation, request: Request) -> Answer {
    let stream = conversation.send(request).expect("it is sound");
    match stream.last() {
        Some(Ok(Event::Done(answer))) => *answer,
        other => panic!("{other:?}"),
    }
}

/// Where the features of the clips are that a conversation keeps.
fn clips(conversation: &Conversation) -> Vec<*const [f32]> {
    let shared = lock(&conversation.shared);
    let messages = shared.asked.as_ref().unwrap_or(&shared.messages);
    let media = messages.iter().flat_map(Message::media);
    let mels = media.filter_map(|(_, medium)| match medium {
        Media::Prepared(features) => features.audio(),
        Media::Decoded(_) | Media::File(_) => None,
    });
    mels.map(|mel: &LogMel| Arc::as_ptr(&mel.data)).collect()
}

#[test]
fn a_medium_is_prepared_once() {
    let clip = |n: usize| {
        let value = |i: usize| ((i * (n + 7)) % 100) as f32 / 100.0 - 0.5;
        let samples = (0..16_000).map(value).collect();
        let pcm = Pcm {
            sample_rate: 16_000,
            samples,
        };
        asked(Request::new().user([Content::audio(pcm), Content::text("What is said?")]))
    };
    let mut conversation = engine().conversation();
    let first = turn(&mut conversation, clip(0));
    let mut known = clips(&conversation);
    assert_eq!(known.len(), 1);
    for n in 1..4 {
        let next = turn(&mut conversation, clip(n));
        // Neither are rows of it passed again, so it is not encoded either.
        assert!(next.usage.cached_tokens >= first.usage.prompt_tokens);
        let now = clips(&conversation);
        assert_eq!(now.len(), n + 1);
        assert_eq!(now[..n], known, "turn {n}");
        known = now;
    }
}
