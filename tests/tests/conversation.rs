//! Turns of a conversation against the same turns asked anew: what is kept changes nothing but the time.

use burn_omni::{
    Content, Conversation, Engine, EngineConfig, Error, Event, Overflow, Request, Sampling, Stream,
};
use burn_omni_tests::compare::furthest;
use burn_omni_tests::demo::engine;
use burn_omni_tests::parts::device;
use burn_omni_tests::reply::{Reply, read, run};
use burn_omni_tests::repository;

/// A turn of the user.
type Said = fn() -> Vec<Content>;

fn medium(name: &str) -> std::path::PathBuf {
    repository("tests/eval/media").join(name)
}

/// Questions of every kind.
const QUESTIONS: [Said; 5] = [
    || vec![Content::text("What is three plus four?")],
    || {
        vec![
            Content::image_file(medium("image-002.png")),
            Content::text("What is this?"),
        ]
    },
    || vec![Content::audio_file(medium("audio-000.flac"))],
    || vec![Content::text("Count from 2 to 6.")],
    || {
        vec![
            Content::audio_file(medium("audio-001.flac")),
            Content::text("Transcribe the audio."),
        ]
    },
];

fn settings(request: Request, spoken: bool) -> Request {
    let request = request.sampling(Sampling::GREEDY).max_tokens(32);
    if !spoken {
        return request;
    }
    request.speech(burn_omni::SpeechRequest {
        voice: Some("ethan".into()),
        temperature: Some(0.0),
        max_frames: Some(40),
        ..burn_omni::SpeechRequest::default()
    })
}

fn ask(said: Said) -> Request {
    Request::new().user(said())
}

/// A conversation so far, asked anew.
fn anew(turns: &[(Said, String)], said: Said) -> Request {
    let history = turns.iter().fold(Request::new(), |request, (said, text)| {
        request.user(said()).assistant(text)
    });
    history.user(said())
}

fn same(kept: &Reply, anew: &Reply, what: &str) {
    assert_eq!(kept.answer.text, anew.answer.text, "{what}");
    assert_eq!(kept.answer.token_ids, anew.answer.token_ids, "{what}");
    let codes = |reply: &Reply| reply.answer.speech.clone().map(|speech| speech.codes);
    assert_eq!(codes(kept), codes(anew), "{what}");
    assert_eq!(kept.samples.len(), anew.samples.len(), "{what}");
    let error = furthest(&kept.samples, &anew.samples);
    assert!(error < 1e-5, "{what}: {error}");
    let tokens = |reply: &Reply| reply.answer.usage.prompt_tokens;
    assert_eq!(tokens(kept), tokens(anew), "{what}");
}

fn turn(conversation: &mut Conversation, request: Request) -> Reply {
    read(conversation.send(request).expect("it is sound")).expect("it answers")
}

#[test]
fn kept_rows_change_no_token_no_code_and_no_sample() {
    // All spoken, none, and one after another: a spoken turn needs what a silent one before it left.
    let spoken: [fn(usize) -> bool; 3] = [|_| true, |_| false, |i| i % 2 == 1];
    for (pattern, speaks) in spoken.into_iter().enumerate() {
        let mut conversation = engine().conversation();
        let mut turns = Vec::new();
        for (i, said) in QUESTIONS.into_iter().enumerate() {
            let what = format!("pattern {pattern}, turn {i}");
            let kept = turn(&mut conversation, settings(ask(said), speaks(i)));
            let other = settings(anew(&turns, said), speaks(i));
            let other = run(engine(), other).expect("it is sound");
            same(&kept, &other, &what);
            assert_eq!(other.answer.usage.cached_tokens, 0, "{what}");
            let kept_tokens = kept.answer.usage.cached_tokens;
            // All of the turns before: what is new is this question.
            let least = turns.len() * 8;
            assert!(kept_tokens >= least, "{what}: {kept_tokens} tokens kept");
            assert_eq!(kept_tokens == 0, i == 0, "{what}");
            turns.push((said, kept.answer.text));
        }
    }
}

#[test]
fn two_conversations_at_once_keep_apart() {
    let alone = |said: [Said; 2]| {
        let mut conversation = engine().conversation();
        said.map(|said| {
            turn(&mut conversation, settings(ask(said), true))
                .answer
                .token_ids
        })
    };
    let pairs = [[QUESTIONS[0], QUESTIONS[1]], [QUESTIONS[3], QUESTIONS[2]]];
    let expected = pairs.map(alone);
    let together = std::thread::scope(|scope| {
        let started = pairs.map(|pair| scope.spawn(move || alone(pair)));
        started.map(|thread| thread.join().expect("it answers"))
    });
    assert_eq!(expected, together);
}

/// Reads a stream up to its first sound, and leaves it.
fn interrupt(mut stream: Stream) -> (String, usize) {
    let mut text = String::new();
    loop {
        match stream.next().expect("an event").expect("nothing fails") {
            Event::Text(delta) => text += &delta,
            Event::Audio(samples) => return (text, samples.len()),
            Event::Done(_) => panic!("nothing was said"),
        }
    }
}

#[test]
fn what_was_not_heard_is_forgotten() {
    let whole = run(engine(), settings(ask(QUESTIONS[3]), true)).expect("it is sound");
    let last = QUESTIONS[0];
    for (samples, tokens) in [(0, 0), (1365, 1), (4 * 1920, 5)] {
        let mut conversation = engine().conversation();
        let spoken = settings(ask(QUESTIONS[3]), true);
        interrupt(conversation.send(spoken).expect("it is sound"));
        conversation.heard(samples);
        let text = conversation.last_answer().expect("it is over").to_owned();
        assert!(whole.answer.text.starts_with(&text), "{text}");
        assert!(text.len() < whole.answer.text.len(), "{text}");
        assert_eq!(text.is_empty(), tokens == 0, "{samples} samples: {text}");
        let next = turn(&mut conversation, settings(ask(last), true));
        let turns = [(QUESTIONS[3], text)];
        let turns = &turns[..usize::from(tokens > 0)];
        let other = settings(anew(turns, last), true);
        let other = run(engine(), other).expect("it is sound");
        same(&next, &other, &format!("{samples} samples heard"));
    }
    // Everything was heard of an answer that was read to its end.
    let mut conversation = engine().conversation();
    let reply = turn(&mut conversation, settings(ask(QUESTIONS[3]), true));
    conversation.heard(reply.samples.len());
    let text = conversation.last_answer().expect("it is over");
    assert_eq!(text, whole.answer.text);
}

#[test]
fn an_answer_that_is_left_ends_where_it_was_read() {
    let mut conversation = engine().conversation();
    let long = settings(ask(QUESTIONS[3]), false).min_tokens(30);
    let mut stream = conversation.send(long).expect("it is sound");
    let Some(Ok(Event::Text(read))) = stream.next() else {
        panic!("it writes");
    };
    drop(stream);
    assert_eq!(conversation.last_answer().expect("it is over"), read);
    let next = turn(&mut conversation, settings(ask(QUESTIONS[0]), false));
    let other = anew(&[(QUESTIONS[3], read)], QUESTIONS[0]);
    let other = run(engine(), settings(other, false)).expect("it is sound");
    same(&next, &other, "after an answer that was left");

    // One of which nothing was read was never asked.
    let mut conversation = engine().conversation();
    drop(
        conversation
            .send(settings(ask(QUESTIONS[3]), false))
            .expect("it is sound"),
    );
    let next = turn(&mut conversation, settings(ask(QUESTIONS[0]), false));
    let other = run(engine(), settings(ask(QUESTIONS[0]), false)).expect("it is sound");
    same(&next, &other, "after an answer that was not read");
}

#[test]
fn one_turn_at_a_time() {
    let mut conversation = engine().conversation();
    let long = settings(ask(QUESTIONS[3]), false)
        .min_tokens(4000)
        .max_tokens(4000);
    let stream = conversation.send(long).expect("it is sound");
    let refused = conversation.send(ask(QUESTIONS[0]));
    assert!(matches!(refused, Err(Error::Busy)));
    assert!(matches!(conversation.reset(), Err(Error::Busy)));
    drop(stream);
    conversation.reset().expect("it is over");
    let reply = turn(&mut conversation, settings(ask(QUESTIONS[0]), false));
    assert_eq!(reply.answer.usage.cached_tokens, 0);
}

/// The demo model with a short context.
fn small(context: usize) -> Engine {
    let config = EngineConfig::new(repository("assets/omni-demo")).device(device());
    Engine::load(config.max_context(context)).expect("the demo model loads")
}

#[test]
fn without_room_the_oldest_turns_go_or_the_turn_is_refused() {
    let prompt = |turns: &[(Said, String)], said| {
        let reply = run(engine(), settings(anew(turns, said), false)).expect("it is sound");
        reply.answer.usage.prompt_tokens
    };
    let question = QUESTIONS[0];
    let answer = run(engine(), settings(ask(question), false))
        .expect("it is sound")
        .answer
        .text;
    let turns = vec![(question, answer); 3];
    // Room for three turns and an answer of a few tokens.
    let engine = small(prompt(&turns[..2], question) + 8);
    for on_overflow in [Overflow::Error, Overflow::DropOldest] {
        let mut conversation = engine.conversation();
        for i in 0..6 {
            let asked = settings(ask(question), true)
                .max_tokens(8)
                .on_overflow(on_overflow);
            let reply = conversation.send(asked).and_then(read);
            if i > 2 && on_overflow == Overflow::Error {
                let error = reply.expect_err("no room");
                assert!(matches!(error, Error::PromptTooLong { .. }), "{error}");
                continue;
            }
            let reply = reply.expect("there is room");
            let known = &turns[..i.min(2)];
            let other = settings(anew(known, question), true).max_tokens(8);
            let other = run(&engine, other).expect("it fits");
            same(&reply, &other, &format!("turn {i}"));
        }
    }
    // The same without a conversation.
    let long = || settings(anew(&turns, question), false).max_tokens(8);
    assert!(matches!(
        run(&engine, long()),
        Err(Error::PromptTooLong { .. })
    ));
    let reply = run(&engine, long().on_overflow(Overflow::DropOldest)).expect("there is room");
    assert_eq!(
        reply.answer.usage.prompt_tokens,
        prompt(&turns[..2], question)
    );
}
