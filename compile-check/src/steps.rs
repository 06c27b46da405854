//! Launches the decoding step of a model.

use burn_omni_kernels::choose::{Chooser, Chosen};
use burn_omni_kernels::control::{Control, TOKEN};
use burn_omni_kernels::decode::{
    Attend, Attended, Cache, Entry, FeedForward, Layer, Router, Routing, Stack, Step, attend, leave,
};
use burn_omni_kernels::few::{Rows, Weights};
use burn_omni_kernels::packed::tiles::{Matrix, Tiling, activations};
use burn_omni_kernels::packed::{Coding, Shape};
use burn_omni_kernels::prompt::{self, Attending, Entering};
use burn_omni_kernels::{Angles, Buffer, E4M3};
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
            let step = made.step(decoder);
            step.launch(client);
            made.edges(&step.stack, decoder);
            made.prompts(decoder);
            let name = coding.map_or("bf16", |(name, _)| name);
            note(format!("{} {name} step {}", model.name, decoder.hidden));
        }
        // Of what a step launches, attention alone knows how its cache is stored.
        let made = Made {
            client,
            coding: None,
        };
        made.attention(decoder, E4M3);
        note(format!("{} FP8 cache {}", model.name, decoder.hidden));
    }
}

/// Rows of prompts: few and many with what rounding takes away, and without.
const PROMPTS: [usize; 4] = [32, 56, 128, 4096];

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
        let layer = self.layer(decoder);
        let attend = Attend::new(self.client, heads, 1e-6, &[0.0; 64]);
        let stack = Stack::new(self.client, hidden, vec![layer], (norm(), 1e-6), attend);
        let table = self.rows(1, vocabulary, hidden);
        let head = self.weights(1, vocabulary, hidden, false);
        Step::new(self.client, table, stack, head)
    }

    fn layer(&self, decoder: &Decoder) -> Layer {
        let Decoder { hidden, heads, .. } = *decoder;
        let norm = || self.buffer::<f32>(hidden);
        Layer {
            norms: [norm(), norm()],
            qkv: self.weights(1, (heads[0] + 2 * heads[1]) * 128, hidden, false),
            qk_norms: [self.buffer::<f32>(128), self.buffer::<f32>(128)],
            o_proj: self.weights(1, hidden, heads[0] * 128, false),
            feed_forward: self.feed_forward(decoder),
            cache: self.cache(heads[1], half::bf16::elem_type_native()),
        }
    }

    /// Prompts through the halves of a layer, as far as there are launches for them.
    fn prompts(&self, decoder: &Decoder) {
        let Decoder { hidden, heads, .. } = *decoder;
        let layer = self.layer(decoder);
        for rows in PROMPTS {
            let x = burn_omni_kernels::Matrix {
                buffer: self.buffer::<f32>(rows * hidden),
                rows,
                width: hidden,
                stride: hidden,
            };
            let entering = |half: usize| Entering {
                x: &x,
                norm: &layer.norms[half],
                eps: 1e-6,
            };
            let angles = self.buffer::<f32>(rows * 64);
            let attending = Attending {
                qkv: &layer.qkv,
                qk_norms: layer.qk_norms.each_ref(),
                o_proj: &layer.o_proj,
                heads,
                angles: Angles {
                    cos: &angles,
                    sin: &angles,
                },
            };
            for elem in [half::bf16::elem_type_native(), E4M3] {
                let cache = self.cache(heads[1], elem);
                let _ = prompt::attend(self.client, entering(0), attending, (&cache, 0));
            }
            let _ = prompt::feed_forward(self.client, entering(1), &layer.feed_forward);
        }
    }

    /// Attention over a cache of other elements.
    fn attention(&self, decoder: &Decoder, elem: ElemType) {
        let [heads, kv_heads] = decoder.heads;
        let numbers = |count| self.buffer::<f32>(count);
        let (qkv, norm) = (numbers((heads + 2 * kv_heads) * 128), numbers(128));
        let output = activations::zeros(self.client, 2 * heads * 128, true);
        let attended = Attended {
            qkv: &qkv,
            norms: [&norm, &norm],
            control: &Control::new(self.client).0,
            cache: &self.cache(kv_heads, elem),
            output: (&output, heads * 128),
            next: &norm,
        };
        let all = Attend::new(self.client, decoder.heads, 1e-6, &[0.0; 64]);
        attend(self.client, &all, attended);
    }

    fn cache(&self, kv_heads: usize, elem: ElemType) -> Cache {
        let rows = || Buffer::empty(self.client, elem, PROMPTS[3] * kv_heads * 128);
        Cache {
            keys: rows(),
            values: rows(),
        }
    }

    /// How rows come and go when the host is between.
    fn edges(&self, stack: &Stack, decoder: &Decoder) {
        let values = self.buffer::<f32>(decoder.hidden);
        let table = self.rows(1, decoder.vocabulary, decoder.hidden);
        let token = Entry::Token {
            table: &table,
            id: (&stack.control.0, TOKEN),
            sum: &values,
            begins: true,
        };
        let sum = self.buffer::<f32>(decoder.hidden);
        for entry in [token, Entry::Row(&values), Entry::Sum([&values, &sum])] {
            let row = (&stack.row, stack.first_norm());
            entry.launch(self.client, (&stack.control, &stack.attend), row, (0, 0.0));
        }
        leave(self.client, &stack.row, &values);
        let scores = self.buffer::<f32>(decoder.vocabulary);
        let codes = self.buffer::<u32>(4);
        let chooser = Chooser::new(self.client, decoder.vocabulary);
        chooser.launch(self.client, &scores, Chosen::Code(&codes, 1));
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
                router: Router {
                    weights: self.rows(1, experts, hidden),
                    shared: decoder.shared.map(|_| self.rows(1, 1, hidden)),
                    routing: Routing {
                        experts,
                        top_k,
                        normalize: decoder.normalize,
                    },
                },
                experts: matrices,
                shared: decoder.shared.map(|shared| {
                    [
                        self.weights(1, 2 * shared, hidden, true),
                        self.weights(1, hidden, shared, false),
                    ]
                }),
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
