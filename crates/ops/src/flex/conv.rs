//! Causal convolution without unfolding: with rows in time order, the taps of one output row are consecutive rows of
//! the input, so a tap (or, without dilation, all of them) is a product of matrices with overlapping rows.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::gemm::{Output, Product, Rows, multiply};
use super::linear::as_f32;
use super::parallel;
use super::small::SmallProduct;
use super::view::{Stored, View, tensor, vector, with_rows};

/// Output rows computed at a time, few enough that they stay in the cache over all taps.
const TILE: usize = 256;

pub(super) fn causal_conv1d(
    x: &FlexTensor,
    weight: &FlexTensor,
    bias: &FlexTensor,
    dilation: usize,
) -> FlexTensor {
    let x = with_rows(x);
    let x = View::new(&x);
    let shape = weight.layout().shape();
    let (out_width, taps) = (shape[0], shape[1] / x.width);
    let rows = x.rows - (taps - 1) * dilation;
    let stored = Stored::new(weight);
    let values = as_f32(stored);
    let conv = Conv {
        x: &x,
        weight: &values,
        bias: vector(bias),
        taps,
        dilation,
    };

    let mut out = vec![0.0; rows * out_width];
    if SmallProduct::suits(rows, &values) {
        conv.small(rows).forward(&mut out, out_width);
        return tensor(out, &[rows, out_width]);
    }
    let tiles = out.chunks_mut(TILE * out_width).enumerate();
    if parallel::pieces(rows * values.len() / 8) == 1 {
        tiles.for_each(|(tile, out)| conv.forward(tile * TILE, out));
    } else {
        out.par_chunks_mut(TILE * out_width)
            .enumerate()
            .for_each(|(tile, out)| conv.forward(tile * TILE, out));
    }
    tensor(out, &[rows, out_width])
}

pub(super) fn depthwise_conv1d(
    x: &FlexTensor,
    weight: &FlexTensor,
    bias: &FlexTensor,
) -> FlexTensor {
    let (x, weight) = (with_rows(x), with_rows(weight));
    let (x, weight, bias) = (View::new(&x), View::new(&weight), vector(bias));
    let rows = x.rows + 1 - weight.rows;
    let mut out = vec![0.0; rows * x.width];
    let work = out.len() * weight.rows;
    parallel::rows(&mut out, x.width, work, |row, out| {
        out.copy_from_slice(bias);
        for tap in 0..weight.rows {
            let products = x.row(row + tap, 0).iter().zip(weight.row(tap, 0));
            for (sum, (x, weight)) in out.iter_mut().zip(products) {
                *sum += x * weight;
            }
        }
    });
    tensor(out, &[rows, x.width])
}

struct Conv<'a> {
    x: &'a View<'a>,
    weight: &'a [f32],
    bias: &'a [f32],
    taps: usize,
    dilation: usize,
}

impl Conv<'_> {
    /// Taps that lie side by side in a row of overlapping rows.
    fn joined(&self) -> bool {
        self.dilation == 1 && self.x.row_stride == self.x.width
    }

    /// The whole as one product with a matrix that fits into a cache.
    fn small(&self, rows: usize) -> SmallProduct<'_> {
        let (taps, width) = if self.joined() {
            (1, self.taps * self.x.width)
        } else {
            (self.taps, self.x.width)
        };
        SmallProduct {
            x: Rows {
                data: self.x.from(0, 0),
                rows,
                stride: self.x.row_stride,
            },
            width,
            taps,
            dilation: self.dilation,
            weight: self.weight,
            bias: Some(self.bias),
        }
    }

    /// The output rows from `first` on, as many as `out` holds.
    fn forward(&self, first: usize, out: &mut [f32]) {
        let width = self.bias.len();
        for row in out.chunks_exact_mut(width) {
            row.copy_from_slice(self.bias);
        }
        let rows = out.len() / width;
        let (steps, per_step) = if self.joined() {
            (1, self.taps)
        } else {
            (self.taps, 1)
        };
        let k = per_step * self.x.width;
        for step in 0..steps {
            let lhs = Rows {
                data: self.x.from(first + step * self.dilation, 0),
                rows,
                stride: self.x.row_stride,
            };
            let rhs = &self.weight[step * self.x.width..];
            let rhs = Rows {
                data: rhs,
                rows: width,
                stride: self.taps * self.x.width,
            };
            multiply(
                out,
                width,
                Product {
                    lhs,
                    rhs,
                    k,
                    scale: 1.0,
                    output: Output::Add,
                },
            );
        }
    }
}
