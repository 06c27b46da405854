//! The vision encoder: patches of pictures and films to rows, and the rows that deepstack adds to the first decoder
//! layers (docs/spec/thinker.md D.3).

use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_omni_ops as ops;
use burn_omni_quant::{Bias, Linear, Weights};

use crate::config::VisionEncoderConfig;
use crate::layers::{EncoderAttention, LayerNorm, RopeTable};
use crate::processor::media::Patches;

/// Epsilon of the layer norms, fixed in the reference.
const EPS: f64 = 1e-6;
/// Base of the rotary frequencies, fixed in the reference.
const THETA: f64 = 10_000.0;

/// The vision encoder.
#[derive(Clone, Debug)]
pub struct VisionTower {
    patch_embed: Linear,
    /// `pos_embed`: a square of positions, `[side * side, hidden]`.
    pos_embed: Tensor<2>,
    blocks: Vec<Block>,
    merger: Merger,
    merger_list: Vec<Merger>,
    config: VisionEncoderConfig,
    device: Device,
}

/// What the encoder makes of pictures or films.
#[derive(Clone, Debug)]
pub struct VisionRows {
    /// `[rows, out_hidden_size]`, one for each merged block of patches.
    pub rows: Tensor<2>,
    /// What is added behind the first decoder layers, `[rows, out_hidden_size]` each.
    pub deepstack: Vec<Tensor<2>>,
}

#[derive(Clone, Debug)]
struct Block {
    norm1: LayerNorm,
    attn: EncoderAttention,
    norm2: LayerNorm,
    linear_fc1: Linear,
    linear_fc2: Linear,
}

/// Joins the patches of a block into one row.
#[derive(Clone, Debug)]
struct Merger {
    ln_q: LayerNorm,
    mlp: [Linear; 2],
    merged: usize,
    /// Whether the norm sees the joined row, as in deepstack, or each patch.
    norm_joined: bool,
}

/// The patches of a call, in their order.
struct Places {
    /// Row and column of every patch.
    cells: Vec<[usize; 2]>,
    /// Rows and columns of the frame that each patch is in.
    frames: Vec<[usize; 2]>,
    /// Patches of each frame.
    segments: Vec<usize>,
}

impl VisionTower {
    /// Loads the encoder at this place.
    #[must_use]
    pub fn load(weights: &Weights<'_>, config: &VisionEncoderConfig) -> Self {
        let hidden = config.hidden_size;
        let [frames, side] = [config.temporal_patch_size, config.patch_size];
        let stored = [hidden, config.in_channels, frames, side, side];
        let proj = weights.at("patch_embed").at("proj");
        let merger = |place: &Weights<'_>, joined| Merger::load(place, config, joined);
        let levels = config.deepstack_visual_indexes.len();
        Self {
            patch_embed: proj.kernel(stored, [hidden, config.patch_values()], |kernel| kernel),
            pos_embed: weights
                .at("pos_embed")
                .tensor("weight", [config.num_position_embeddings, hidden]),
            blocks: weights
                .at("blocks")
                .list(config.depth, |block| Block::load(block, config)),
            merger: merger(&weights.at("merger"), false),
            merger_list: weights
                .at("merger_list")
                .list(levels, |place| merger(place, true)),
            config: config.clone(),
            device: weights.device().clone(),
        }
    }

    /// The rows of pictures or films, one after another.
    #[must_use]
    pub fn forward(&self, media: &[Patches]) -> VisionRows {
        self.forward_with(media, &mut |_, _| {})
    }

    /// The same; `tap` sees the embedded patches and the output of every block by name.
    #[must_use]
    pub fn forward_with(
        &self,
        media: &[Patches],
        tap: &mut dyn FnMut(&str, &Tensor<2>),
    ) -> VisionRows {
        let places = self.places(media);
        let pixels = media.iter().map(|patches| {
            let shape = [patches.rows(), self.config.patch_values()];
            Tensor::<2>::from_data(TensorData::new(patches.data.to_vec(), shape), &self.device)
        });
        let pixels = Tensor::cat(pixels.collect(), 0);
        let mut x = self.patch_embed.forward(pixels) + self.positions(&places);
        tap("patch_embed", &x);
        let rope = self.rope(&places);
        let mut deepstack = Vec::new();
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(x, &places.segments, &rope);
            tap(&format!("blocks.{i}"), &x);
            if let Some(level) = self
                .config
                .deepstack_visual_indexes
                .iter()
                .position(|index| *index == i)
            {
                deepstack.push(self.merger_list[level].forward(x.clone()));
            }
        }
        VisionRows {
            rows: self.merger.forward(x),
            deepstack,
        }
    }

    /// Patches come by frame, then by merged block, then inside the block.
    fn places(&self, media: &[Patches]) -> Places {
        let merge = self.config.spatial_merge_size;
        let mut places = Places {
            cells: Vec::new(),
            frames: Vec::new(),
            segments: Vec::new(),
        };
        for &Patches {
            grid: [steps, height, width],
            ..
        } in media
        {
            for _ in 0..steps {
                places.segments.push(height * width);
                places
                    .frames
                    .extend(std::iter::repeat_n([height, width], height * width));
                for index in 0..height * width {
                    let (inside, block) = (index % (merge * merge), index / (merge * merge));
                    let (block_row, block_column) =
                        (block / (width / merge), block % (width / merge));
                    places.cells.push([
                        block_row * merge + inside / merge,
                        block_column * merge + inside % merge,
                    ]);
                }
            }
        }
        places
    }

    /// The position table, stretched over each frame with its corners in place: `[patches, hidden]`.
    fn positions(&self, places: &Places) -> Tensor<2> {
        let side = self.config.position_side();
        let patches = places.cells.len();
        let mut taps: [(Vec<i64>, Vec<f32>); 4] = Default::default();
        for (cell, frame) in places.cells.iter().zip(&places.frames) {
            let [(top, dy), (left, dx)] =
                [0, 1].map(|axis| stretched(cell[axis], frame[axis], side));
            let (bottom, right) = ((top + 1).min(side - 1), (left + 1).min(side - 1));
            let corners = [
                (top, left, (1.0 - dy) * (1.0 - dx)),
                (top, right, (1.0 - dy) * dx),
                (bottom, left, dy * (1.0 - dx)),
                (bottom, right, dy * dx),
            ];
            for ((indices, factors), (row, column, factor)) in taps.iter_mut().zip(corners) {
                indices.push((row * side + column) as i64);
                factors.push(factor);
            }
        }
        let parts = taps.into_iter().map(|(indices, factors)| {
            let indices =
                Tensor::<1, Int>::from_data(TensorData::new(indices, [patches]), &self.device);
            let factors =
                Tensor::<2>::from_data(TensorData::new(factors, [patches, 1]), &self.device);
            self.pos_embed.clone().select(0, indices) * factors
        });
        parts
            .reduce(|sum, part| sum + part)
            .expect("there are four corners")
    }

    /// Half of the frequencies turn with the row, half with the column: `[patches, head_dim / 2]`.
    fn rope(&self, places: &Places) -> RopeTable {
        let quarter = self.config.head_dim() / 4;
        let frequency = |j: usize| THETA.powf(-(j as f64) / quarter as f64) as f32;
        let frequencies: Vec<f32> = (0..quarter).map(frequency).collect();
        let angles = places
            .cells
            .iter()
            .flatten()
            .flat_map(|at| frequencies.iter().map(move |f| *at as f32 * f));
        let angles: Vec<f64> = angles.map(f64::from).collect();
        let shape = [places.cells.len(), 2 * quarter];
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> = angles.iter().map(|angle| f(*angle) as f32).collect();
            Tensor::from_data(TensorData::new(values, shape), &self.device)
        };
        RopeTable {
            cos: table(f64::cos),
            sin: table(f64::sin),
        }
    }
}

/// Where cell `index` of `count` lies in a table of `side`, as the cell before it and the way to the next.
fn stretched(index: usize, count: usize, side: usize) -> (usize, f32) {
    if count < 2 {
        return (0, 0.0);
    }
    // As torch.linspace: from the nearer end, in f32.
    let last = (side - 1) as f32;
    let step = last / (count - 1) as f32;
    let at = if index < count / 2 {
        step * index as f32
    } else {
        last - step * (count - 1 - index) as f32
    };
    (at as usize, at - at.floor())
}

impl Block {
    fn load(weights: &Weights<'_>, config: &VisionEncoderConfig) -> Self {
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let (attention, mlp) = (weights.at("attn"), weights.at("mlp"));
        Self {
            norm1: LayerNorm::load(&weights.at("norm1"), hidden, EPS),
            attn: EncoderAttention {
                qkv: attention.linear("qkv", [3 * hidden, hidden], Bias::Yes),
                out: attention.linear("proj", [hidden, hidden], Bias::Yes),
                heads: config.num_heads,
            },
            norm2: LayerNorm::load(&weights.at("norm2"), hidden, EPS),
            linear_fc1: mlp.linear("linear_fc1", [wide, hidden], Bias::Yes),
            linear_fc2: mlp.linear("linear_fc2", [hidden, wide], Bias::Yes),
        }
    }

    fn forward(&self, x: Tensor<2>, segments: &[usize], rope: &RopeTable) -> Tensor<2> {
        let h = self
            .attn
            .forward(self.norm1.forward(x.clone()), segments, Some(rope))
            + x;
        let wide = ops::gelu_tanh(self.linear_fc1.forward(self.norm2.forward(h.clone())));
        self.linear_fc2.forward(wide) + h
    }
}

impl Merger {
    fn load(weights: &Weights<'_>, config: &VisionEncoderConfig, norm_joined: bool) -> Self {
        let merged = config.merged_width();
        let width = if norm_joined {
            merged
        } else {
            config.hidden_size
        };
        let mlp = weights.at("mlp");
        Self {
            ln_q: LayerNorm::load(&weights.at("ln_q"), width, EPS),
            mlp: [
                mlp.linear("0", [merged, merged], Bias::Yes),
                mlp.linear("2", [config.out_hidden_size, merged], Bias::Yes),
            ],
            merged,
            norm_joined,
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let [patches, hidden] = x.dims();
        let shape = [patches * hidden / self.merged, self.merged];
        let x = if self.norm_joined {
            self.ln_q.forward(x.reshape(shape))
        } else {
            self.ln_q.forward(x).reshape(shape)
        };
        self.mlp[1].forward(ops::gelu(self.mlp[0].forward(x)))
    }
}
