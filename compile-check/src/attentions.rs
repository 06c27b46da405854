//! Launches attention of prompts.

use burn_omni_kernels::attention::matrix::{self, Blocking};
use burn_omni_kernels::matrix_units::Instructions;
use burn_omni_kernels::{Attention, Buffer, Heads, Seen};
use cubecl_core::frontend::Scalar;
use cubecl_core::prelude::*;

use crate::model::Model;

/// Heads of encoders, and their width: audio, images, code2wav.
const ENCODERS: [[usize; 2]; 3] = [[20, 64], [16, 72], [16, 80]];

/// Rows of prompts: one for every blocking.
const ROWS: [usize; 2] = [128, 4096];

/// What decoders do with caches of both types, and encoders with segments; `note` is called after each with its name.
pub(crate) fn launch(client: &Client, model: &Model, note: &mut dyn FnMut(String)) {
    for decoder in &model.decoders {
        for rows in ROWS {
            let causal = Seen::Causal {
                first: 0,
                window: rows,
            };
            attend::<f32, half::bf16>(client, rows, (decoder.heads, 128), causal);
            attend::<f32, f32>(client, rows, (decoder.heads, 128), causal);
            attend::<half::bf16, half::bf16>(client, rows, (decoder.heads, 128), causal);
        }
        note(format!("{} attention {}", model.name, decoder.hidden));
    }
    for [heads, width] in ENCODERS {
        for rows in ROWS {
            let ranges = vec![[0, 0]; rows];
            attend::<f32, f32>(client, rows, ([heads, heads], width), Seen::Ranges(&ranges));
        }
        note(format!("{} attention {heads}x{width}", model.name));
    }
}

fn attend<Q: Scalar, K: Scalar>(
    client: &Client,
    rows: usize,
    ([heads, kv_heads], width): ([usize; 2], usize),
    seen: Seen<'_>,
) {
    let q = parts::<Q>(client, rows, heads, width);
    let [k, v] = [(); 2].map(|()| parts::<K>(client, rows, kv_heads, width));
    let attention = Attention {
        q: &q,
        k: &k,
        v: &v,
        scale: 1.0,
        seen,
    };
    let blocking = Blocking::of(rows * heads / kv_heads, kv_heads, width);
    let _ = matrix::launch(client, &attention, blocking, Instructions::Native);
}

fn parts<E: Scalar>(client: &Client, rows: usize, heads: usize, width: usize) -> Heads {
    Heads {
        buffer: Buffer::empty(client, E::elem_type_native(), rows * heads * width),
        rows,
        heads,
        width,
        strides: [heads * width, width],
    }
}
