//! How a row comes into a stack of layers, and how it leaves.

use cubecl::prelude::*;

use super::Attend;
use crate::Buffer;
use crate::control::{Control, LEN, POSITION, TOKEN};
use crate::few::{Row, Rows};
use crate::plane::plane_total;

/// Units of a cube.
const UNITS: usize = 256;

/// Rows of tokens, bf16 `[vocabulary, width]`.
pub type Embedding = Rows;

/// Where a row comes from.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    /// The row of the token in [`Control`], at the place that stands there.
    Control(&'a Embedding),
    /// The row of a token, which is added to a sum as well, f32 `[width]`; the first one begins it.
    Token {
        /// The table.
        table: &'a Embedding,
        /// Where its number stands among others, u32; what is no number of a row stands for the first.
        id: (&'a Buffer, usize),
        /// The sum.
        sum: &'a Buffer,
        /// Whether it begins here.
        begins: bool,
    },
    /// Numbers as they are, f32 `[width]`.
    Row(&'a Buffer),
    /// The sum of two rows, f32 `[width]`, at the place in [`Control`].
    Sum([&'a Buffer; 2]),
}

/// What the kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    Control,
    Token,
    Row,
    Sum,
}

impl Source {
    /// Whether the place stands in [`Control`].
    fn is_placed(self) -> bool {
        matches!(self, Self::Control | Self::Sum)
    }
}

impl Entry<'_> {
    /// Makes it the row of the stack, at this place unless it stands in `control`.
    ///
    /// - norm: f32 `[width]`, the weight of the norm that follows
    pub fn launch(
        self,
        client: &Client,
        (control, attend): (&Control, &Attend),
        (row, norm): (&Row, &Buffer),
        (len, position): (u32, f32),
    ) {
        let words = &control.0;
        let (source, table, values, sum, (ids, at), begins) = match self {
            Self::Control(table) => {
                let id = (words, TOKEN);
                (Source::Control, &table.buffer, &row.h, &row.h, id, true)
            }
            Self::Token {
                table,
                id,
                sum,
                begins,
            } => (Source::Token, &table.buffer, &row.h, sum, id, begins),
            Self::Row(values) => {
                let table = &row.x.buffer;
                (Source::Row, table, values, &row.h, (words, TOKEN), true)
            }
            Self::Sum([values, sum]) => {
                let table = &row.x.buffer;
                (Source::Sum, table, values, sum, (words, TOKEN), true)
            }
        };
        let rows = table.len() / row.width;
        #[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
        // SAFETY: units stop at the width, and the token is in the table.
        unsafe {
            enter_kernel::launch_unchecked(
                client,
                CubeCount::Static(row.width.div_ceil(UNITS) as u32, 1, 1),
                CubeDim::new_1d(UNITS as u32),
                table.arg(),
                values.arg(),
                ids.arg(),
                words.arg(),
                norm.arg(),
                row.h.arg(),
                row.x.buffer.arg(),
                row.squares.arg(),
                sum.arg(),
                attend.inverse_frequency.arg(),
                attend.angles.arg(),
                row.width as u32,
                row.columns as u32,
                at as u32,
                rows as u32,
                u32::from(begins),
                len,
                position,
                source,
            );
        }
    }
}

#[cube(launch_unchecked)]
fn enter_kernel(
    table: &[half::bf16],
    values: &[f32],
    ids: &[u32],
    control: &mut [u32],
    norm: &[f32],
    h: &mut [f32],
    x: &mut [half::bf16],
    squares: &mut [f32],
    sum: &mut [f32],
    inverse_frequency: &[f32],
    angles: &mut [f32],
    width: u32,
    columns: u32,
    id_at: u32,
    rows: u32,
    begins: u32,
    len: u32,
    position: f32,
    #[comptime] source: Source,
) {
    let (width, columns) = (width as usize, columns as usize);
    let mut position = position;
    if comptime!(source.is_placed()) {
        position = f32::from_bits(control[POSITION]);
    } else if ABSOLUTE_POS == 0 {
        control[LEN] = len;
    }
    let pairs = inverse_frequency.len();
    let unit = UNIT_POS as usize;
    if CUBE_POS == 0 && unit < pairs {
        let angle = position * inverse_frequency[unit];
        angles[unit] = angle.cos();
        angles[pairs + unit] = angle.sin();
    }
    let at = ABSOLUTE_POS;
    let mut value = 0.0f32;
    if at < width {
        if comptime!(source == Source::Row) {
            value = values[at];
        } else if comptime!(source == Source::Sum) {
            value = values[at] + sum[at];
        } else {
            let id = ids[id_at as usize];
            let token = select(id < rows, id, 0u32) as usize;
            value = f32::cast_from(table[token * width + at]);
        }
        if comptime!(source == Source::Token) {
            let mut before = 0.0f32;
            if begins == 0u32 {
                before = sum[at];
            }
            sum[at] = before + value;
        }
        h[at] = value;
        let next = value * norm[at];
        let rounded = half::bf16::cast_from(next);
        x[at] = rounded;
        x[columns + at] = half::bf16::cast_from(next - f32::cast_from(rounded));
    }
    let square = plane_total(value * value, 16usize);
    if at < width && at & 15usize == 0usize {
        squares[at / 16usize] = square;
    }
}

/// The normed row: f32 `[width]`.
pub fn leave(client: &Client, row: &Row, output: &Buffer) {
    #[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
    // SAFETY: units stop at the width.
    unsafe {
        leave_kernel::launch_unchecked(
            client,
            CubeCount::Static(1, 1, 1),
            CubeDim::new_1d(UNITS as u32),
            row.x.buffer.arg(),
            row.squares.arg(),
            output.arg(),
            row.width as u32,
            row.columns as u32,
            1.0 / row.width as f32,
            row.eps,
        );
    }
}

#[cube(launch_unchecked)]
fn leave_kernel(
    x: &[half::bf16],
    squares: &[f32],
    output: &mut [f32],
    width: u32,
    columns: u32,
    inverse_width: f32,
    eps: f32,
) {
    let unit = UNIT_POS as usize;
    let mut sum = 0.0f32;
    let mut at = UNIT_POS_PLANE as usize;
    while at < squares.len() {
        sum += squares[at];
        at += 32usize;
    }
    let scale = (plane_total(sum, 32usize) * inverse_width + eps).inverse_sqrt();
    let mut at = unit;
    while at < width as usize {
        output[at] = (f32::cast_from(x[at]) + f32::cast_from(x[columns as usize + at])) * scale;
        at += UNITS;
    }
}
