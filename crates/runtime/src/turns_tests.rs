//! Turns between threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::*;
use crate::stream::Sink;

const STAGES: [Stage; 3] = [Stage::Thinker, Stage::Talker, Stage::Code2Wav];

/// The turns at a device that does everything at once.
fn shared() -> Turns {
    Turns::new(true, || Ok(()))
}

#[test]
fn one_at_a_time_and_none_is_left_waiting() {
    let turns = shared();
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
    let turns = shared();
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
    let turns = shared();
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
    for turns in [shared(), Turns::new(false, || Ok(()))] {
        let (sink, _events) = Sink::channel();
        let answering = turns.answer(None);
        let seat = answering.seat(Stage::Thinker, &sink);
        sink.stop();
        assert!(matches!(seat.turn(|| ()), Err(Stopped::Cancelled)));
    }
}

#[test]
fn what_was_done_is_recorded() {
    let turns = shared().recorded();
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

#[test]
fn the_thinker_keeps_its_share_beside_loops_that_always_wait() {
    let pause = Duration::from_micros;
    let share = || {
        let turns = shared().recorded();
        let (sink, _events) = Sink::channel();
        let answering = turns.answer(Some(1));
        let talker = answering.seat(Stage::Talker, &sink);
        let code2wav = answering.seat(Stage::Code2Wav, &sink);
        // Hours of sound lie before the player: nothing is due.
        let packet = code2wav.turn_of(1, || ());
        packet.expect("nobody stops it");
        code2wav.gave(1_000_000, 1);
        drop(code2wav);
        let frames =
            |seat: Seat<'_>| while seat.turn_of(1, || thread::sleep(pause(3100))).is_ok() {};
        thread::scope(|scope| {
            scope.spawn(move || frames(talker));
            let seat = answering.seat(Stage::Thinker, &sink);
            for _ in 0..60 {
                let step = seat.turn(|| thread::sleep(pause(1900)));
                step.expect("nobody stops it");
            }
            sink.stop();
        });
        let record = turns.take_record();
        let thinks = |span: &&Span| span.stage == Stage::Thinker;
        let first = record.iter().find(thinks).expect("it thinks").start;
        let last = record.iter().rfind(thinks).expect("it thinks").end;
        let steps = record
            .iter()
            .filter(thinks)
            .map(|span| span.end - span.start);
        steps.sum::<Duration>().as_secs_f64() / (last - first).as_secs_f64()
    };
    // On a machine that is busy with other things a thread may come too late for its turn. One after the other it would be
    // 0.38, every time.
    let mut shares = Vec::new();
    while shares.iter().all(|share| *share < 0.6) {
        assert!(shares.len() < 20, "{shares:?}");
        shares.push(share());
    }
}

#[test]
fn the_turn_of_queued_work_ends_when_the_device_has_done_it() {
    // A device that is done with everything 20 ms after it was queued.
    let done = Arc::new(Mutex::new(Instant::now()));
    let wait = {
        let done = done.clone();
        move || {
            let rest = lock(&done).saturating_duration_since(Instant::now());
            thread::sleep(rest);
            Ok(())
        }
    };
    let queue = || *lock(&done) = Instant::now() + Duration::from_millis(20);
    let turns = Turns::new(true, wait).recorded();
    let (sink, _events) = Sink::channel();
    let answering = turns.answer(Some(1));
    let thinker = answering.seat(Stage::Thinker, &sink);
    let talker = answering.seat(Stage::Talker, &sink);
    thinker.turn_until_done(queue).expect("nobody stops it");
    let end = *lock(&done);
    talker.turn(|| ()).expect("nobody stops it");
    let record = turns.take_record();
    assert!(record[0].end >= end && record[1].start >= end);
    assert!(thinker.busy() >= Duration::from_millis(20));
}

#[test]
fn what_a_device_says_of_queued_work_is_an_error_of_its_stage() {
    let turns = Turns::new(true, || Err("out of cheese".into()));
    let (sink, _events) = Sink::channel();
    let answering = turns.answer(None);
    let seat = answering.seat(Stage::Talker, &sink);
    let Err(Stopped::Failed(error)) = seat.turn_until_done(|| ()) else {
        panic!("it fails");
    };
    assert_eq!(error.to_string(), "the talker failed: out of cheese");
    assert!(matches!(seat.turn(|| 7), Ok(7)), "the turn was given back");
}
