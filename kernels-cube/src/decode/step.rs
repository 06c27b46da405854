//! The launches of a step, in order.

use cubecl::prelude::*;

use super::choose::embed;
use super::{Attend, Cache, Choice, Chooser, Control, Embedding, Routing, attend, router};
use crate::Buffer;
use crate::few::{self, Row, Rows, Weights};
use crate::packed::tiles::{Activations, activations};

/// The weights of a layer, and its cache.
#[derive(Clone, Debug)]
pub struct Layer {
    /// f32 `[width]`: before attention, and before the feed-forward network.
    pub norms: [Buffer; 2],
    /// Queries, keys and values below one another.
    pub qkv: Weights,
    /// f32 `[128]`: of queries and of keys.
    pub qk_norms: [Buffer; 2],
    /// `[width, query heads * 128]`
    pub o_proj: Weights,
    /// What follows attention.
    pub feed_forward: FeedForward,
    /// Keys and values.
    pub cache: Cache,
}

/// What follows attention in a layer.
#[derive(Clone, Debug)]
pub enum FeedForward {
    /// Gate and up, down.
    Dense([Weights; 2]),
    /// Experts.
    Sparse {
        /// `[experts, width]`
        router: Rows,
        /// How experts are chosen.
        routing: Routing,
        /// Gate and up, down, of all experts.
        experts: [Weights; 2],
    },
}

impl FeedForward {
    const fn down(&self) -> &Weights {
        match self {
            Self::Dense([_, down])
            | Self::Sparse {
                experts: [_, down], ..
            } => down,
        }
    }

    const fn slots(&self) -> usize {
        match self {
            Self::Dense(_) => 1,
            Self::Sparse { routing, .. } => routing.top_k,
        }
    }
}

/// A decoder, one token at a time.
#[derive(Clone, Debug)]
pub struct Step {
    embedding: Embedding,
    layers: Vec<Layer>,
    norm: Buffer,
    head: Weights,
    attend: Attend,
    /// What changes from step to step.
    pub control: Control,
    row: Row,
    qkv: Buffer,
    attended: (Activations, usize),
    choice: Choice,
    hidden: (Activations, usize),
    /// f32 `[vocabulary]`, of the last step.
    pub logits: Buffer,
    chooser: Chooser,
}

impl Step {
    /// Room for a step of these layers.
    ///
    /// - norm: f32 `[width]`, the last one
    /// - eps: of the norms of the row
    #[must_use]
    pub fn new(
        client: &Client,
        embedding: Embedding,
        layers: Vec<Layer>,
        (norm, eps): (Buffer, f32),
        head: Weights,
        attend: Attend,
    ) -> Self {
        let f32 = f32::elem_type_native();
        let [heads, kv_heads] = attend.heads;
        let most = |size: fn(&Layer) -> usize| layers.iter().map(size).max().unwrap_or(1);
        let slots = most(|layer| layer.feed_forward.slots());
        let stride = most(|layer| layer.feed_forward.down().columns());
        let experts = most(|layer| match &layer.feed_forward {
            FeedForward::Dense(_) => 1,
            FeedForward::Sparse { router, .. } => router.rows,
        });
        let attended = most(|layer| layer.o_proj.columns());
        Self {
            row: Row::new(client, embedding.width, eps),
            qkv: Buffer::empty(client, f32, (heads + 2 * kv_heads) * 128),
            attended: (activations::zeros(client, 2 * attended, true), attended),
            choice: Choice::new(client, experts, slots),
            hidden: (activations::zeros(client, slots * 2 * stride, true), stride),
            logits: Buffer::empty(client, f32, head.rows()),
            chooser: Chooser::new(client),
            control: Control::new(client),
            embedding,
            layers,
            norm,
            head,
            attend,
        }
    }

    /// Launches a step: the token of [`Control`] goes in, the next one comes out.
    pub fn launch(&self, client: &Client) {
        let Some(first) = self.layers.first() else {
            return;
        };
        embed(
            client,
            &self.embedding,
            &self.control,
            (&self.row, &first.norms[0]),
            &self.attend,
        );
        for (number, layer) in self.layers.iter().enumerate() {
            let next = self.layers.get(number + 1);
            let norm = next.map_or(&self.norm, |next| &next.norms[0]);
            self.layer(client, layer, norm, next.unwrap_or(first).qkv.memory());
        }
        few::normed(client, &self.head, &self.row, &self.logits);
        self.chooser.greedy(client, &self.logits, &self.control);
    }

    fn layer(&self, client: &Client, layer: &Layer, next: &Buffer, later: &Buffer) {
        let row = &self.row;
        few::normed(client, &layer.qkv, row, &self.qkv);
        let [q_norm, k_norm] = &layer.qk_norms;
        attend(
            client,
            &self.attend,
            &self.qkv,
            [q_norm, k_norm],
            &self.control.0,
            &layer.cache,
            (&self.attended.0, self.attended.1),
            layer.o_proj.memory(),
        );
        let attended = (&self.attended.0, self.attended.1);
        few::residual(client, &layer.o_proj, attended, (row, &layer.norms[1]));
        let hidden = (&self.hidden.0, self.hidden.1);
        match &layer.feed_forward {
            FeedForward::Dense([gate_up, down]) => {
                few::normed_gate_up(client, gate_up, row, None, hidden);
                few::residual(client, down, hidden, (row, next));
            }
            FeedForward::Sparse {
                router: weights,
                routing,
                experts: [gate_up, down],
            } => {
                let Choice { ids, shares, .. } = &self.choice;
                router(client, weights, row, *routing, &self.choice, later);
                few::normed_gate_up(client, gate_up, row, Some(ids), hidden);
                few::residual_down(client, down, hidden, [ids, shares], (row, next));
            }
        }
    }
}
