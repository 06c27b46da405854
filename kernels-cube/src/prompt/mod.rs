//! Many rows through a layer: the launches of its halves, few because each does for others what it can. Rows are rounded by the
//! launch that stands before a product, and a product is added to rows by the launch that forms it.

mod queries;

use cubecl::prelude::*;

pub use queries::{Fused, queries};

use crate::attention::{WIDEST, attention_rounded, rounds_queries};
use crate::decode::{Cache, FeedForward, Router};
use crate::few::{self, Weights, few_onto};
use crate::many::{self, Added, Experts};
use crate::norm::{norm_rounded, norm_rounded_twice};
use crate::packed::tiles::{Activations, Rounding};
use crate::{
    Angles, Attention, Buffer, Heads, Matrix, NormParameters, Routes, Seen, route, swiglu_rounded,
};

/// Rows on their way through a layer, and the norm of the half that they enter.
#[derive(Clone, Copy, Debug)]
pub struct Entering<'a> {
    /// f32 `[rows, width]`
    pub x: &'a Matrix,
    /// The norm's weight, `[width]`.
    pub norm: &'a Buffer,
    /// What norms add to the mean square.
    pub eps: f32,
}

/// The weights of a layer's first half.
#[derive(Clone, Copy, Debug)]
pub struct Attending<'a> {
    /// Queries, keys and values below one another.
    pub qkv: &'a Weights,
    /// Of queries and of keys, `[head_dim]`.
    pub qk_norms: [&'a Buffer; 2],
    /// `[width, heads * head_dim]`
    pub o_proj: &'a Weights,
    /// Query heads and key heads.
    pub heads: [usize; 2],
    /// Of every row.
    pub angles: Angles<'a>,
}

/// Attention of rows that stand behind row `at` of the cache, added to them; keys and values are written there. Nothing where a
/// product does not take rows as wide as they are, for heads wider than [`WIDEST`], and for one row.
///
/// - output: f32 `[rows, width]`
///
/// # Panics
/// When the cache has no room for the rows.
#[must_use]
pub fn attend(
    client: &Client,
    entering: Entering<'_>,
    parts: Attending<'_>,
    (cache, at): (&Cache, usize),
) -> Option<Buffer> {
    let Entering { x, eps, .. } = entering;
    let Attending {
        qkv,
        qk_norms,
        o_proj,
        heads: [heads, kv_heads],
        angles,
    } = parts;
    let width = qkv.rows() / (heads + 2 * kv_heads);
    (width <= WIDEST && x.rows > 1).then_some(())?;
    let into = rounding(client, qkv, [x.rows, x.width])?;
    let out_of = rounding(client, o_proj, [x.rows, heads * width])?;
    let seen = [at + x.rows, kv_heads, width];
    let [keys, values] = [&cache.keys, &cache.values].map(|store| first_rows(store, seen));

    let normed = norm_rounded(client, x, entering.parameters(), into);
    let fused = Heads {
        buffer: product(client, qkv, (&normed, x.rows), None),
        rows: x.rows,
        heads: heads + 2 * kv_heads,
        width,
        strides: [qkv.rows(), width],
    };
    let mut q = Heads {
        heads,
        strides: [heads * width, width],
        ..fused.clone()
    };
    let rounds = rounds_queries(client, &q, kv_heads);
    let rows = Fused {
        qkv: &fused,
        heads: [heads, kv_heads],
        norms: qk_norms,
        eps,
        angles,
    };
    q.buffer = queries(client, rows, (cache, at), rounds);
    let attention = Attention {
        q: &q,
        k: &keys,
        v: &values,
        scale: 1.0 / (width as f32).sqrt(),
        seen: Seen::Causal {
            first: at,
            window: at + x.rows,
        },
    };
    let out = attention_rounded(client, &attention, out_of);
    Some(product(client, o_proj, (&out, x.rows), Some(&x.buffer)))
}

/// The first rows of a cache.
fn first_rows(store: &Buffer, [rows, heads, width]: [usize; 3]) -> Heads {
    let row = heads * width;
    assert!(rows * row <= store.len(), "a cache has room for its rows");
    Heads {
        buffer: store.clone(),
        rows,
        heads,
        width,
        strides: [row, width],
    }
}

/// The chosen experts of rows, and the one that all have where there is one, added to them. Nothing where a product does not take
/// rows as wide as they are, where so few choose that experts are seldom chosen twice, for an expert of all rows that is packed,
/// and for a layer without experts.
///
/// - output: f32 `[rows, width]`
#[must_use]
pub fn feed_forward(
    client: &Client,
    entering: Entering<'_>,
    parts: &FeedForward,
) -> Option<Buffer> {
    let FeedForward::Sparse {
        router:
            Router {
                weights: router,
                shared: gate,
                routing,
            },
        experts: [gate_up, down],
        shared,
    } = parts
    else {
        return None;
    };
    let x = entering.x;
    let router = Weights::Rows(router.clone());
    let to_router = rounding(client, &router, [x.rows, x.width])?;
    let to_experts = many::rounding(client, &[gate_up, down], x.rows);
    (gate_up.width_of_many() == x.width).then_some(())?;
    let everyone = match (shared, gate) {
        (None, _) => None,
        (Some([up @ Weights::Rows(_), down @ Weights::Rows(_)]), Some(gate)) => {
            Some([up.clone(), down.clone(), Weights::Rows(gate.clone())])
        }
        _ => return None,
    };
    if x.rows * routing.top_k <= routing.experts {
        return None;
    }
    let [routed, normed] = if to_experts == to_router {
        let rounded = norm_rounded(client, x, entering.parameters(), to_router);
        [rounded.clone(), rounded]
    } else {
        norm_rounded_twice(client, x, entering.parameters(), [to_router, to_experts])
    };
    let everyone = everyone.map(|weights| of_everyone(client, &weights, (&routed, x.rows)));
    let logits = Matrix {
        buffer: product(client, &router, (&routed, x.rows), None),
        rows: x.rows,
        width: routing.experts,
        stride: routing.experts,
    };
    let Routes { ids, weights, .. } = route(client, &logits, routing.top_k, routing.normalize);
    let added = Added {
        onto: Some(&x.buffer),
        shared: everyone.as_ref().map(|[rows, scores]| [rows, scores]),
    };
    let experts = Experts {
        weights: [gate_up, down],
        count: routing.experts,
        ids: &ids,
        shares: &weights,
        slots: routing.top_k,
    };
    let y = f32s(client, x.rows * x.width);
    experts.launch(client, &normed, added, &y);
    Some(y)
}

/// What the expert of all rows makes of them, and the scores of its gate.
fn of_everyone(
    client: &Client,
    [gate_up, down, gate]: &[Weights; 3],
    (x, rows): (&Activations, usize),
) -> [Buffer; 2] {
    let both = Matrix {
        buffer: product(client, gate_up, (x, rows), None),
        rows,
        width: gate_up.rows(),
        stride: gate_up.rows(),
    };
    let h = swiglu_rounded(client, &both, x.split);
    [
        product(client, down, (&h, rows), None),
        product(client, gate, (x, rows), None),
    ]
}

impl<'a> Entering<'a> {
    const fn parameters(&self) -> NormParameters<'a> {
        NormParameters {
            weight: self.norm,
            bias: None,
            eps: self.eps,
        }
    }
}

/// How rows of f32 are rounded for a product with these weights, if it takes them as wide as they are.
fn rounding(client: &Client, weights: &Weights, [rows, width]: [usize; 2]) -> Option<Rounding> {
    let mut rounding = many::rounding(client, &[weights], rows);
    if few::suits(weights, rows * rounding.halves()) {
        rounding = Rounding::natural(rounding.split);
    }
    (weights.width_of_many() == width).then_some(rounding)
}

/// A product of rows of f32, on top of what it is added to.
fn product(
    client: &Client,
    weights: &Weights,
    (x, rows): (&Activations, usize),
    onto: Option<&Buffer>,
) -> Buffer {
    let y = f32s(client, rows * weights.rows());
    if few::suits(weights, rows * x.halves()) {
        few_onto(client, weights, (x, rows), onto, &y);
        return y;
    }
    let product = many::Product::new(weights, x, rows);
    let product = match onto {
        Some(rows) => product.onto(rows),
        None => product,
    };
    many::many(client, product, &y);
    y
}

fn f32s(client: &Client, count: usize) -> Buffer {
    Buffer::empty(client, f32::elem_type_native(), count)
}
