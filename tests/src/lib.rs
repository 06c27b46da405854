//! What the golden tests share: a model and media that are drawn from integers, readers of the golden values, and the
//! comparison that names what differs.
//!
//! | module | what |
//! |---|---|
//! | [`tiny`] | the untrained tiny model: its checkpoint, its conversations, its golden values |
//! | [`demo`] | the trained demo model: cases, answers, spoken goldens |
//! | [`parts`], [`route`], [`spoken`] | a model's stages, one by one |
//! | [`reply`] | a request's whole answer |
//! | [`variants`], [`nf4`] | the demo model as other programs quantize it |
//! | [`compare`] | golden tensors against ours, with the largest error of every layer |
//! | [`drawn`] | random weights on two devices, layer by layer, at any size |

pub mod compare;
pub mod demo;
pub mod drawn;
pub mod nf4;
pub mod parts;
pub mod reply;
pub mod route;
pub mod spoken;
pub mod tensors;
pub mod tiny;
pub mod variants;

use std::path::PathBuf;

/// A file or folder of the repository.
#[must_use]
pub fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(path)
}

/// The whole text of a file that the tests cannot do without.
///
/// # Panics
/// When it cannot be read.
#[must_use]
pub fn read(path: &std::path::Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
