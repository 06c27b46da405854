//! The untrained tiny model: `tests/golden/tiny/README.md` says what it is.

mod case;
mod generator;
mod golden;
pub mod media;

use std::sync::LazyLock;

use burn_omni::{Engine, EngineConfig};

use crate::parts::{Parts, device};

pub use case::{Case, Facts, MelFacts, Part, Turn, Words};
pub use generator::{Generator, folder};
pub use golden::{Golden, MediaCheck, WaveCase, golden};

/// The tiny model's parts.
#[must_use]
pub fn parts() -> &'static Parts {
    static PARTS: LazyLock<Parts> = LazyLock::new(|| Parts::open(folder().path()));
    &PARTS
}

/// The tiny model as an engine, loaded once.
///
/// # Panics
/// When it cannot be loaded.
#[must_use]
pub fn engine() -> &'static Engine {
    static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
        let dir = folder();
        Engine::load(EngineConfig::new(dir.path()).device(device())).expect("the engine loads")
    });
    &ENGINE
}
