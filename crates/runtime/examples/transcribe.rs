//! Writes down what is said in a recording:
//! `cargo run --release -p burn-omni --example transcribe -- answer.wav`
#![expect(clippy::print_stdout, reason = "an example shows its result")]

use burn_omni::{Content, Device, Engine, EngineConfig, Event, Request, Sampling};

fn main() -> Result<(), burn_omni::Error> {
    let recording = std::env::args().nth(1);
    let recording = recording.unwrap_or_else(|| "tests/eval/media/audio-001.flac".into());
    let config = EngineConfig::new("assets/omni-demo").device(Device::flex());
    let engine = Engine::load(config.speech(false))?;
    let request = Request::new()
        .user([
            Content::audio_file(recording),
            Content::text("Transcribe the audio."),
        ])
        .sampling(Sampling::GREEDY);
    for event in engine.generate(request)? {
        if let Event::Text(delta) = event? {
            print!("{delta}");
        }
    }
    println!();
    Ok(())
}
