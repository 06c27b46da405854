//! Run Qwen3-Omni: text, audio, image and video in; text and speech out.
//!
//! A request becomes a prompt ([`burn_omni_model::processor`]), the thinker answers it a token at a time, the talker
//! turns the answer's tokens into frames of codes, code2wav turns frames into samples. [`Engine::generate`] runs these three
//! on threads of their own and gives an iterator of [`Event`]s, text and samples as they are made; dropping the iterator ends
//! the work within one step. [`Engine::conversation`] does the same turn by turn, and keeps what the model has of earlier
//! turns. An engine is shared by cloning it: as many answers may be made at once as the memory limit has room for.
//!
//! | feature | what it adds |
//! |---|---|
//! | `flex` (default) | the CPU backend |
//! | `futures` | `futures_core::Stream` for [`Stream`] |
//! | `voice` | the example that plays |
//!
//! ```no_run
//! use burn_omni::{Content, Device, Engine, EngineConfig, Event, Request};
//!
//! let engine = Engine::load(EngineConfig::new("assets/omni-demo").device(Device::flex()))?;
//! let request = Request::new().user([Content::text("What is three plus four?")]).speak("ethan");
//! for event in engine.generate(request)? {
//!     match event? {
//!         Event::Text(delta) => print!("{delta}"),
//!         Event::Audio(samples) => println!("{} samples at 24 kHz", samples.len()),
//!         Event::Done(answer) => println!("{:?}", answer.usage),
//!     }
//! }
//! # Ok::<(), burn_omni::Error>(())
//! ```

pub mod bench;
mod budget;
mod conversation;
mod decoding;
mod engine;
mod engine_config;
mod error;
mod event;
mod exclusive;
mod frames;
mod kept;
mod kv_dtype;
mod loading;
mod memory;
mod numbers;
mod pipeline;
mod progress;
mod rehearsal;
mod request;
pub mod sampler;
mod schedule;
mod sound;
mod speech;
mod stages;
mod stream;
mod talk;
mod think;
mod threads;
mod turns;
mod wav;

pub use burn::tensor::Device;
pub use burn_omni_model::config::Config;
pub use burn_omni_model::processor::media::Pcm;
pub use burn_omni_model::processor::{Conversation as Messages, MediaInput, Message, Role};
pub use conversation::Conversation;
pub use engine::Engine;
pub use engine_config::{EngineConfig, LoadProgress, Quantize};
pub use error::Error;
pub use event::{Answer, Event, FinishReason, Speech, Timings, Usage};
pub use kv_dtype::KvDtype;
pub use loading::usual_context;
pub use memory::{ComponentMemory, MemoryPlan, Room};
pub use rehearsal::Compiling;
pub use request::{Content, Overflow, Request, SpeechRequest};
pub use sampler::Sampling;
pub use stream::Stream;
pub use wav::{WavWriter, to_i16};
