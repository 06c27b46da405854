//! Device memory as kernels take it.

use cubecl::prelude::*;
use cubecl::server::Handle;

/// Elements of one type on a device.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// The memory.
    pub handle: Handle,
    /// The type of an element.
    pub elem: ElemType,
}

impl Buffer {
    /// Uninitialized room for `len` elements.
    #[must_use]
    pub fn empty(client: &Client, elem: ElemType, len: usize) -> Self {
        let handle = client.empty(len.max(1) * elem.size());
        Self { handle, elem }
    }

    /// Whole numbers that lie on the host.
    #[must_use]
    pub fn numbers(client: &Client, values: &[u32]) -> Self {
        Self::of(client, values)
    }

    /// Elements that lie on the host.
    #[must_use]
    pub fn of<E: CubeElement + cubecl::frontend::Scalar>(client: &Client, values: &[E]) -> Self {
        Self {
            handle: client.create_from_slice(E::as_bytes(values)),
            elem: E::elem_type_native(),
        }
    }

    /// Elements `at .. at + len`.
    #[must_use]
    pub fn part(&self, at: usize, len: usize) -> Self {
        let size = self.elem.size();
        let behind = (self.len() - at - len) * size;
        let handle = self.handle.clone().offset_start((at * size) as u64);
        Self {
            handle: handle.offset_end(behind as u64),
            elem: self.elem,
        }
    }

    /// Elements that fit in the memory, those between the rows of a view included.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::try_from(self.handle.size_in_used()).expect("device memory is addressed by usize")
            / self.elem.size()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The argument of a kernel.
    pub(crate) fn arg(&self) -> BufferArg {
        self.vectors(1)
    }

    /// The argument of a kernel that takes vectors of `count` bytes.
    pub(crate) fn bytes(&self, count: usize) -> BufferArg {
        self.vectors(count / self.elem.size())
    }

    /// The argument of a kernel that takes vectors of `count` elements.
    pub(crate) fn vectors(&self, count: usize) -> BufferArg {
        #[expect(unsafe_code, reason = "the length is that of the memory")]
        // SAFETY: the handle has this many bytes.
        unsafe {
            BufferArg::from_raw_parts(self.handle.clone(), self.len() / count)
        }
    }
}

/// Rows of one width; a row's elements lie side by side.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// The elements.
    pub buffer: Buffer,
    /// Number of rows.
    pub rows: usize,
    /// Elements of a row.
    pub width: usize,
    /// Elements from one row to the next.
    pub stride: usize,
}

/// Rows of one head.
impl From<Matrix> for Heads {
    fn from(rows: Matrix) -> Self {
        Self {
            buffer: rows.buffer,
            rows: rows.rows,
            heads: 1,
            width: rows.width,
            strides: [rows.stride, rows.width],
        }
    }
}

/// Rows of heads of one width; a head's elements lie side by side.
#[derive(Clone, Debug)]
pub struct Heads {
    /// The elements.
    pub buffer: Buffer,
    /// Number of rows.
    pub rows: usize,
    /// Heads of a row.
    pub heads: usize,
    /// Elements of a head.
    pub width: usize,
    /// Elements from one row, and from one head, to the next.
    pub strides: [usize; 2],
}
