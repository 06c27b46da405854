//! Qwen3-Omni as pure functions of its weights: config → load → forward.

pub mod code2wav;
pub mod code_predictor;
pub mod config;
pub mod layers;
pub mod processor;
pub mod talker;
pub mod thinker;
