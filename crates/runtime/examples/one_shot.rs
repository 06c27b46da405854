//! Asks the demo model one question and writes the spoken answer beside you:
//! `cargo run --release -p burn-omni --example one_shot -- "What is three plus four?"`
#![expect(clippy::print_stdout, reason = "an example shows its result")]

use std::path::Path;

use burn_omni::{Content, Device, Engine, EngineConfig, Event, Request, Speech, WavWriter};

fn main() -> Result<(), burn_omni::Error> {
    let question = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "Count from 2 to 6.".into());
    let engine = Engine::load(EngineConfig::new("assets/omni-demo").device(Device::flex()))?;
    let request = Request::new()
        .user([Content::text(question)])
        .speak("ethan");
    let mut wav = WavWriter::create(Path::new("answer.wav"), Speech::SAMPLE_RATE)?;
    for event in engine.generate(request)? {
        match event? {
            Event::Text(delta) => print!("{delta}"),
            Event::Audio(samples) => wav.write(&samples)?,
            Event::Done(answer) => println!("\n{:?}\n{:?}", answer.usage, answer.timings),
        }
    }
    wav.finish()
}
