//! Layers, and the launches that take a row through them.

use cubecl::prelude::*;

use super::{Attend, Attended, Cache, Choice, Control, Router, attend, router};
use crate::Buffer;
use crate::few::{self, Row, Weights};
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
#[expect(
    clippy::large_enum_variant,
    reason = "both are handles, and a layer has one of them"
)]
pub enum FeedForward {
    /// Gate and up, down.
    Dense([Weights; 2]),
    /// Experts.
    Sparse {
        /// What chooses them.
        router: Router,
        /// Gate and up, down, of all experts.
        experts: [Weights; 2],
        /// The expert of every row, whose share the router weighs.
        shared: Option<Shared>,
    },
}

/// An expert of every row: gate and up, down.
pub type Shared = [Weights; 2];

impl FeedForward {
    /// Slots, and numbers of each, between the products.
    fn hidden(&self) -> (usize, usize) {
        match self {
            Self::Dense([_, down]) => (1, down.columns()),
            Self::Sparse {
                router,
                experts: [_, down],
                ..
            } => (router.routing.top_k, down.columns()),
        }
    }

    const fn shared(&self) -> Option<&Shared> {
        match self {
            Self::Dense(_) => None,
            Self::Sparse { shared, .. } => shared.as_ref(),
        }
    }

    const fn experts(&self) -> usize {
        match self {
            Self::Dense(_) => 1,
            Self::Sparse { router, .. } => router.weights.rows,
        }
    }
}

/// A stack of layers of one size, for a row at a time.
#[derive(Clone, Debug)]
pub struct Stack {
    layers: Vec<Layer>,
    /// f32 `[width]`, the last norm.
    norm: Buffer,
    /// What attention of all layers shares.
    pub attend: Attend,
    /// What changes from row to row.
    pub control: Control,
    /// The row.
    pub row: Row,
    qkv: Buffer,
    attended: (Activations, usize),
    choice: Choice,
    hidden: (Activations, usize),
    shared_hidden: (Activations, usize),
}

impl Stack {
    /// Room for a row.
    ///
    /// - norm: f32 `[width]`, the last one
    /// - eps: of the norms of the row
    ///
    /// # Panics
    /// When there are no layers.
    #[must_use]
    pub fn new(
        client: &Client,
        width: usize,
        layers: Vec<Layer>,
        (norm, eps): (Buffer, f32),
        attend: Attend,
    ) -> Self {
        assert!(!layers.is_empty(), "a stack has layers");
        // Layers may be stored in different forms, which are padded differently.
        let most = |size: fn(&Layer) -> usize| layers.iter().map(size).max().unwrap_or_default();
        let slots = most(|layer| layer.feed_forward.hidden().0);
        let hidden = most(|layer| layer.feed_forward.hidden().1);
        let attended = most(|layer| layer.o_proj.columns());
        let shared = most(|layer| {
            layer
                .feed_forward
                .shared()
                .map_or(8, |[_, down]| down.columns())
        });
        let experts = most(|layer| layer.feed_forward.experts());
        let zeros = |(slots, stride): (usize, usize)| {
            (activations::zeros(client, slots * 2 * stride, true), stride)
        };
        let [heads, kv_heads] = attend.heads;
        Self {
            row: Row::new(client, width, eps),
            qkv: Buffer::empty(
                client,
                f32::elem_type_native(),
                (heads + 2 * kv_heads) * 128,
            ),
            attended: zeros((1, attended)),
            choice: Choice::new(client, experts, slots),
            hidden: zeros((slots, hidden)),
            shared_hidden: zeros((1, shared)),
            control: Control::new(client),
            layers,
            norm,
            attend,
        }
    }

    /// The weight of the norm before the first layer.
    #[must_use]
    pub fn first_norm(&self) -> &Buffer {
        &self.layers[0].norms[0]
    }

    /// Takes the row through all layers; it is then ready for products behind the last norm.
    pub fn launch(&self, client: &Client) {
        for (number, layer) in self.layers.iter().enumerate() {
            let next = self.layers.get(number + 1);
            let norm = next.map_or(&self.norm, |next| &next.norms[0]);
            let later = next.unwrap_or(&self.layers[0]).qkv.memory();
            self.attention(client, layer);
            self.feed_forward(client, layer, norm, later);
        }
    }

    fn attention(&self, client: &Client, layer: &Layer) {
        few::normed(client, &layer.qkv, &self.row, &self.qkv);
        let output = (&self.attended.0, self.attended.1);
        let attended = Attended {
            qkv: &self.qkv,
            norms: layer.qk_norms.each_ref(),
            control: &self.control.0,
            cache: &layer.cache,
            output,
            next: layer.o_proj.memory(),
        };
        attend(client, &self.attend, attended);
        few::residual(client, &layer.o_proj, output, (&self.row, &layer.norms[1]));
    }

    /// - later: what the launch behind the layer reads
    fn feed_forward(&self, client: &Client, layer: &Layer, norm: &Buffer, later: &Buffer) {
        let row = &self.row;
        let hidden = (&self.hidden.0, self.hidden.1);
        match &layer.feed_forward {
            FeedForward::Dense([gate_up, down]) => {
                few::normed_gate_up(client, [gate_up, down], row, None, hidden);
                few::residual(client, down, hidden, (row, norm));
            }
            FeedForward::Sparse {
                router: weights,
                experts: [gate_up, down],
                shared,
            } => {
                let Choice {
                    ids,
                    shares,
                    shared_id,
                    shared: share,
                    ..
                } = &self.choice;
                router(client, weights, row, &self.choice, later);
                few::normed_gate_up(client, [gate_up, down], row, Some(ids), hidden);
                let shared_hidden = (&self.shared_hidden.0, self.shared_hidden.1);
                if let Some([gate_up, down]) = shared {
                    few::normed_gate_up(client, [gate_up, down], row, None, shared_hidden);
                }
                few::residual_down(client, down, hidden, [ids, shares], (row, norm));
                if let Some([_, down]) = shared {
                    let share = [shared_id, share];
                    few::residual_down(client, down, shared_hidden, share, (row, norm));
                }
            }
        }
    }
}
