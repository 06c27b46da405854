//! Speed of each stage, of a loaded model or of random weights in the geometry of one.
//!
//! ```no_run
//! use burn_omni::bench::{Bench, Sizes};
//! use burn_omni::{Device, EngineConfig};
//!
//! let bench = Bench::load(EngineConfig::new("assets/omni-demo").device(Device::flex()))?;
//! bench.run(&Sizes::default(), |figure| {
//!     println!("{} {} {}", figure.what, figure.value, figure.unit);
//!     Ok::<(), burn_omni::Error>(())
//! })?;
//! # Ok::<(), burn_omni::Error>(())
//! ```

mod answer;
mod checkpoint;
mod copies;
mod figure;
mod model;
mod question;
mod speech;
mod text;
mod timeline;

pub use checkpoint::Untrained;
pub use figure::Figure;
pub use model::{Bench, Synthetic};
pub use timeline::Timeline;

use burn_omni_ops::for_good;

use crate::Error;

/// How much is done, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens that are decoded behind it.
    pub decode_tokens: usize,
    /// Frames that become samples, and those of the spoken answer.
    pub frames: usize,
    /// Measurements of each figure, after one that warms up.
    pub repeat: usize,
    /// The only part that is measured; every part without.
    pub only: Option<Part>,
}

/// What figures are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The prompt and the decoded tokens.
    Thinker,
    /// The talker and its code predictor.
    Talker,
    /// Codes that become samples.
    Code2Wav,
    /// Whole spoken answers.
    Answer,
}

impl Sizes {
    fn has(&self, part: Part) -> bool {
        self.only.is_none_or(|only| only == part)
    }
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            prompt_tokens: 512,
            decode_tokens: 64,
            frames: 125,
            repeat: 5,
            only: None,
        }
    }
}

impl Bench {
    /// Measures every stage; `give` gets each figure as it is made.
    ///
    /// # Errors
    /// When the prompt and its answer do not fit, a stage fails or gives numbers that are none, or `give` fails.
    pub fn run<E: From<Error>>(
        &self,
        sizes: &Sizes,
        mut give: impl FnMut(Figure) -> Result<(), E>,
    ) -> Result<(), E> {
        self.fits(sizes)?;
        self.stages().on_queue(|| {
            give(self.load_figure())?;
            if let Some(held) = self.held_memory() {
                give(held)?;
            }
            // What is copied is given back, and is no measure for the memory of passing results.
            let device = &self.stages().device;
            let copies = for_good(device, || copies::bandwidth(device, sizes.repeat))?;
            let bandwidth = copies.value * 1e9;
            give(copies)?;
            if sizes.has(Part::Thinker) {
                for figure in text::figures(self, sizes, bandwidth)? {
                    give(figure)?;
                }
            }
            if let Some(model) = &self.stages().speech {
                if sizes.has(Part::Talker) {
                    give(speech::talker(self, model, sizes, bandwidth)?)?;
                }
                if sizes.has(Part::Code2Wav) {
                    for figure in speech::code2wav(self, &model.code2wav, sizes)? {
                        give(figure)?;
                    }
                }
                if sizes.has(Part::Answer) {
                    for figure in answer::figures(self, sizes)? {
                        give(figure)?;
                    }
                }
            }
            for figure in self.memory_figures() {
                give(figure)?;
            }
            Ok(())
        })
    }

    /// What the loops did in one spoken answer, when each was at work; nothing without speech.
    ///
    /// # Errors
    /// As [`Bench::run`].
    pub fn timeline(&self, sizes: &Sizes) -> Result<Option<Timeline>, Error> {
        self.fits(sizes)?;
        answer::timeline(self, sizes)
    }
}
