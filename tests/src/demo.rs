//! The trained demo model: `tests/eval/README.md` says what its cases are.

mod cases;
mod ears;
mod features;
mod golden;

pub use cases::{Case, answers, asked, cases, engine, parts, prompt, request};
pub use ears::{heard, words};
pub use features::{log_mel, read_npy};
pub use golden::{Golden, goldens, read_wave};
