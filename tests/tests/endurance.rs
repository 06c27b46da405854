//! A thousand answers, a third of them turns of conversations, most of them left early: nothing stays behind. Alone in its
//! binary, since it counts threads.

use std::time::{Duration, Instant};

use burn_omni::{Event, SpeechRequest};
use burn_omni_tests::reply::run;
use burn_omni_tests::tiny::{engine, golden};

/// Answers.
const ANSWERS: u64 = 1000;
/// Bytes that the process may have grown by.
const GROWTH: u64 = 48 << 20;
/// Longest that one answer may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("Linux").count()
}

/// Bytes of the process in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.expect("a size") * 1024
}

/// A number below `end` that depends on `n` alone.
fn some(n: u64, end: u64) -> u64 {
    (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33) % end
}

fn request(n: u64) -> burn_omni::Request {
    let case = &golden().cases["text"];
    let tokens = usize::try_from(1 + some(n, 24)).expect("small");
    let asked = case.text_request(tokens).seed(n);
    if n.is_multiple_of(4) {
        return asked;
    }
    let packet = |n| usize::try_from(1 + some(n, 3)).expect("small");
    asked.speech(SpeechRequest {
        max_frames: Some(usize::try_from(1 + some(n + 1, 6)).expect("small")),
        first_chunk: packet(n + 2),
        chunk: packet(n + 3),
        ..SpeechRequest::default()
    })
}

/// Answers number `from` to `to`, each read for a while.
fn converse(from: u64, to: u64) {
    let mut conversation = engine().conversation();
    for n in from..to {
        let asked = match n % 3 {
            0 => conversation.send(request(n)),
            _ => engine().generate(request(n)),
        };
        let mut stream = asked.expect("the request is sound");
        let begun = Instant::now();
        let (mut events, left) = (0, some(n + 4, 3));
        if left == 0 {
            let last = stream.last().expect("an answer").expect("nothing fails");
            assert!(matches!(last, Event::Done(_)));
        } else if left == 1 {
            while events < some(n + 5, 8) && stream.next().is_some() {
                events += 1;
            }
            drop(stream);
        } else {
            std::thread::sleep(Duration::from_micros(some(n + 6, 6000)));
            drop(stream);
        }
        assert!(begun.elapsed() < PATIENCE, "answer {n}");
        if n.is_multiple_of(12) {
            conversation.reset().expect("no answer is in the making");
        }
    }
}

#[test]
fn a_thousand_answers_leave_nothing_behind() {
    let before = run(engine(), request(2)).expect("the request is sound");
    converse(0, 50);
    let (alive, size) = (threads(), resident());
    std::thread::scope(|scope| {
        for part in 0..2 {
            scope.spawn(move || converse(50 + part * ANSWERS / 2, 50 + (part + 1) * ANSWERS / 2));
        }
    });
    // A thread that has ended is there until the system has noticed.
    let ended = Instant::now();
    while threads() > alive {
        assert!(ended.elapsed() < PATIENCE, "{} threads", threads());
        std::thread::sleep(Duration::from_millis(1));
    }
    let grown = resident().saturating_sub(size);
    println!("{ANSWERS} answers: {} kB more", grown >> 10);
    assert!(grown < GROWTH, "{grown} bytes more");
    let after = run(engine(), request(2)).expect("the request is sound");
    assert_eq!(before.answer.token_ids, after.answer.token_ids);
    let codes = |reply: &burn_omni_tests::reply::Reply| {
        reply
            .answer
            .speech
            .as_ref()
            .map(|speech| speech.codes.clone())
    };
    assert_eq!(codes(&before), codes(&after));
}
