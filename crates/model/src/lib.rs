//! Qwen3-Omni as pure functions of its weights: config → load → forward.

pub mod layers;
