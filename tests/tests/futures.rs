//! Streams of events as futures.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use burn_omni::{Content, Event, Request, Sampling, Stream};
use burn_omni_tests::demo::engine;
use burn_omni_tests::reply::run;
use futures_core::Stream as _;

/// Wakes a thread.
struct Woken(Thread);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The next item, waited for as an executor does: without asking again before it is woken.
fn next(stream: &mut Stream) -> Option<Event> {
    let waker = Waker::from(Arc::new(Woken(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match Pin::new(&mut *stream).poll_next(&mut context) {
            Poll::Ready(event) => return event.map(|event| event.expect("nothing fails")),
            Poll::Pending => thread::park_timeout(Duration::from_secs(60)),
        }
    }
}

fn request(tokens: usize) -> Request {
    Request::new()
        .user([Content::text("Count from 2 to 6.")])
        .sampling(Sampling::GREEDY)
        .min_tokens(tokens)
        .max_tokens(tokens.max(32))
        .speak("ethan")
}

#[test]
fn a_stream_that_is_polled_gives_what_an_iterator_gives() {
    let expected = run(engine(), request(0)).expect("it is sound");
    let mut stream = engine().generate(request(0)).expect("it is sound");
    let (mut text, mut samples, mut done) = (String::new(), 0, false);
    let begun = std::time::Instant::now();
    while let Some(event) = next(&mut stream) {
        match event {
            Event::Text(delta) => text += &delta,
            Event::Audio(packet) => samples += packet.len(),
            Event::Done(_) => done = true,
        }
    }
    assert!(done && text == expected.answer.text);
    assert_eq!(samples, expected.samples.len());
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "every event wakes"
    );
}

#[test]
fn a_future_that_is_dropped_ends_the_work() {
    let mut stream = engine().generate(request(4000)).expect("it is sound");
    assert!(next(&mut stream).is_some());
    let begun = std::time::Instant::now();
    drop(stream);
    assert!(begun.elapsed() < Duration::from_secs(5));
}
