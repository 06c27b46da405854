//! Launches attention of prompts, and what fills caches of FP8.

use burn_omni_kernels::attention::matrix::{self, Blocking};
use burn_omni_kernels::matrix_units::Instructions;
use burn_omni_kernels::{Attention, Buffer, E4M3, Heads, Seen, attention, write_rows};
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
        fp8(client, decoder.heads);
        note(format!("{} FP8 attention {}", model.name, decoder.hidden));
    }
    for [heads, width] in ENCODERS {
        for rows in ROWS {
            let ranges = vec![[0, 0]; rows];
            attend::<f32, f32>(client, rows, ([heads, heads], width), Seen::Ranges(&ranges));
        }
        note(format!("{} attention {heads}x{width}", model.name));
    }
}

/// Rows into a cache of FP8, and attention of a few and of many over it.
fn fp8(client: &Client, [heads, kv_heads]: [usize; 2]) {
    let k = parts(client, E4M3, ROWS[0], kv_heads, 128);
    let f32 = f32::elem_type_native();
    let rows = parts(client, f32, ROWS[0], kv_heads, 128);
    write_rows(client, &rows, &k.buffer, 0);
    for rows in [1, ROWS[0]] {
        let q = parts(client, f32, rows, heads, 128);
        let _ = attention(
            client,
            Attention {
                q: &q,
                k: &k,
                v: &k,
                scale: 1.0,
                seen: Seen::Causal {
                    first: ROWS[0] - rows,
                    window: ROWS[0],
                },
            },
        );
    }
}

fn attend<Q: Scalar, K: Scalar>(
    client: &Client,
    rows: usize,
    ([heads, kv_heads], width): ([usize; 2], usize),
    seen: Seen<'_>,
) {
    let q = parts(client, Q::elem_type_native(), rows, heads, width);
    let [k, v] = [(); 2].map(|()| parts(client, K::elem_type_native(), rows, kv_heads, width));
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

fn parts(client: &Client, elem: ElemType, rows: usize, heads: usize, width: usize) -> Heads {
    Heads {
        buffer: Buffer::empty(client, elem, rows * heads * width),
        rows,
        heads,
        width,
        strides: [heads * width, width],
    }
}
