//! `x * weight^T`: a dot-product kernel for one row, blocks of rows for some, a gemm over panels of the weight for many.

use std::borrow::Cow;

use burn_flex::FlexTensor;
use half::{bf16, f16};

use super::blocks::blocks;
use super::dots::dots;
use super::gemm::{Output, Product, Rows, multiply};
use super::parallel;
use super::small::SmallProduct;
use super::view::{Stored, View, tensor, vector, with_rows};

/// Up to this many rows blocks of them are faster than the gemm, which reorders every weight first.
const SOME_ROWS: usize = 256;
/// Weight rows that are converted to f32 and multiplied at a time (192 KB at K = 768).
const PANEL: usize = 64;

pub(super) fn linear(x: &FlexTensor, weight: &FlexTensor, bias: Option<&FlexTensor>) -> FlexTensor {
    let x = with_rows(x);
    let x = View::new(&x);
    let shape = weight.layout().shape();
    let (out_width, k) = (shape[0], shape[1]);
    assert_eq!(
        x.width, k,
        "linear: the input has another width than the weight"
    );
    let rows = Rows {
        data: x.from(0, 0),
        rows: x.rows,
        stride: x.row_stride,
    };
    let mut out = vec![0.0; x.rows * out_width];
    if let Stored::F32(weight) = Stored::new(weight)
        && SmallProduct::suits(x.rows, weight)
    {
        let product = SmallProduct {
            x: rows,
            width: k,
            taps: 1,
            dilation: 1,
            weight,
            bias: bias.map(vector),
        };
        product.forward(&mut out, out_width);
        return tensor(out, &[x.rows, out_width]);
    }
    let pieces = parallel::pieces(out.len() * k / 4);
    matmul(&mut out, rows, Stored::new(weight), k, pieces);
    if let Some(bias) = bias {
        let bias = vector(bias);
        for row in out.chunks_exact_mut(out_width) {
            row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
        }
    }
    tensor(out, &[x.rows, out_width])
}

/// `out = x * weight^T` in up to `pieces` pieces. `out` is `[x.rows, weight.len() / k]`.
pub(super) fn matmul(out: &mut [f32], x: Rows<'_>, weight: Stored<'_>, k: usize, pieces: usize) {
    parallel::columns(out, x.rows, 16, pieces, |columns, out| {
        let weight = weight.part(columns.start * k, columns.end * k);
        matmul_panel(out, columns.len(), x, weight, k);
    });
}

/// The same on one thread.
fn matmul_panel(out: &mut [f32], width: usize, x: Rows<'_>, weight: Stored<'_>, k: usize) {
    if x.rows == 1 {
        return dots(&x.data[..k], weight, out);
    }
    if x.rows <= SOME_ROWS {
        return blocks(x, weight, k, out);
    }
    let product = |rhs: &[f32], rows: usize, out: &mut [f32]| {
        let rhs = Rows {
            data: rhs,
            rows,
            stride: k,
        };
        multiply(
            out,
            width,
            Product {
                lhs: x,
                rhs,
                k,
                scale: 1.0,
                output: Output::Overwrite,
            },
        );
    };
    if let Stored::F32(weight) = weight {
        return product(weight, width, out);
    }
    let mut panel = Vec::with_capacity(PANEL * k);
    for start in (0..width).step_by(PANEL) {
        let end = (start + PANEL).min(width);
        panel.clear();
        widen(weight.part(start * k, end * k), &mut panel);
        product(&panel, end - start, &mut out[start..]);
    }
}

/// Appends the weights as f32.
#[inline(always)]
pub(super) fn widen(weight: Stored<'_>, out: &mut Vec<f32>) {
    match weight {
        Stored::F32(x) => out.extend_from_slice(x),
        Stored::BF16(x) => widen_each(x, out),
        Stored::F16(x) => widen_each(x, out),
    }
}

/// A loop, since a closure may end up as a function without vectors.
#[inline(always)]
fn widen_each<T: Value>(weight: &[T], out: &mut Vec<f32>) {
    let start = out.len();
    out.resize(start + weight.len(), 0.0);
    for (out, x) in out[start..].iter_mut().zip(weight) {
        *out = x.value();
    }
}

/// The weights as f32, copied only when they are stored otherwise.
pub(super) fn as_f32(weight: Stored<'_>) -> Cow<'_, [f32]> {
    if let Stored::F32(weight) = weight {
        return Cow::Borrowed(weight);
    }
    let mut out = Vec::new();
    widen(weight, &mut out);
    Cow::Owned(out)
}

/// A stored weight as f32.
trait Value: Copy {
    fn value(self) -> f32;
}

impl Value for bf16 {
    #[inline(always)]
    fn value(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

impl Value for f16 {
    #[inline(always)]
    fn value(self) -> f32 {
        self.to_f32()
    }
}
