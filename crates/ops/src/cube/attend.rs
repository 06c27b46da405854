//! Attention.

use burn_cubecl::kernel::cast;
use burn_omni_kernels::{self as kernels, Attention, Heads, Seen};

use super::buffers::{e4m3, heads, tensor};
use super::{F, I};
use crate::reference::visible;
use crate::{AttentionSpec, Mask};

pub(super) fn attention(q: F, k: F, v: F, spec: &AttentionSpec) -> F {
    let v = cast(v, k.dtype);
    over(q, [heads(k), heads(v)], spec)
}

pub(super) fn attention_e4m3(q: F, kv: [I; 2], spec: &AttentionSpec) -> F {
    over(q, kv.map(e4m3), spec)
}

fn over(q: F, [k, v]: [Heads; 2], spec: &AttentionSpec) -> F {
    let (like, q) = (q.clone(), heads(q));
    let ranges: Vec<[u32; 2]>;
    let seen = match &spec.mask {
        Mask::Causal { first, window } => Seen::Causal {
            first: *first,
            window: window.unwrap_or(first + q.rows),
        },
        mask @ Mask::Segments(_) => {
            let number = |key| u32::try_from(key).expect("keys are numbered by u32");
            ranges = visible(mask, q.rows)
                .into_iter()
                .map(|(start, end)| [number(start), number(end)])
                .collect();
            Seen::Ranges(&ranges)
        }
    };
    let attention = Attention {
        q: &q,
        k: &k,
        v: &v,
        scale: spec.scale,
        seen,
    };
    let y = kernels::attention(&like.client, attention);
    tensor(&like, y, [q.rows, q.heads, q.width], like.dtype)
}
