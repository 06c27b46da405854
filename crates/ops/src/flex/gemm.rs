//! The safe door to the `gemm` crate: `dst = lhs * rhs^T`, or added to what is there.

use gemm::Parallelism;

/// A row-major matrix that is read: row `i` begins at `i * stride`. Rows may overlap.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) data: &'a [f32],
    pub(super) rows: usize,
    pub(super) stride: usize,
}

/// What happens to the old contents of the output.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    Overwrite,
    Add,
}

/// `dst[i, j] (+)= scale * sum_k lhs[i, k] * rhs[j, k]`; row `i` of `dst` begins at `i * dst_stride`.
pub(super) fn multiply(dst: &mut [f32], dst_stride: usize, a: Product<'_>) {
    let Product { lhs, rhs, k, .. } = a;
    check(dst.len(), lhs.rows, dst_stride, rhs.rows);
    check(lhs.data.len(), lhs.rows, lhs.stride, k);
    check(rhs.data.len(), rhs.rows, rhs.stride, k);
    call(dst, dst_stride, a, (lhs.stride, 1, rhs.stride));
}

/// `dst[i, j] (+)= sum_k lhs[i, k] * rhs[k, j]`: here the rows of `rhs` run along `k` and hold `width` columns.
pub(super) fn combine(dst: &mut [f32], dst_stride: usize, a: Product<'_>, width: usize) {
    let Product { lhs, rhs, k, .. } = a;
    check(dst.len(), lhs.rows, dst_stride, width);
    check(lhs.data.len(), lhs.rows, lhs.stride, k);
    check(rhs.data.len(), k, rhs.stride, width);
    let columns = Product {
        rhs: Rows { rows: width, ..rhs },
        ..a
    };
    call(dst, dst_stride, columns, (lhs.stride, rhs.stride, 1));
}

/// The operands of a product of `k` terms.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    pub(super) lhs: Rows<'a>,
    pub(super) rhs: Rows<'a>,
    pub(super) k: usize,
    pub(super) scale: f32,
    pub(super) output: Output,
}

fn check(len: usize, rows: usize, stride: usize, width: usize) {
    assert!(
        rows == 0 || width == 0 || (rows - 1) * stride + width <= len,
        "a matrix leaves its buffer"
    );
}

/// `strides` are those of a row of lhs, of a step of k in rhs, and of a column of rhs.
fn call(dst: &mut [f32], dst_stride: usize, a: Product<'_>, strides: (usize, usize, usize)) {
    let stride = |x: usize| isize::try_from(x).expect("strides are below the buffer length");
    #[expect(unsafe_code, reason = "the gemm crate takes pointers")]
    // SAFETY: the callers checked that every element addressed lies inside its slice; dst is borrowed exclusively.
    unsafe {
        gemm::gemm(
            a.lhs.rows,
            a.rhs.rows,
            a.k,
            dst.as_mut_ptr(),
            1,
            stride(dst_stride),
            a.output == Output::Add,
            a.lhs.data.as_ptr(),
            1,
            stride(strides.0),
            a.rhs.data.as_ptr(),
            stride(strides.2),
            stride(strides.1),
            1.0,
            a.scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
