//! The code predictor: the codes of a frame after the first, each from those before it.
//!
//! A frame is a sequence of its own: the talker's hidden state, the row of the first code, then the rows of the codes
//! as they are chosen, one pass a code.

use burn::tensor::{DType, Device, Tensor, s};
use burn_omni_ops::decode::{Matrices, StackParts};
use burn_omni_quant::{Bias, Embedding, Linear, Weights};

use crate::config::CodePredictorConfig;
use crate::layers::{
    AttentionSize, DecoderLayer, FeedForward, KvCache, Mlp, RmsNorm, Rope, RopeTable,
};

/// Rows before the first choice: the talker's hidden state and the row of the first code.
const PREFIX_ROWS: usize = 2;

/// Chooses the code of a group, counted from 1, from the scores of all its codes.
pub type Sample<'a> = dyn FnMut(usize, Vec<f32>) -> u32 + 'a;

/// A small dense decoder with one table and one head a group.
#[derive(Clone, Debug)]
pub struct CodePredictor {
    codec_embedding: Vec<Embedding>,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    lm_head: Vec<Linear>,
    /// The rows of each pass, which are at the same positions in every frame.
    rope: Vec<RopeTable>,
    frequencies: Rope,
    cache_size: [usize; 2],
}

/// The first code of a frame, which the talker chose.
#[derive(Clone, Debug)]
pub struct FirstCode {
    /// Its number.
    pub code: u32,
    /// Its row in the talker's table, `[1, hidden]`.
    pub row: Tensor<2>,
}

/// A frame of speech.
#[derive(Clone, Debug)]
pub struct CodecFrame {
    /// One code a group, `[num_code_groups]`.
    pub codes: Vec<u32>,
    /// The sum of the rows of all codes, `[1, hidden]`: the talker's next input, less its text.
    pub feedback: Tensor<2>,
}

/// Room for the keys and values of one frame, used again for every frame.
#[derive(Clone, Debug)]
pub struct PredictorState {
    caches: Vec<KvCache>,
}

/// What captured frames take of a code predictor.
pub(crate) struct PredictorParts {
    /// The layers, with caches of their own.
    pub(crate) stack: StackParts,
    /// A table a group.
    pub(crate) tables: Vec<Tensor<2>>,
    /// A head a group.
    pub(crate) heads: Vec<Matrices>,
}

impl CodePredictor {
    /// Loads `model` and `lm_head`.
    #[must_use]
    pub fn load(weights: &Weights<'_>, config: &CodePredictorConfig) -> Self {
        let (hidden, eps) = (config.hidden_size, config.rms_norm_eps);
        let size = AttentionSize {
            qk_norm_eps: Some(eps),
            ..config.attention().into()
        };
        let groups = config.num_code_groups - 1;
        let table = [config.vocab_size, hidden];
        let model = weights.at("model");
        let tables = model.at("codec_embedding");
        let heads = weights.at("lm_head");
        let rope = Rope::new(config.head_dim, config.rope.rope_theta, None);
        let first = rope.sequence(0, PREFIX_ROWS, weights.device());
        let others = (PREFIX_ROWS..).take(groups - 1);
        Self {
            codec_embedding: (0..groups)
                .map(|i| tables.embedding(&i.to_string(), table))
                .collect(),
            layers: model.at("layers").list(config.num_hidden_layers, |layer| {
                DecoderLayer::load(layer, size, eps, |mlp| {
                    FeedForward::Dense(Box::new(Mlp::load(mlp, hidden, config.intermediate_size)))
                })
            }),
            norm: RmsNorm::load(&model.at("norm"), hidden, eps),
            lm_head: (0..groups)
                .map(|i| heads.linear(&i.to_string(), table, Bias::No))
                .collect(),
            rope: std::iter::once(first)
                .chain(others.map(|position| rope.sequence(position, 1, weights.device())))
                .collect(),
            frequencies: rope,
            cache_size: [config.num_key_value_heads, config.head_dim],
        }
    }

    /// The state in which frames are made.
    #[must_use]
    pub(crate) fn state(&self, (device, dtype): (&Device, DType)) -> PredictorState {
        let capacity = PREFIX_ROWS + self.rope.len() - 1;
        PredictorState {
            caches: (0..self.layers.len())
                .map(|_| KvCache::new(capacity, self.cache_size, dtype, device))
                .collect(),
        }
    }

    /// The weights, where captured frames can use them.
    pub(crate) fn parts(&self, device: &Device) -> Option<PredictorParts> {
        let PredictorState { caches } = self.state((device, DType::BF16));
        let tables = self.codec_embedding.iter().map(Embedding::weight);
        let heads: Option<Vec<_>> = self.lm_head.iter().map(Linear::matrices).collect();
        Some(PredictorParts {
            stack: DecoderLayer::stack(&self.layers, &caches, &self.norm, &self.frequencies)?,
            tables: tables.cloned().collect(),
            heads: heads?,
        })
    }

    /// Bytes of the matrices that are read for a frame: all layers for every code, a head each.
    pub(crate) fn frame_bytes(&self) -> usize {
        let layers: usize = self.layers.iter().map(DecoderLayer::row_bytes).sum();
        let heads: usize = self.lm_head.iter().map(Linear::bytes).sum();
        layers * self.lm_head.len() + heads
    }

    /// Makes a frame; `sample` is called once for every group after the first.
    ///
    /// # Shapes
    /// - hidden: `[1, hidden]`, of the row whose logits chose the first code
    pub fn frame(
        &self,
        state: &mut PredictorState,
        hidden: Tensor<2>,
        first: FirstCode,
        sample: &mut Sample<'_>,
    ) -> CodecFrame {
        state.caches.iter_mut().for_each(|cache| cache.truncate(0));
        let mut codes = Vec::with_capacity(1 + self.lm_head.len());
        codes.push(first.code);
        let mut rows = Tensor::cat(vec![hidden, first.row.clone()], 0);
        let mut feedback = first.row;
        for (group, (table, head)) in self.codec_embedding.iter().zip(&self.lm_head).enumerate() {
            let last = self.forward(state, rows, group); // [1, hidden]
            let code = sample(group + 1, scores(head.forward(last)));
            codes.push(code);
            rows = table.forward(&[code]);
            feedback = feedback + rows.clone();
        }
        CodecFrame { codes, feedback }
    }

    /// One pass: the normed hidden state of the last row.
    ///
    /// # Shapes
    /// - x: `[2, hidden]` in the first pass of a frame, then `[1, hidden]`
    /// - output: `[1, hidden]`
    fn forward(&self, state: &mut PredictorState, mut x: Tensor<2>, pass: usize) -> Tensor<2> {
        for (layer, cache) in self.layers.iter().zip(&mut state.caches) {
            x = layer.forward(x, &self.rope[pass], cache);
        }
        let [rows, _] = x.dims();
        self.norm.forward(x.slice(s![rows - 1.., ..]))
    }
}

/// Scores `[1, vocab]` on the host.
fn scores(logits: Tensor<2>) -> Vec<f32> {
    logits
        .cast(DType::F32)
        .into_data()
        .try_to_vec()
        .expect("scores are f32")
}
