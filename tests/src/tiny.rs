//! The untrained tiny model: `tests/golden/tiny/README.md` says what it is.

mod case;
mod generator;
mod golden;
pub mod media;
mod model;

pub use case::{Case, Facts, MelFacts, Part, Turn, Words};
pub use generator::{Generator, folder};
pub use golden::{Golden, MediaCheck, WaveCase, golden};
pub use model::{Route, Thinking, device, engine, processor, thinking};
