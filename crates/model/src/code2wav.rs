//! Codes to samples, exact at any cut of a stream: every layer keeps what it needs of the frames before.
//!
//! A frame makes [`Code2Wav::samples_per_frame`] samples. The reference cuts a little off the begin of a stream and
//! never makes as much at its end, so `n` frames make a fixed number of samples less than `n` times that.

mod conv;
mod decoder;
mod snake;
mod transformer;
mod upsample;

use burn::tensor::{DType, Device, Tensor};
use burn_omni_quant::{Embedding, Weights};

use crate::config::Code2WavConfig;
use conv::History;
use decoder::{Decoder, DecoderState};
use transformer::{Transformer, TransformerState};
use upsample::Upsample;

/// Frames that are decoded at a time, so that memory does not grow with the length of a push.
const CHUNK: usize = 64;

/// The decoder of codes.
#[derive(Clone, Debug)]
pub struct Code2Wav {
    code_embedding: Embedding,
    pre_transformer: Transformer,
    upsample: Vec<Upsample>,
    decoder: Decoder,
    config: Code2WavConfig,
    device: Device,
    dtype: DType,
}

/// What a stream leaves behind for its next frames.
#[derive(Debug)]
pub struct Code2WavState {
    pre_transformer: TransformerState,
    upsample: Vec<History>,
    decoder: DecoderState,
}

/// Codes that are not of this model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodesError {
    /// A frame has too many codes or too few.
    #[error("frame {frame} has {found} codes, expected {expected}")]
    Groups {
        /// Number of the frame in the call.
        frame: usize,
        /// How many codes it has.
        found: usize,
        /// How many groups there are.
        expected: usize,
    },
    /// A code is not in its codebook.
    #[error("code {code} of group {group} in frame {frame} is not below {codebook_size}")]
    Code {
        /// Number of the frame in the call.
        frame: usize,
        /// Number of the group.
        group: usize,
        /// The code.
        code: u32,
        /// Codes of a group.
        codebook_size: usize,
    },
}

impl Code2Wav {
    /// Loads the decoder at the root of its component.
    #[must_use]
    pub fn load(weights: &Weights<'_>, config: &Code2WavConfig) -> Self {
        let width = config.hidden_size;
        let codes = config.codebook_size * config.num_quantizers;
        let ratios = config.upsampling_ratios.iter().enumerate();
        let upsample = weights.at("upsample");
        Self {
            code_embedding: weights.embedding("code_embedding", [codes, width]),
            pre_transformer: Transformer::load(&weights.at("pre_transformer"), config),
            upsample: ratios
                .map(|(i, ratio)| Upsample::load(&upsample.at(i), width, *ratio))
                .collect(),
            decoder: Decoder::load(&weights.at("decoder"), config),
            config: config.clone(),
            device: weights.device().clone(),
            dtype: weights.dtype(),
        }
    }

    /// The state of a new stream.
    #[must_use]
    pub fn state(&self) -> Code2WavState {
        let options = (&self.device, self.dtype);
        Code2WavState {
            pre_transformer: self.pre_transformer.state(CHUNK, options),
            upsample: self
                .upsample
                .iter()
                .map(|stage| stage.history(options))
                .collect(),
            decoder: self.decoder.state(options),
        }
    }

    /// Samples that a frame adds to a stream, all but the first ones.
    #[must_use]
    pub fn samples_per_frame(&self) -> usize {
        self.config.total_upsample()
    }

    /// Decodes the frames that follow those of the state; one code a group in each.
    ///
    /// # Errors
    /// When a frame has another number of codes or one that is in no codebook; the state is as before then.
    pub fn push(
        &self,
        state: &mut Code2WavState,
        frames: &[Vec<u32>],
    ) -> Result<Vec<f32>, CodesError> {
        self.push_with(state, frames, &mut |_, _| {})
    }

    /// As [`Code2Wav::push`], with the rows that leave `pre`, each `upsample` and each `decoder` stage but the last
    /// shown to `tap`, for some frames at a time.
    ///
    /// # Errors
    /// As [`Code2Wav::push`].
    pub fn push_with(
        &self,
        state: &mut Code2WavState,
        frames: &[Vec<u32>],
        tap: &mut dyn FnMut(&str, &Tensor<2>),
    ) -> Result<Vec<f32>, CodesError> {
        self.check(frames)?;
        let mut samples = Vec::with_capacity(frames.len() * self.samples_per_frame());
        for frames in frames.chunks(CHUNK) {
            let Some(wave) = self.forward(state, frames, tap) else {
                continue;
            };
            let wave: Vec<f32> = wave
                .cast(DType::F32)
                .into_data()
                .try_to_vec()
                .expect("samples are f32");
            samples.extend(wave.into_iter().map(|sample| sample.clamp(-1.0, 1.0)));
            // Memory that nothing lies in any more goes back to the driver. A device that failed says so elsewhere.
            let _ = self.device.flush();
        }
        Ok(samples)
    }

    /// Decodes a whole stream.
    ///
    /// # Errors
    /// As [`Code2Wav::push`].
    pub fn decode(&self, frames: &[Vec<u32>]) -> Result<Vec<f32>, CodesError> {
        self.push(&mut self.state(), frames)
    }

    /// Decodes a stream as the reference does: in chunks of `chunk_size` frames that know of `left_context` frames
    /// before them, each chunk cut short like a stream of its own. Equal to [`Code2Wav::decode`] up to the first cut.
    ///
    /// # Errors
    /// As [`Code2Wav::push`].
    pub fn chunked_decode(
        &self,
        frames: &[Vec<u32>],
        chunk_size: usize,
        left_context: usize,
    ) -> Result<Vec<f32>, CodesError> {
        let mut samples = Vec::new();
        for start in (0..frames.len()).step_by(chunk_size) {
            let context = start.min(left_context);
            let end = (start + chunk_size).min(frames.len());
            let chunk = self.decode(&frames[start - context..end])?;
            let rest = chunk.get(context * self.samples_per_frame()..);
            samples.extend_from_slice(rest.unwrap_or_default());
        }
        Ok(samples)
    }

    fn forward(
        &self,
        state: &mut Code2WavState,
        frames: &[Vec<u32>],
        tap: &mut dyn FnMut(&str, &Tensor<2>),
    ) -> Option<Tensor<2>> {
        self.make_room(frames.len());
        let x = self.embed(frames);
        let mut x = self.pre_transformer.forward(x, &mut state.pre_transformer);
        tap("pre", &x);
        for (i, (stage, history)) in self.upsample.iter().zip(&mut state.upsample).enumerate() {
            x = stage.forward(x, history);
            tap(&format!("upsample.{i}"), &x);
        }
        self.decoder.forward_with(x, &mut state.decoder, tap)
    }

    /// Asks for the longest tensor of so many frames before the shorter ones: a pool of device memory has pages of the
    /// longest so far, and every longer one leaves pages behind that are too short.
    fn make_room(&self, frames: usize) {
        let rows = frames * self.config.upsampling_ratios.iter().product::<usize>();
        let longest = self.decoder.longest(rows);
        drop(Tensor::<1>::empty([longest], (&self.device, self.dtype)));
    }

    /// The mean of the rows of each frame's codes, `[frames, hidden]`.
    fn embed(&self, frames: &[Vec<u32>]) -> Tensor<2> {
        let (groups, size) = (self.config.num_quantizers, self.config.codebook_size);
        let ids: Vec<u32> = frames
            .iter()
            .flat_map(|codes| codes.iter().zip((0..).step_by(size)))
            .map(|(code, first)| first + code)
            .collect();
        self.code_embedding
            .forward(&ids)
            .reshape([frames.len(), groups, self.config.hidden_size])
            .mean_dim(1)
            .squeeze_dim(1)
    }

    fn check(&self, frames: &[Vec<u32>]) -> Result<(), CodesError> {
        let (expected, codebook_size) = (self.config.num_quantizers, self.config.codebook_size);
        for (frame, codes) in frames.iter().enumerate() {
            if codes.len() != expected {
                return Err(CodesError::Groups {
                    frame,
                    found: codes.len(),
                    expected,
                });
            }
            let wrong = |code: &u32| usize::try_from(*code).is_ok_and(|code| code >= codebook_size);
            if let Some(group) = codes.iter().position(wrong) {
                return Err(CodesError::Code {
                    frame,
                    group,
                    code: codes[group],
                    codebook_size,
                });
            }
        }
        Ok(())
    }
}
