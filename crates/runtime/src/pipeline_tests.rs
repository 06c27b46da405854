//! The three loops with the demo model: their order, their timing, and how they end.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use burn::tensor::Device;

use crate::engine::Asking;
use crate::kept::Kept;
use crate::progress::Progress;
use crate::schedule::Stage;
use crate::stream::{Sink, Stopped};
use crate::threads::tests::without;
use crate::turns::{Probe, Turns};
use crate::{
    Answer, Content, Engine, EngineConfig, Error, Event, Request, Sampling, SpeechRequest,
};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/omni-demo");
const STAGES: [Stage; 3] = [Stage::Thinker, Stage::Talker, Stage::Code2Wav];

fn engine() -> &'static Engine {
    static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
        let config = EngineConfig::new(DEMO).device(Device::flex());
        Engine::load(config).expect("the demo model loads")
    });
    &ENGINE
}

/// The demo model with something done before every unit of work.
fn probed(probe: impl Fn(Stage) -> Result<(), Error> + Send + Sync + 'static) -> Engine {
    let mut turns = Turns::new(false, || Ok(()));
    turns.probe = Some(Box::new(probe) as Probe);
    engine().with_turns(turns)
}

fn request(tokens: usize, frames: usize, [first_chunk, chunk]: [usize; 2]) -> Request {
    let sampling = Sampling {
        temperature: 1.0,
        top_k: 50,
        top_p: 0.95,
        repetition_penalty: 1.05,
    };
    Request::new()
        .user([Content::text("Count from 2 to 6.")])
        .sampling(sampling)
        .seed(5)
        .min_tokens(tokens)
        .max_tokens(tokens)
        .speech(SpeechRequest {
            sampling: Some(sampling),
            max_frames: Some(frames),
            first_chunk,
            chunk,
            ..SpeechRequest::default()
        })
}

fn whole(engine: &Engine, request: Request) -> (Answer, Vec<f32>) {
    let (mut samples, mut answer) = (Vec::new(), None);
    for event in engine.generate(request).expect("the request is sound") {
        match event.expect("nothing fails") {
            Event::Text(_) => {}
            Event::Audio(packet) => samples.extend(packet),
            Event::Done(done) => answer = Some(*done),
        }
    }
    (answer.expect("an answer"), samples)
}

/// What may not depend on time.
fn content((answer, samples): (Answer, Vec<f32>)) -> (Vec<u32>, Vec<Vec<u32>>, Vec<u32>) {
    let codes = answer.speech.expect("speech was asked for").codes;
    assert!(!codes.is_empty(), "something was said");
    let samples = samples.iter().map(|sample| sample.to_bits()).collect();
    (answer.token_ids, codes, samples)
}

#[test]
fn speech_begins_before_the_text_ends() {
    let paced = probed(|stage| {
        if stage == Stage::Thinker {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    });
    let events = paced
        .generate(request(200, 20, [1, 4]))
        .expect("the request is sound");
    let events: Vec<Event> = events.map(|event| event.expect("nothing fails")).collect();
    let is_text = |event: &Event| matches!(event, Event::Text(_));
    let last_text = events.iter().rposition(is_text);
    let first_audio = events
        .iter()
        .position(|event| matches!(event, Event::Audio(_)));
    assert!(first_audio.expect("it speaks") < last_text.expect("it writes"));
    let Some(Event::Done(answer)) = events.last() else {
        panic!("the answer comes last");
    };
    assert_eq!(answer.token_ids.len(), 200);
    let first = answer.timings.first_audio.expect("it speaks");
    assert!(answer.timings.first_token < first && first < answer.timings.total);
}

#[test]
fn the_timing_of_the_loops_changes_no_bit() {
    let calm = content(whole(engine(), request(24, 16, [2, 5])));
    for seed in 0..6_u64 {
        let numbers = AtomicU64::new(seed);
        let hasty = probed(move |_| {
            let n = numbers.fetch_add(1, Ordering::Relaxed);
            let mixed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
            if mixed.is_multiple_of(3) {
                thread::sleep(Duration::from_micros(mixed % 4000));
            }
            Ok(())
        });
        assert_eq!(calm, content(whole(&hasty, request(24, 16, [2, 5]))));
    }
    // As on a GPU, where loops wait for their turns, alone and beside another answer.
    let shared = engine().with_turns(Turns::new(true, || Ok(())));
    assert_eq!(calm, content(whole(&shared, request(24, 16, [2, 5]))));
    thread::scope(|scope| {
        let answer = || content(whole(&shared, request(24, 16, [2, 5])));
        let both = [scope.spawn(answer), scope.spawn(answer)];
        for other in both {
            assert_eq!(calm, other.join().expect("it answers"));
        }
    });
}

#[test]
fn tokens_are_spoken_as_they_come() {
    // The thinker makes its last tokens only when the talker has spoken most of those before.
    let spoken = Arc::new(AtomicUsize::new(0));
    let made = AtomicUsize::new(0);
    let slow = {
        let spoken = spoken.clone();
        probed(move |stage| {
            match stage {
                Stage::Talker => {
                    spoken.fetch_add(1, Ordering::SeqCst);
                }
                Stage::Thinker => {
                    let token = made.fetch_add(1, Ordering::SeqCst);
                    let begun = Instant::now();
                    while token > 20 && spoken.load(Ordering::SeqCst) + 4 < token {
                        assert!(begun.elapsed() < Duration::from_secs(60), "nobody speaks");
                        thread::sleep(Duration::from_micros(100));
                    }
                }
                Stage::Code2Wav => {}
            }
            Ok(())
        })
    };
    let mut long = request(40, 60, [4, 25]);
    long.endless = true;
    let calm = content(whole(engine(), long.clone()));
    assert_eq!(calm, content(whole(&slow, long)));
}

#[test]
fn an_error_of_any_loop_is_told_once_and_ends_the_others() {
    for panics in [false, true] {
        for stage in STAGES {
            let units = Arc::new(AtomicUsize::new(0));
            let failing = {
                let units = units.clone();
                probed(move |here| {
                    let unit = units.fetch_add(1, Ordering::SeqCst);
                    if here != stage || unit < 12 {
                        return Ok(());
                    }
                    assert!(!panics, "out of cheese");
                    Err(Error::Stage {
                        stage: stage.name(),
                        cause: "out of cheese".into(),
                    })
                })
            };
            let stream = failing.generate(request(4000, 4000, [1, 1]));
            let events: Vec<_> = stream.expect("the request is sound").collect();
            let errors: Vec<&Error> = events.iter().filter_map(|e| e.as_ref().err()).collect();
            let [error] = errors[..] else {
                panic!("{stage:?}: {errors:?}");
            };
            let expected = format!("{} failed: out of cheese", stage.name());
            assert_eq!(error.to_string(), expected);
            assert!(events.last().is_some_and(Result::is_err), "nothing follows");
            assert!(units.load(Ordering::SeqCst) < 1000, "the others ended");
        }
    }
}

#[test]
fn a_reader_that_stalls_stops_all_loops_and_can_still_leave() {
    let units = Arc::new(AtomicUsize::new(0));
    let counted = {
        let units = units.clone();
        probed(move |_| {
            units.fetch_add(1, Ordering::SeqCst);
            Ok(())
        })
    };
    let mut endless = request(8000, 4000, [1, 1]);
    endless.endless = true;
    let stream = counted.generate(endless).expect("the request is sound");
    let begun = Instant::now();
    let mut before = usize::MAX;
    while units.load(Ordering::SeqCst) != before {
        before = units.load(Ordering::SeqCst);
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing stalls");
        thread::sleep(Duration::from_millis(300));
    }
    // 64 events wait for the reader, 32 frames for code2wav, and each loop has one in its hands.
    assert!(before < 64 + 2 * (64 + 32) + 10, "{before} units of work");
    let dropped = Instant::now();
    drop(stream);
    assert!(dropped.elapsed() < Duration::from_secs(5));
    assert!(units.load(Ordering::SeqCst) <= before + 3);
}

/// A greedy spoken answer behind what is kept.
fn spoken(request: &Request, kept: &mut Kept) -> Result<Answer, Stopped> {
    let request = request.clone().sampling(Sampling::GREEDY);
    let mut request = request.speech(SpeechRequest {
        temperature: Some(0.0),
        max_frames: Some(20),
        ..SpeechRequest::default()
    });
    let (sink, _events) = Sink::channel();
    let asking = Asking {
        sink: &sink,
        started: Instant::now(),
        progress: &Progress::default(),
    };
    let (question, _) = engine().read(&mut request)?;
    engine().answer(&request, asking, question, kept)
}

#[test]
fn the_talker_goes_on_behind_the_rows_of_earlier_questions() {
    let first = Request::new().user([Content::text("What is three plus four?")]);
    let mut kept = Kept::default();
    let begun = spoken(&first, &mut kept).expect("it answers");
    let second = first
        .clone()
        .assistant(begun.text)
        .user([Content::text("Count from 2 to 6.")]);
    let codes = |answer: Answer| answer.speech.expect("speech was asked for").codes;
    let expected = codes(spoken(&second, &mut Kept::default()).expect("it answers"));
    assert!(!expected.is_empty());
    assert_eq!(
        codes(spoken(&second, &mut kept).expect("it answers")),
        expected
    );

    // Rows that are no numbers in their place are found.
    let mut kept = Kept::default();
    spoken(&first, &mut kept).expect("it answers");
    let stages = &engine().model().stages;
    let talker = &stages
        .speech
        .as_ref()
        .expect("the demo model speaks")
        .talker;
    let rows = talker.text_rows(stages.thinker.embed_text(&[1; 40])) * f32::NAN;
    let mut state = talker.state(40);
    let axis = [0.0; 40];
    let _ = talker.prefill(&mut state, rows, [&axis; 3]);
    kept.talker.state = Some(state);
    let Err(Stopped::Failed(error)) = spoken(&second, &mut kept) else {
        panic!("the rows of the first question are not read");
    };
    assert_eq!(error.to_string(), "the talker gives NaN or infinite values");
}

#[test]
fn work_that_is_only_queued_is_waited_for_and_no_token_or_frame_is() {
    let waits = |request| {
        let waits = Arc::new(AtomicUsize::new(0));
        let counted = waits.clone();
        let turns = Turns::new(true, move || {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        whole(&engine().with_turns(turns), request);
        waits.load(Ordering::SeqCst)
    };
    for [tokens, frames] in [[2, 2], [24, 16]] {
        let spoken = request(tokens, frames, [2, 5]);
        let mut written = spoken.clone();
        written.speech = None;
        assert_eq!(waits(written), 1, "encoders and embeddings");
        // And what the talker reads of the prompt, and its own prompt.
        assert_eq!(waits(spoken), 3);
    }
}

#[test]
fn without_threads_for_its_loops_an_answer_fails_once_and_the_next_does_not() {
    let asked = Request::new().user([Content::text("What is three plus four?")]);
    let mut kept = Kept::default();
    let Err(Stopped::Failed(error)) = without(|| spoken(&asked, &mut kept)) else {
        panic!("it fails");
    };
    assert!(matches!(error, Error::NoThread { .. }), "{error}");
    let next = spoken(&asked, &mut kept).expect("it answers");
    let other = spoken(&asked, &mut Kept::default()).expect("it answers");
    assert_eq!(next.token_ids, other.token_ids);
}
