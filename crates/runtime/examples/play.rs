//! Plays the answer while it is made, and tells the conversation how much of it was heard:
//! `cargo run --release -p burn-omni --features voice --example play -- "Count from 2 to 6."`
#![expect(clippy::print_stdout, reason = "an example shows its result")]

use std::collections::VecDeque;
use std::error::Error;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::Duration;

use burn_omni::{Content, Device, Engine, EngineConfig, Event, Request, Speech};
use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};

fn main() -> Result<(), Box<dyn Error>> {
    let question = std::env::args().nth(1);
    let question = question.unwrap_or_else(|| "Count from 2 to 6.".into());
    let engine = Engine::load(EngineConfig::new("assets/omni-demo").device(Device::flex()))?;
    let player = Player::open()?;
    let mut conversation = engine.conversation();
    let request = Request::new()
        .user([Content::text(question)])
        .speak("ethan");
    for event in conversation.send(request)? {
        match event? {
            Event::Text(delta) => {
                print!("{delta}");
                std::io::stdout().flush()?;
            }
            Event::Audio(samples) => player.play(&samples),
            Event::Done(_) => println!(),
        }
    }
    while player.waiting() > 0 {
        sleep(Duration::from_millis(20));
    }
    // Whoever stops the player earlier leaves the rest of the answer out of the conversation.
    conversation.heard(player.heard());
    Ok(())
}

/// The default device for sound.
struct Player {
    queue: Arc<Mutex<VecDeque<f32>>>,
    heard: Arc<AtomicUsize>,
    _stream: cpal::Stream,
}

impl Player {
    fn open() -> Result<Self, Box<dyn Error>> {
        let device = cpal::default_host().default_output_device();
        let device = device.ok_or("there is no device that plays sound")?;
        let config = cpal::StreamConfig {
            channels: 1,
            sample_rate: Speech::SAMPLE_RATE,
            buffer_size: cpal::BufferSize::Default,
        };
        let queue = Arc::<Mutex<VecDeque<f32>>>::default();
        let heard = Arc::<AtomicUsize>::default();
        let (from, count) = (queue.clone(), heard.clone());
        let fill = move |out: &mut [f32], _: &cpal::OutputCallbackInfo| {
            let mut queue = from.lock().expect("nobody panics with it");
            for place in out {
                // Silence where nothing is ready.
                let sample = queue.pop_front();
                count.fetch_add(usize::from(sample.is_some()), Ordering::Relaxed);
                *place = sample.unwrap_or(0.0);
            }
        };
        let failed = |error| println!("the player failed: {error}");
        let stream = device.build_output_stream(config, fill, failed, None)?;
        stream.play()?;
        Ok(Self {
            queue,
            heard,
            _stream: stream,
        })
    }

    fn play(&self, samples: &[f32]) {
        let mut queue = self.queue.lock().expect("nobody panics with it");
        queue.extend(samples);
    }

    /// Samples that wait.
    fn waiting(&self) -> usize {
        self.queue.lock().expect("nobody panics with it").len()
    }

    /// Samples that were played.
    fn heard(&self) -> usize {
        self.heard.load(Ordering::Relaxed)
    }
}
