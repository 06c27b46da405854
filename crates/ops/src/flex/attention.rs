//! Softmax attention by blocks of queries: scores for a block, one pass over the keys it can see.

use burn_flex::FlexTensor;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::gemm::{Output, Product, Rows, combine, multiply};
use super::math::{exp, mul_add, vectorized};
use super::norm::{fold, sum_of};
use super::parallel;
use super::view::{View, tensor, with_rows};
use crate::AttentionSpec;
use crate::reference::visible;

/// Query rows of one head whose scores are held at a time.
const BLOCK: usize = 64;

pub(super) fn attention(
    q: &FlexTensor,
    k: &FlexTensor,
    v: &FlexTensor,
    spec: &AttentionSpec,
) -> FlexTensor {
    let (q, k, v) = (with_rows(q), with_rows(k), with_rows(v));
    let call = Call {
        q: View::new(&q),
        k: View::new(&k),
        v: View::new(&v),
        scale: spec.scale,
    };
    let (rows, heads, head_dim) = (call.q.rows, call.q.heads, call.q.width);
    let visible = visible(&spec.mask, rows);
    let blocks = blocks(&visible, heads);
    let seen: usize = visible.iter().map(|(start, end)| end - start).sum();
    let run = |block: &Block| (block.head, block.first, call.forward(block, &visible));
    let parts: Vec<(usize, usize, Vec<f32>)> = if parallel::pieces(seen * heads * head_dim / 2) == 1
    {
        blocks.iter().map(run).collect()
    } else {
        blocks.par_iter().map(run).collect()
    };
    let mut out = vec![0.0; rows * heads * head_dim];
    for (head, first, part) in parts {
        for (i, row) in part.chunks_exact(head_dim).enumerate() {
            let start = ((first + i) * heads + head) * head_dim;
            out[start..start + head_dim].copy_from_slice(row);
        }
    }
    tensor(out, &[rows, heads, head_dim])
}

/// Consecutive query rows of one head, and the keys that any of them sees.
struct Block {
    head: usize,
    first: usize,
    rows: usize,
    keys: (usize, usize),
}

/// Cuts the rows into blocks whose rows share most of their keys: a block never crosses a segment.
fn blocks(visible: &[(usize, usize)], heads: usize) -> Vec<Block> {
    let mut cuts = Vec::new();
    let mut first = 0;
    while first < visible.len() {
        let (start, mut end) = visible[first];
        let mut rows = 0;
        while rows < BLOCK && first + rows < visible.len() && visible[first + rows].0 < end {
            end = visible[first + rows].1;
            rows += 1;
        }
        cuts.push((first, rows, (start, end)));
        first += rows;
    }
    cuts.iter()
        .flat_map(|&(first, rows, keys)| {
            (0..heads).map(move |head| Block {
                head,
                first,
                rows,
                keys,
            })
        })
        .collect()
}

struct Call<'a> {
    q: View<'a>,
    k: View<'a>,
    v: View<'a>,
    scale: f32,
}

impl Call<'_> {
    /// The outputs of one block, `[rows, head_dim]`.
    fn forward(&self, block: &Block, visible: &[(usize, usize)]) -> Vec<f32> {
        let head_dim = self.q.width;
        let kv_head = block.head / (self.q.heads / self.k.heads);
        let (start, end) = block.keys;
        let keys = end - start;
        let q = Rows {
            data: self.q.from(block.first, block.head),
            rows: block.rows,
            stride: self.q.row_stride,
        };
        let k = Rows {
            data: self.k.from(start, kv_head),
            rows: keys,
            stride: self.k.row_stride,
        };
        let v = Rows {
            data: self.v.from(start, kv_head),
            rows: keys,
            stride: self.v.row_stride,
        };

        let mut out = vec![0.0; block.rows * head_dim];
        let mut scores = vec![0.0; block.rows * keys];
        if block.rows == 1 {
            vectorized(OneRow {
                q: &q.data[..head_dim],
                k,
                v,
                scale: self.scale,
                scores: &mut scores,
                out: &mut out,
            });
            return out;
        }
        multiply(&mut scores, keys, product(q, k, head_dim, self.scale));
        for (row, &(from, to)) in scores.chunks_exact_mut(keys).zip(&visible[block.first..]) {
            row[..from - start].fill(0.0);
            row[to - start..].fill(0.0);
            vectorized(Normalize {
                row: &mut row[from - start..to - start],
            });
        }
        let scores = Rows {
            data: &scores,
            rows: block.rows,
            stride: keys,
        };
        combine(&mut out, head_dim, product(scores, v, keys, 1.0), head_dim);
        out
    }
}

fn product<'a>(lhs: Rows<'a>, rhs: Rows<'a>, k: usize, scale: f32) -> Product<'a> {
    let output = Output::Overwrite;
    Product {
        lhs,
        rhs,
        k,
        scale,
        output,
    }
}

/// Softmax in place.
struct Normalize<'a> {
    row: &'a mut [f32],
}

impl WithSimd for Normalize<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        softmax::<S>(self.row);
    }
}

#[inline(always)]
fn softmax<S: Simd>(row: &mut [f32]) {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for x in row.iter_mut() {
        *x = exp::<S>(*x - largest);
    }
    let inverse = 1.0 / sum_of(row, |sum, x| sum + x);
    for x in row.iter_mut() {
        *x *= inverse;
    }
}

/// A single query: dot products instead of a product of matrices.
struct OneRow<'a> {
    q: &'a [f32],
    k: Rows<'a>,
    v: Rows<'a>,
    scale: f32,
    scores: &'a mut [f32],
    out: &'a mut [f32],
}

impl WithSimd for OneRow<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let width = self.q.len();
        for (i, score) in self.scores.iter_mut().enumerate() {
            let key = &self.k.data[i * self.k.stride..i * self.k.stride + width];
            *score = dot::<S>(self.q, key) * self.scale;
        }
        softmax::<S>(self.scores);
        for (i, score) in self.scores.iter().enumerate() {
            let value = &self.v.data[i * self.v.stride..i * self.v.stride + width];
            for (out, value) in self.out.iter_mut().zip(value) {
                *out = mul_add::<S>(*score, *value, *out);
            }
        }
    }
}

#[inline(always)]
fn dot<S: Simd>(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; 16];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    for (a, b) in a.iter().zip(b) {
        for i in 0..16 {
            lanes[i] = mul_add::<S>(a[i], b[i], lanes[i]);
        }
    }
    for (lane, (a, b)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane = mul_add::<S>(*a, *b, *lane);
    }
    fold(lanes)
}
