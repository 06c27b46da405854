//! Turns between threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::*;
use crate::stream::Sink;

const STAGES: [Stage; 3] = [Stage::Thinker, Stage::Talker, Stage::Code2Wav];

#[test]
fn one_at_a_time_and_none_is_left_waiting() {
    let turns = Turns::new(true);
    let (sink, _events) = Sink::channel();
    let inside = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let answering = turns.answer(Some(4));
                thread::scope(|loops| {
                    for stage in STAGES {
                        let seat = answering.seat(stage, &sink);
                        let inside = &inside;
                        loops.spawn(move || {
                            for i in 0..50 {
                                let work = || {
                                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                                    thread::yield_now();
                                    inside.fetch_sub(1, Ordering::SeqCst);
                                };
                                seat.turn_of(i % 2, work).expect("nobody stops it");
                                seat.away(thread::yield_now);
                                if stage == Stage::Code2Wav {
                                    seat.gave(1, 1);
                                }
                            }
                        });
                    }
                });
            });
        }
    });
    assert!(
        turns
            .arbiter
            .expect("a device is shared")
            .lock()
            .seats
            .is_empty()
    );
}

#[test]
fn a_loop_that_panics_gives_its_turn_back() {
    let turns = Turns::new(true);
    let (sink, _events) = Sink::channel();
    let answering = turns.answer(None);
    let panicked = thread::scope(|scope| {
        let seat = answering.seat(Stage::Talker, &sink);
        let work = move || seat.turn(|| panic!("out of cheese"));
        scope.spawn(work).join().is_err()
    });
    assert!(panicked);
    let seat = answering.seat(Stage::Thinker, &sink);
    assert!(matches!(seat.turn(|| 7), Ok(7)));
}

#[test]
fn who_comes_first_is_waited_for_but_not_for_long() {
    let turns = Turns::new(true);
    let (sink, _events) = Sink::channel();
    let answering = turns.answer(Some(1));
    // Between two frames, for ever: on the way to the first packet it comes before the thinker.
    let talker = answering.seat(Stage::Talker, &sink);
    talker.turn(|| ()).expect("nobody stops it");
    let thinker = answering.seat(Stage::Thinker, &sink);
    let start = Instant::now();
    thinker.turn(|| ()).expect("nobody stops it");
    let waited = start.elapsed();
    assert!(waited < Duration::from_secs(5), "{waited:?}");
}

#[test]
fn a_stopped_answer_gets_no_turn() {
    for turns in [Turns::new(true), Turns::new(false)] {
        let (sink, _events) = Sink::channel();
        let answering = turns.answer(None);
        let seat = answering.seat(Stage::Thinker, &sink);
        sink.stop();
        assert!(matches!(seat.turn(|| ()), Err(Stopped::Cancelled)));
    }
}

#[test]
fn what_was_done_is_recorded() {
    let turns = Turns::new(true).recorded();
    let (sink, _events) = Sink::channel();
    let answering = turns.answer(Some(1));
    for stage in STAGES {
        let seat = answering.seat(stage, &sink);
        let pause = Duration::from_millis(2);
        seat.turn(|| thread::sleep(pause)).expect("nobody stops it");
        assert!(seat.busy() >= pause);
    }
    let record = turns.take_record();
    let stages: Vec<Stage> = record.iter().map(|span| span.stage).collect();
    assert_eq!(stages, STAGES);
    assert!(record.windows(2).all(|pair| pair[0].end <= pair[1].start));
    assert!(turns.take_record().is_empty());
}
