//! Qwen3-Omni as pure functions of its weights: config → load → forward.

pub mod config;
pub mod layers;
pub mod processor;
pub mod thinker;
