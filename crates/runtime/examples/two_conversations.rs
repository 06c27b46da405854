//! Two conversations at once with one model, of which each knows its own past:
//! `cargo run --release -p burn-omni --example two_conversations`
#![expect(clippy::print_stdout, reason = "an example shows its result")]

use std::thread;

use burn_omni::{Content, Device, Engine, EngineConfig, Error, Event, Request};

fn main() -> Result<(), Error> {
    let engine = Engine::load(EngineConfig::new("assets/omni-demo").device(Device::flex()))?;
    let questions = [
        ["What is three plus four?", "Count from 2 to 6."],
        ["Say: red green blue", "Spell 407."],
    ];
    let talks = questions.map(|questions| {
        let engine = engine.clone();
        thread::spawn(move || talk(&engine, questions))
    });
    for talk in talks {
        println!("{}", talk.join().expect("a talk does not panic")?);
    }
    Ok(())
}

/// Asks one question after the other and gives what was said.
fn talk(engine: &Engine, questions: [&str; 2]) -> Result<String, Error> {
    let mut conversation = engine.conversation();
    let mut said = String::new();
    for question in questions {
        said += &format!("> {question}\n");
        let request = Request::new().user([Content::text(question)]);
        for event in conversation.send(request)? {
            match event? {
                Event::Text(delta) => said += &delta,
                Event::Audio(_) => {}
                Event::Done(answer) => {
                    let kept = answer.usage.cached_tokens;
                    said += &format!("   ({kept} tokens kept)\n");
                }
            }
        }
    }
    Ok(said)
}
