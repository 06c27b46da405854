//! Layers, and the launches that take a row through them.

use cubecl::prelude::*;

use super::{Attend, Attended, Cache, Choice, Router, attend, router};
use crate::Buffer;
use crate::control::Control;
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

/// The launches of a layer, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// Queries, keys and values.
    Qkv,
    /// Attention.
    Attend,
    /// The product behind it.
    OProj,
    /// The choice of experts; layers without have none.
    Router,
    /// Gates and what they gate.
    GateUp,
    /// The product behind them.
    Down,
}

impl Node {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Qkv,
        Self::Attend,
        Self::OProj,
        Self::Router,
        Self::GateUp,
        Self::Down,
    ];
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
        for number in 0..self.layers.len() {
            for node in Node::ALL {
                self.launch_in(client, number, node);
            }
        }
    }

    /// The same launches of every layer alone, to see what they cost; the row is none afterwards.
    pub fn launch_node(&self, client: &Client, node: Node) {
        for number in 0..self.layers.len() {
            self.launch_in(client, number, node);
        }
    }

    /// How many layers have such launches.
    #[must_use]
    pub fn count(&self, node: Node) -> usize {
        let has = |layer: &&Layer| {
            node != Node::Router || matches!(layer.feed_forward, FeedForward::Sparse { .. })
        };
        self.layers.iter().filter(has).count()
    }

    fn launch_in(&self, client: &Client, number: usize, node: Node) {
        let layer = &self.layers[number];
        let next = self.layers.get(number + 1);
        let norm = next.map_or(&self.norm, |next| &next.norms[0]);
        let attended = (&self.attended.0, self.attended.1);
        match node {
            Node::Qkv => few::normed(client, &layer.qkv, &self.row, &self.qkv),
            Node::Attend => {
                let attended = Attended {
                    qkv: &self.qkv,
                    norms: layer.qk_norms.each_ref(),
                    control: &self.control.0,
                    cache: &layer.cache,
                    output: attended,
                    next: layer.o_proj.memory(),
                };
                attend(client, &self.attend, attended);
            }
            Node::OProj => {
                let row = (&self.row, &layer.norms[1]);
                few::residual(client, &layer.o_proj, attended, row);
            }
            Node::Router => {
                if let FeedForward::Sparse { router: of, .. } = &layer.feed_forward {
                    // What the launch behind the layer reads.
                    let later = next.unwrap_or(&self.layers[0]).qkv.memory();
                    router(client, of, &self.row, &self.choice, later);
                }
            }
            Node::GateUp => self.gate_up(client, &layer.feed_forward),
            Node::Down => self.down(client, &layer.feed_forward, norm),
        }
    }

    fn gate_up(&self, client: &Client, feed_forward: &FeedForward) {
        let row = &self.row;
        let hidden = (&self.hidden.0, self.hidden.1);
        match feed_forward {
            FeedForward::Dense([gate_up, _]) => {
                few::normed_gate_up(client, gate_up, row, None, hidden);
            }
            FeedForward::Sparse {
                experts: [gate_up, _],
                shared,
                ..
            } => {
                let ids = Some(&self.choice.ids);
                few::normed_gate_up(client, gate_up, row, ids, hidden);
                if let Some([gate_up, _]) = shared {
                    let hidden = (&self.shared_hidden.0, self.shared_hidden.1);
                    few::normed_gate_up(client, gate_up, row, None, hidden);
                }
            }
        }
    }

    fn down(&self, client: &Client, feed_forward: &FeedForward, norm: &Buffer) {
        let row = (&self.row, norm);
        let hidden = (&self.hidden.0, self.hidden.1);
        match feed_forward {
            FeedForward::Dense([_, down]) => few::residual(client, down, hidden, row),
            FeedForward::Sparse {
                experts: [_, down],
                shared,
                ..
            } => {
                let Choice {
                    ids,
                    shares,
                    shared_id,
                    shared: share,
                    ..
                } = &self.choice;
                few::residual_down(client, down, hidden, [ids, shares], row);
                if let Some([_, down]) = shared {
                    let hidden = (&self.shared_hidden.0, self.shared_hidden.1);
                    few::residual_down(client, down, hidden, [shared_id, share], row);
                }
            }
        }
    }
}
