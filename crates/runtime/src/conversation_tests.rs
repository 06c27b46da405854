//! What a conversation keeps of its turns, with the demo model.

use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use burn_omni_model::processor::media::{LogMel, Pcm};

use super::*;
use crate::threads::tests::without;
use crate::{Content, EngineConfig, Sampling};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/omni-demo");
const QUESTIONS: [&str; 2] = ["What is three plus four?", "Count from 2 to 6."];
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

fn ask(question: &str) -> Request {
    asked(Request::new().user([Content::text(question)]))
}

/// Reads an answer to its end, with the text that came before it.
fn read(stream: Stream) -> (String, Answer) {
    let (mut text, mut answer) = (String::new(), None);
    for event in stream {
        match event.expect("nothing fails") {
            Event::Text(delta) => text += &delta,
            Event::Audio(_) => {}
            Event::Done(done) => answer = Some(*done),
        }
    }
    (text, answer.expect("an answer"))
}

fn turn(conversation: &mut Conversation, request: Request) -> Answer {
    read(conversation.send(request).expect("it is sound")).1
}

/// The last answer, once it has ended.
fn ended(conversation: &mut Conversation) -> String {
    let begun = Instant::now();
    loop {
        match conversation.last_answer() {
            Ok(text) => return text.to_owned(),
            Err(Error::Busy) => thread::sleep(Duration::from_millis(1)),
            Err(error) => panic!("{error}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it never ends");
    }
}

#[test]
fn an_answer_that_has_ended_is_whole_before_it_is_read() {
    let (first, _) = read(engine().generate(ask(QUESTIONS[0])).expect("it is sound"));
    let both = Request::new().user([Content::text(QUESTIONS[0])]);
    let both = both.assistant(first.clone());
    let both = asked(both.user([Content::text(QUESTIONS[1])]));
    let (_, second) = read(engine().generate(both).expect("it is sound"));
    // None, one or all of its events are read before the next turn.
    for events in [0, 1, usize::MAX] {
        let mut conversation = engine().conversation();
        let stream = conversation.send(ask(QUESTIONS[0]));
        let mut stream = stream.expect("it is sound");
        let mut text = String::new();
        for event in stream.by_ref().take(events) {
            if let Event::Text(delta) = event.expect("nothing fails") {
                text += &delta;
            }
        }
        assert_eq!(ended(&mut conversation), first, "{events} events read");
        let next = turn(&mut conversation, ask(QUESTIONS[1]));
        assert_eq!(next.token_ids, second.token_ids, "{events} events read");
        let prompt = next.usage.prompt_tokens;
        assert_eq!(prompt, second.usage.prompt_tokens, "{events} events read");
        // What was not read still can be.
        for event in stream {
            if let Event::Text(delta) = event.expect("nothing fails") {
                text += &delta;
            }
        }
        assert_eq!(text, first, "{events} events read");
    }
}

#[test]
fn an_answer_that_is_left_is_cut_though_it_had_ended() {
    let mut conversation = engine().conversation();
    let stream = conversation.send(ask(QUESTIONS[0]));
    let mut stream = stream.expect("it is sound");
    let Some(Ok(Event::Text(text))) = stream.next() else {
        panic!("it writes");
    };
    assert!(ended(&mut conversation).len() > text.len());
    drop(stream);
    assert_eq!(ended(&mut conversation), text);
    let stream = conversation.send(ask(QUESTIONS[0])).expect("it is sound");
    ended(&mut conversation);
    drop(stream);
    assert_eq!(ended(&mut conversation), "");
}

#[test]
fn without_a_thread_the_turn_is_refused_and_the_next_goes_on() {
    let mut conversation = engine().conversation();
    let first = turn(&mut conversation, ask(QUESTIONS[0]));
    let expected = turn(&mut conversation, ask(QUESTIONS[1]));
    let mut conversation = engine().conversation();
    assert_eq!(
        turn(&mut conversation, ask(QUESTIONS[0])).token_ids,
        first.token_ids
    );
    for _ in 0..2 {
        let refused = without(|| conversation.send(ask(QUESTIONS[1])));
        assert!(matches!(refused, Err(Error::NoThread { .. })));
        assert_eq!(conversation.last_answer().expect("it is over"), first.text);
    }
    let second = turn(&mut conversation, ask(QUESTIONS[1]));
    assert_eq!(second.token_ids, expected.token_ids);
    let kept = second.usage.cached_tokens;
    assert!(kept > 0, "the rows of the first turn are still kept");
    let refused = without(|| engine().generate(ask(QUESTIONS[0])));
    assert!(matches!(refused, Err(Error::NoThread { .. })));
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

#[test]
fn who_waits_gives_its_rows_up_when_another_needs_the_room() {
    let alone = |engine: &Engine| {
        let mut conversation = engine.conversation();
        QUESTIONS.map(|question| turn(&mut conversation, ask(question)))
    };
    let expected = alone(engine());
    assert!(expected[1].usage.cached_tokens > 0);
    let rows = |turn: usize| expected[turn].usage.prompt_tokens + TOKENS;
    // Room for the rows of one first turn, and of two second ones.
    for (room, keeps) in [(rows(0) * 3 / 2, false), (rows(1) * 2, true)] {
        let row = engine().model().stages.row_bytes().thinker;
        let engine = engine().with_room(row * room as u64);
        assert!(alone(&engine)[1].usage.cached_tokens > 0, "one has room");
        let mut both = [engine.conversation(), engine.conversation()];
        for (i, question) in QUESTIONS.into_iter().enumerate() {
            for conversation in &mut both {
                let answer = turn(conversation, ask(question));
                assert_eq!(answer.token_ids, expected[i].token_ids);
                let kept = answer.usage.cached_tokens > 0;
                assert_eq!(kept, i > 0 && keeps, "{room} rows, turn {i}");
            }
        }
    }
}

#[test]
fn an_answer_without_room_is_refused_in_one_line_until_another_has_ended() {
    let rows = engine().model().stages.row_bytes().thinker;
    let engine = engine().with_room(rows * 1000);
    let long = || {
        let mut long = ask(QUESTIONS[0]).min_tokens(4000).max_tokens(4000);
        long.endless = true;
        long
    };
    // Alone it has more than its room.
    let mut first = engine.generate(long()).expect("it is sound");
    assert!(matches!(first.next(), Some(Ok(Event::Text(_)))));
    let mut conversation = engine.conversation();
    let refused = conversation.send(ask(QUESTIONS[1])).expect("it is sound");
    let events: Vec<_> = refused.collect();
    let [Err(error)] = &events[..] else {
        panic!("{events:?}");
    };
    assert!(matches!(error, Error::NoRoom { free: 0, .. }), "{error}");
    assert!(!error.to_string().contains('\n'), "{error}");
    assert!(error.hint().is_some());
    drop(first);
    let answer = turn(&mut conversation, ask(QUESTIONS[1]));
    let (_, expected) = read(engine.generate(ask(QUESTIONS[1])).expect("it is sound"));
    assert_eq!(answer.token_ids, expected.token_ids);
}

#[test]
fn a_memory_limit_bounds_answers_at_once() {
    let load = |limit| {
        let config = EngineConfig::new(DEMO).device(Device::flex());
        let config = config.speech(false).max_context(256).memory_limit(limit);
        Engine::load(config).expect("the demo model loads")
    };
    let total = load(None).memory().total_bytes;
    let outcome = |limit| {
        let engine = load(limit);
        let mut long = ask(QUESTIONS[0]).min_tokens(256).max_tokens(256);
        long.endless = true;
        let mut first = engine.generate(long.clone()).expect("it is sound");
        assert!(matches!(first.next(), Some(Ok(Event::Text(_)))));
        let mut second = engine.generate(long).expect("it is sound");
        second.next().expect("an event").map(drop)
    };
    // The plan has room for one, twice as much for both.
    assert!(matches!(outcome(Some(total)), Err(Error::NoRoom { .. })));
    assert!(matches!(outcome(Some(2 * total)), Ok(())));
    assert!(matches!(outcome(None), Ok(())));
}
