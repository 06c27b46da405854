//! Launches the decoding step of a model.

use burn_omni_kernels::Buffer;
use burn_omni_kernels::decode::{Attend, Cache, FeedForward, Layer, Routing, Step};
use burn_omni_kernels::few::{Rows, Weights};
use burn_omni_kernels::packed::tiles::{Matrix, Tiling};
use burn_omni_kernels::packed::{Coding, Shape};
use cubecl_core::frontend::Scalar;
use cubecl_core::prelude::*;

use crate::model::{Decoder, Model};
use crate::products::CODINGS;

/// Steps of a model's decoders, packed in each coding and not packed; `note` is called after each with its name.
pub(crate) fn steps(client: &Client, model: &Model, note: &mut dyn FnMut(String)) {
    for decoder in &model.decoders {
        for coding in CODINGS.map(Some).into_iter().chain([None]) {
            let made = Made {
                client,
                coding: coding.map(|(_, coding)| coding),
            };
            made.step(decoder).launch(client);
            let name = coding.map_or("bf16", |(name, _)| name);
            note(format!("{} {name} step {}", model.name, decoder.hidden));
        }
    }
}

/// Weights of one coding, or of bf16.
struct Made<'a> {
    client: &'a Client,
    coding: Option<Coding>,
}

impl Made<'_> {
    fn step(&self, decoder: &Decoder) -> Step {
        let Decoder {
            hidden,
            heads,
            vocabulary,
            ..
        } = *decoder;
        let norm = || self.buffer::<f32>(hidden);
        let cache = || self.buffer::<half::bf16>(64 * heads[1] * 128);
        let layer = Layer {
            norms: [norm(), norm()],
            qkv: self.weights(1, (heads[0] + 2 * heads[1]) * 128, hidden, false),
            qk_norms: [self.buffer::<f32>(128), self.buffer::<f32>(128)],
            o_proj: self.weights(1, hidden, heads[0] * 128, false),
            feed_forward: self.feed_forward(decoder),
            cache: Cache {
                keys: cache(),
                values: cache(),
            },
        };
        Step::new(
            self.client,
            self.rows(1, vocabulary, hidden),
            vec![layer],
            (norm(), 1e-6),
            self.weights(1, vocabulary, hidden, false),
            Attend::new(self.client, heads, 1e-6, &[0.0; 64]),
        )
    }

    fn feed_forward(&self, decoder: &Decoder) -> FeedForward {
        let Decoder { hidden, inner, .. } = *decoder;
        let experts = decoder.experts.map_or(1, |[experts, _]| experts);
        let matrices = [
            self.weights(experts, 2 * inner, hidden, true),
            self.weights(experts, hidden, inner, false),
        ];
        match decoder.experts {
            Some([experts, top_k]) => FeedForward::Sparse {
                router: self.rows(1, experts, hidden),
                routing: Routing {
                    experts,
                    top_k,
                    normalize: decoder.normalize,
                },
                experts: matrices,
            },
            None => FeedForward::Dense(matrices),
        }
    }

    fn weights(&self, matrices: usize, rows: usize, width: usize, gated: bool) -> Weights {
        let Some(coding) = self.coding else {
            return Weights::Rows(self.rows(matrices, rows, width));
        };
        let shape = Shape {
            matrices,
            rows,
            width,
            gated,
        };
        let tiling = Tiling::new(coding, shape);
        Weights::Tiles(Matrix {
            codes: self.buffer::<u32>(tiling.code_words(matrices)),
            scales: self.buffer::<u32>(tiling.scale_words(matrices)),
            gains: self.buffer::<f32>(matrices * rows),
            tiling,
            rows,
        })
    }

    fn rows(&self, matrices: usize, rows: usize, width: usize) -> Rows {
        Rows {
            buffer: self.buffer::<half::bf16>(matrices * rows * width),
            rows,
            width,
        }
    }

    fn buffer<E: Scalar>(&self, length: usize) -> Buffer {
        Buffer::empty(self.client, E::elem_type_native(), length)
    }
}
