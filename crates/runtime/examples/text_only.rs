//! Answers in text alone, so that nothing of the voice is loaded:
//! `cargo run --release -p burn-omni --example text_only -- "What is three plus four?"`
#![expect(clippy::print_stdout, reason = "an example shows its result")]

use burn_omni::{Content, Device, Engine, EngineConfig, Event, Request};

fn main() -> Result<(), burn_omni::Error> {
    let question = std::env::args().nth(1);
    let question = question.unwrap_or_else(|| "What is three plus four?".into());
    let config = EngineConfig::new("assets/omni-demo").device(Device::flex());
    let engine = Engine::load(config.speech(false))?;
    let request = Request::new().user([Content::text(question)]);
    for event in engine.generate(request)? {
        match event? {
            Event::Text(delta) => print!("{delta}"),
            Event::Audio(_) => {}
            Event::Done(answer) => println!("\n{:?}", answer.usage),
        }
    }
    Ok(())
}
