//! The audio encoder: log-mel frames to 13 rows a second.
//!
//! Frames are cut into chunks of one second, each convolved on its own and numbered from zero; rows then see one another
//! inside windows of eight seconds (docs/spec/thinker.md C.3).

use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_omni_ops as ops;
use burn_omni_quant::{Bias, Linear, Weights};

use super::stem::Halving;
use crate::config::AudioEncoderConfig;
use crate::layers::{EncoderAttention, LayerNorm};
use crate::processor::media::LogMel;

/// Convolutions of the stem; each halves time and frequency.
const STEM: usize = 3;
/// Chunks that are convolved together at most, so that what they see takes little memory.
const TOGETHER: usize = 8;
/// Epsilon of the layer norms, fixed in the reference.
const EPS: f64 = 1e-5;

/// The audio encoder.
#[derive(Clone, Debug)]
pub struct AudioTower {
    /// `conv2d1`, `conv2d2`, `conv2d3`.
    stem: Vec<Halving>,
    conv_out: Linear,
    layers: Vec<AudioLayer>,
    ln_post: LayerNorm,
    proj1: Linear,
    proj2: Linear,
    config: AudioEncoderConfig,
    device: Device,
}

#[derive(Clone, Debug)]
struct AudioLayer {
    self_attn_layer_norm: LayerNorm,
    self_attn: EncoderAttention,
    final_layer_norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl AudioTower {
    /// Loads the encoder at this place.
    #[must_use]
    pub fn load(weights: &Weights<'_>, config: &AudioEncoderConfig) -> Self {
        let (hidden, channels) = (config.d_model, config.downsample_hidden_size);
        let stem = (1..=STEM).map(|i| {
            let place = weights.at(format!("conv2d{i}"));
            let width = if i == 1 { 1 } else { channels };
            Halving::load(&place, [channels, width])
        });
        Self {
            stem: stem.collect(),
            conv_out: weights.linear("conv_out", [hidden, config.conv_out_width()], Bias::No),
            layers: weights.at("layers").list(config.encoder_layers, |layer| {
                AudioLayer::load(layer, config)
            }),
            ln_post: LayerNorm::load(&weights.at("ln_post"), hidden, EPS),
            proj1: weights.linear("proj1", [hidden, hidden], Bias::Yes),
            proj2: weights.linear("proj2", [config.output_dim, hidden], Bias::Yes),
            config: config.clone(),
            device: weights.device().clone(),
        }
    }

    /// The rows of all clips of a prompt, one clip after another. A chunk that is shorter than the longest of the call
    /// is padded with zeros, which its last rows can see; so clips are encoded in one call, as the reference does.
    ///
    /// # Shapes
    /// - output: `[rows of all clips, output_dim]`
    #[must_use]
    pub fn forward(&self, clips: &[LogMel]) -> Tensor<2> {
        self.forward_with(clips, &mut |_, _| {})
    }

    /// The same; `tap` sees the stem and the output of every layer by name.
    #[must_use]
    pub fn forward_with(
        &self,
        clips: &[LogMel],
        tap: &mut dyn FnMut(&str, &Tensor<2>),
    ) -> Tensor<2> {
        let chunks: Vec<Chunk<'_>> = clips.iter().flat_map(|clip| self.chunks(clip)).collect();
        let longest = chunks.iter().map(|chunk| chunk.frames).max().unwrap_or(0);
        let parts = chunks
            .chunks(self.config.conv_chunksize.min(TOGETHER))
            .map(|chunks| self.convolve(chunks, longest));
        let mut x = Tensor::cat(parts.collect(), 0); // [rows, d_model]
        tap("stem", &x);
        let segments = self.segments(clips, longest);
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x, &segments);
            tap(&format!("layers.{i}"), &x);
        }
        let x = self.proj1.forward(self.ln_post.forward(x));
        let x = self.proj2.forward(ops::gelu(x));
        tap("proj2", &x);
        x
    }

    fn chunks<'a>(&self, clip: &'a LogMel) -> impl Iterator<Item = Chunk<'a>> + use<'a> {
        let size = self.config.chunk_frames();
        (0..clip.frames).step_by(size).map(move |first| Chunk {
            clip,
            first,
            frames: size.min(clip.frames - first),
        })
    }

    /// The stem over some chunks, each padded to `longest` frames: `[rows, d_model]` without the padding's rows.
    fn convolve(&self, chunks: &[Chunk<'_>], longest: usize) -> Tensor<2> {
        let mels = self.config.num_mel_bins;
        let mut data = vec![0.0; chunks.len() * mels * longest];
        for (chunk, out) in chunks.iter().zip(data.chunks_exact_mut(mels * longest)) {
            for (mel, out) in out.chunks_exact_mut(longest).enumerate() {
                let start = mel * chunk.clip.frames + chunk.first;
                out[..chunk.frames].copy_from_slice(&chunk.clip.data[start..start + chunk.frames]);
            }
        }
        let shape = [chunks.len(), mels, longest, 1];
        let x = Tensor::<4>::from_data(TensorData::new(data, shape), &self.device);
        let x = self.stem.iter().fold(x, |x, halving| halving.forward(x));
        let [count, bands, steps, channels] = x.dims();
        // [chunks, bands, steps, channels] -> [chunks * steps, channels * bands]
        let x = x
            .permute([0, 2, 3, 1])
            .reshape([count * steps, channels * bands]);
        let x = self.conv_out.forward(x) + self.positions(steps).repeat_dim(0, count);
        let kept: Vec<i64> = chunks
            .iter()
            .enumerate()
            .flat_map(|(i, chunk)| (0..rows(chunk.frames)).map(move |row| (i * steps + row) as i64))
            .collect();
        if kept.len() == count * steps {
            return x;
        }
        let count = kept.len();
        x.select(
            0,
            Tensor::<1, Int>::from_data(TensorData::new(kept, [count]), &self.device),
        )
    }

    /// Sinusoidal positions `[steps, d_model]`: sines, then cosines.
    fn positions(&self, steps: usize) -> Tensor<2> {
        let half = self.config.d_model / 2;
        let increment = 10_000_f64.ln() / (half - 1) as f64;
        let mut data = Vec::with_capacity(steps * 2 * half);
        for step in 0..steps {
            // The angle is formed in f32, as the reference does.
            let angle = |j: usize| f64::from(step as f32 * (-increment * j as f64).exp() as f32);
            data.extend((0..half).map(|j| angle(j).sin() as f32));
            data.extend((0..half).map(|j| angle(j).cos() as f32));
        }
        Tensor::from_data(TensorData::new(data, [steps, 2 * half]), &self.device)
    }

    /// Lengths of the windows whose rows see one another; none crosses a clip.
    fn segments(&self, clips: &[LogMel], longest: usize) -> Vec<usize> {
        let window = rows(longest) * self.config.chunks_per_window();
        let mut segments = Vec::new();
        for clip in clips {
            let mut left: usize = self.chunks(clip).map(|chunk| rows(chunk.frames)).sum();
            while left > 0 {
                segments.push(window.min(left));
                left -= window.min(left);
            }
        }
        segments
    }
}

/// Some frames of a clip that are convolved together.
#[derive(Clone, Copy)]
struct Chunk<'a> {
    clip: &'a LogMel,
    first: usize,
    frames: usize,
}

/// Rows that the stem makes of a chunk.
fn rows(frames: usize) -> usize {
    (0..STEM).fold(frames, |length, _| length.div_ceil(2))
}

impl AudioLayer {
    fn load(weights: &Weights<'_>, config: &AudioEncoderConfig) -> Self {
        let (hidden, wide) = (config.d_model, config.encoder_ffn_dim);
        let attention = weights.at("self_attn");
        let parts = [("q_proj", hidden), ("k_proj", hidden), ("v_proj", hidden)];
        Self {
            self_attn_layer_norm: LayerNorm::load(&weights.at("self_attn_layer_norm"), hidden, EPS),
            self_attn: EncoderAttention {
                qkv: attention.fused_linear(&parts, hidden, Bias::Yes),
                out: attention.linear("out_proj", [hidden, hidden], Bias::Yes),
                heads: config.encoder_attention_heads,
            },
            final_layer_norm: LayerNorm::load(&weights.at("final_layer_norm"), hidden, EPS),
            fc1: weights.linear("fc1", [wide, hidden], Bias::Yes),
            fc2: weights.linear("fc2", [hidden, wide], Bias::Yes),
        }
    }

    fn forward(&self, x: Tensor<2>, segments: &[usize]) -> Tensor<2> {
        let h =
            self.self_attn
                .forward(self.self_attn_layer_norm.forward(x.clone()), segments, None)
                + x;
        let wide = ops::gelu(self.fc1.forward(self.final_layer_norm.forward(h.clone())));
        self.fc2.forward(wide) + h
    }
}
