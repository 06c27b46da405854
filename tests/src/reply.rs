//! A request's whole answer.

use burn_omni::{Answer, Engine, Error, Event, Request, Stream};

/// The answer to a request with its samples.
#[derive(Debug)]
pub struct Reply {
    /// The last event.
    pub answer: Answer,
    /// All samples, mono at 24 kHz.
    pub samples: Vec<f32>,
}

/// Runs a request to its end, and holds the events to what the last one says.
///
/// # Errors
/// As the request's.
///
/// # Panics
/// When the events contradict one another.
pub fn run(engine: &Engine, request: Request) -> Result<Reply, Error> {
    read(engine.generate(request)?)
}

/// Reads a stream to its end.
///
/// # Errors
/// As the request's.
///
/// # Panics
/// As [`run`].
pub fn read(stream: Stream) -> Result<Reply, Error> {
    let (mut text, mut samples, mut done) = (String::new(), Vec::new(), None);
    for event in stream {
        assert!(done.is_none(), "nothing follows the answer");
        match event? {
            Event::Text(delta) => text += &delta,
            Event::Audio(packet) => samples.extend(packet),
            Event::Done(answer) => done = Some(*answer),
        }
    }
    let answer = done.expect("an answer ends a stream without errors");
    assert_eq!(answer.text, text, "the pieces are the whole");
    assert_eq!(answer.usage.completion_tokens, answer.token_ids.len());
    let spoken = answer.speech.as_ref().map_or(0, |speech| speech.samples);
    assert_eq!(spoken, samples.len(), "the packets are the whole");
    Ok(Reply { answer, samples })
}
