//! Products with matrices.

use burn::tensor::DType;
use burn_cubecl::kernel::cast;
use burn_omni_kernels::few::{self, Rows, SEVERAL, Weights};
use burn_omni_kernels::packed::tiles::{self, Activations, ColumnOrder, activations};
use burn_omni_kernels::{
    self as kernels, Buffer, ExpertMatrices, Matrix, Product, Routes, Taps, many,
};
use cubecl::prelude::*;

use super::buffers::{elem, flat, matrices, matrix, tensor};
use super::chosen::Chosen;
use super::{F, I};

/// Rows of either side that plain multiply-adds serve as well.
const FEW_ROWS: usize = 8;

pub(super) fn linear(x: F, weight: F, bias: Option<F>) -> F {
    product(x, weight, bias, Taps::ONE)
}

pub(super) fn causal_conv1d(x: F, weight: F, bias: F, dilation: usize) -> F {
    let count = weight.meta.shape()[1] / x.meta.shape()[1];
    product(x, weight, Some(bias), Taps { count, dilation })
}

fn product(x: F, weight: F, bias: Option<F>, taps: Taps) -> F {
    let (like, x, weight) = (x.clone(), matrix(x), matrix(weight));
    let rows = x.rows - (taps.count - 1) * taps.dilation;
    let weights = on_matrix_units(&like.client, &weight, taps);
    if let Some(weights) = &weights
        && bias.is_none()
        && taps.count == 1
        && are_few(rows, x.buffer.elem)
    {
        let x = rounded(&like.client, &x, weights.columns());
        return rounded_product(&like, weights, (&x, rows));
    }
    if let Some(weights) = &weights
        && are_many(rows, &weight)
    {
        let x = rounded(&like.client, &x, x.width);
        return many_rows(&like, weights, (&x, rows, taps), [bias, None]);
    }
    let bias = bias.map(|bias| flat(cast(bias, like.dtype)));
    let product = Product {
        x: &x,
        weight: &weight,
        bias: bias.as_ref(),
        taps,
    };
    let y = kernels::linear(&like.client, product);
    tensor(&like, y, [product.rows(), weight.rows], like.dtype)
}

/// Whether a product reads the weights once for a few columns of activations.
pub(super) fn are_few(rows: usize, of: ElemType) -> bool {
    rows * halves(of) <= SEVERAL
}

/// Whether both sides have more rows than plain multiply-adds serve as well.
pub(super) fn are_many(rows: usize, weight: &Matrix) -> bool {
    rows > FEW_ROWS && weight.rows > FEW_ROWS
}

/// The product of many rows, with a bias, and added to rows.
pub(super) fn many_rows(
    like: &F,
    weights: &Weights,
    (x, rows, taps): (&Activations, usize, Taps),
    [bias, onto]: [Option<F>; 2],
) -> F {
    let [bias, onto] = [bias, onto].map(|added| added.map(|added| flat(cast(added, DType::F32))));
    let out = weights.rows();
    let y = Buffer::empty(&like.client, elem(like.dtype), rows * out);
    let product = many::Product {
        taps,
        bias: bias.as_ref(),
        onto: onto.as_ref(),
        ..many::Product::new(weights, x, rows)
    };
    many::many(&like.client, product, &y);
    tensor(like, y, [rows, out], like.dtype)
}

/// The product of rows that are rounded already, without a bias.
pub(super) fn rounded_product(like: &F, weights: &Weights, (x, rows): (&Activations, usize)) -> F {
    if !are_few(rows, elem(like.dtype)) {
        return many_rows(like, weights, (x, rows, Taps::ONE), [None, None]);
    }
    let y = Buffer::empty(&like.client, elem(like.dtype), rows * weights.rows());
    few::few(&like.client, weights, (x, rows), &y);
    tensor(like, y, [rows, weights.rows()], like.dtype)
}

/// Matrices of bf16 as the matrix units of a device take them, if it has some.
pub(super) fn on_matrix_units(client: &Client, weight: &Matrix, taps: Taps) -> Option<Weights> {
    let width = weight.width / taps.count;
    let suits = tiles::runs_on(client)
        && weight.buffer.elem == half::bf16::elem_type_native()
        && weight.stride == weight.width
        && width.is_multiple_of(8);
    suits.then(|| {
        Weights::Rows(Rows {
            buffer: weight.buffer.clone(),
            rows: weight.rows,
            width: weight.width,
        })
    })
}

/// Columns of the second operand that a row is.
pub(super) fn halves(elem: ElemType) -> usize {
    if elem == half::bf16::elem_type_native() {
        1
    } else {
        2
    }
}

/// Rows as they are multiplied: bf16 as it is, wider types with what rounding takes away; zero behind their width.
fn rounded(client: &Client, x: &Matrix, columns: usize) -> Activations {
    let split = halves(x.buffer.elem) == 2;
    if !split && x.width == columns && x.stride == columns {
        return Activations::new(x.buffer.clone(), split);
    }
    activations::round(client, x, (columns, ColumnOrder::Natural), split)
}

pub(super) fn route(logits: F, top_k: usize, normalize: bool) -> (I, F) {
    let (like, logits) = (logits.clone(), matrix(logits));
    let Routes { ids, weights, .. } = kernels::route(&like.client, &logits, top_k, normalize);
    let shape = [logits.rows, top_k];
    (
        tensor(&like, ids, shape, DType::I32),
        tensor(&like, weights, shape, like.dtype),
    )
}

pub(super) fn experts(x: F, (ids, weights): (I, F), gate_up: F, down: F) -> F {
    let (like, x) = (x.clone(), matrix(x));
    let top_k = ids.meta.shape()[1];
    let count = gate_up.meta.shape()[0];
    let ids = flat(cast(ids, DType::I32));
    let down = cast(down, gate_up.dtype);
    let (gate_up, down) = (matrices(gate_up), matrices(down));
    let one = |all: &Matrix| Matrix {
        rows: all.rows / count,
        ..all.clone()
    };
    let both = [&gate_up, &down].map(|all| on_matrix_units(&like.client, &one(all), Taps::ONE));
    if let [Some(up), Some(down)] = &both
        && ids.len() > count
    {
        let chosen = Chosen {
            weights: flat(cast(weights, DType::F32)),
            slots: top_k,
            ids,
        };
        let y = Buffer::empty(&like.client, elem(like.dtype), x.rows * x.width);
        let rows = rounded(&like.client, &x, x.width);
        chosen.grouped(&like.client, &rows, ([up, down], count), &y);
        return tensor(&like, y, [x.rows, x.width], like.dtype);
    }
    let routes = Routes {
        ids,
        weights: flat(cast(weights, like.dtype)),
        top_k,
    };
    let both = ExpertMatrices {
        gate_up: &gate_up,
        down: &down,
    };
    let y = kernels::experts(&like.client, &x, &routes, both);
    tensor(&like, y, [x.rows, x.width], like.dtype)
}
