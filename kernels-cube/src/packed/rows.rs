//! Products with matrices in checkpoint order, on any device: no matrix units, no plane operations, f32 throughout.
//!
//! Several units share a row of the matrix: each decodes every so manieth word, multiplies its values with the
//! activations and keeps the sums; shared memory adds them up in a fixed order. Where units work alone, each has a row.

use cubecl::prelude::*;

use super::{COLUMNS, Coding, Scaling, Shape};
use crate::Buffer;
use crate::e4m3::finite;
use crate::grid::flat;
use crate::units::{On, Units};

/// Units of a cube.
const UNITS: usize = 64;
/// Rows of activations that are multiplied with a decoded word at a time.
const TOKENS: usize = 8;

/// Matrices in checkpoint order on the device.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// Words of codes.
    pub codes: Buffer,
    /// Words of scales.
    pub scales: Buffer,
    /// A factor a row, f32.
    pub gains: Buffer,
    /// The values of the sixteen 4-bit codes, f32; of no use with 8-bit codes.
    pub table: Buffer,
    /// How values are coded.
    pub coding: Coding,
    /// The sizes.
    pub shape: Shape,
}

/// What does not change in a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Layout {
    coding: Coding,
    /// Words of codes of a row.
    words: usize,
    /// Blocks of a row.
    blocks: usize,
    /// Columns that are not padding.
    width: usize,
    /// Units that share a row.
    units: usize,
}

impl Layout {
    fn new(client: &Client, matrix: &Matrix) -> Self {
        let (coding, shape) = (matrix.coding, matrix.shape);
        let columns = shape.width.next_multiple_of(COLUMNS);
        let words = columns / if coding.bytes { 4 } else { 8 };
        // A unit that works alone needs no shared memory.
        let units = match On::from(client).units {
            Units::Together => (words / 4).next_power_of_two().clamp(1, 32),
            Units::Alone => 1,
        };
        Self {
            coding,
            words,
            blocks: if coding.block == 0 {
                0
            } else {
                columns.div_ceil(coding.block)
            },
            width: shape.width,
            units,
        }
    }

    /// Rows of the matrix that a cube computes.
    const fn rows(&self) -> usize {
        UNITS / self.units
    }
}

/// `y = matrix * x` for every row.
///
/// - x: `[rows, width]`
/// - y: `[rows, rows of the matrix]`
#[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
pub fn product(client: &Client, matrix: &Matrix, (x, rows): (&Buffer, usize), y: &Buffer) {
    let layout = Layout::new(client, matrix);
    let tokens = rows.next_power_of_two().min(TOKENS);
    let down = matrix.shape.rows.div_ceil(layout.rows());
    // SAFETY: rows beyond the last are read again and not written.
    unsafe {
        product_kernel::launch_unchecked(
            client,
            CubeCount::Static(down as u32, rows.div_ceil(tokens) as u32, 1),
            CubeDim::new_2d(layout.units as u32, layout.rows() as u32),
            x.arg(),
            matrix.codes.arg(),
            matrix.scales.arg(),
            matrix.gains.arg(),
            matrix.table.arg(),
            y.arg(),
            rows as u32,
            matrix.shape.rows as u32,
            layout,
            tokens,
            x.elem,
        );
    }
}

/// `silu(gate) * up` of the chosen experts of each row.
///
/// - x: `[rows, width]`
/// - ids: u32 `[rows, slots]`
/// - h: f32 `[rows * slots, half of the matrix's rows]`
#[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
pub fn gate_up(
    client: &Client,
    matrix: &Matrix,
    x: &Buffer,
    (ids, slots): (&Buffer, usize),
    h: &Buffer,
) {
    let layout = Layout::new(client, matrix);
    let half = matrix.shape.rows / 2;
    // SAFETY: rows beyond the last are read again and not written.
    unsafe {
        gate_up_kernel::launch_unchecked(
            client,
            CubeCount::Static(half.div_ceil(layout.rows()) as u32, ids.len() as u32, 1),
            CubeDim::new_2d(layout.units as u32, layout.rows() as u32),
            x.arg(),
            matrix.codes.arg(),
            matrix.scales.arg(),
            matrix.gains.arg(),
            matrix.table.arg(),
            ids.arg(),
            h.arg(),
            slots as u32,
            half as u32,
            layout,
            x.elem,
        );
    }
}

/// The weighted sum of the chosen experts of each row.
///
/// - h: what [`gate_up`] wrote
/// - ids, weights: u32 and f32 `[rows, slots]`
/// - y: `[rows, rows of the matrix]`
#[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
pub fn down(
    client: &Client,
    matrix: &Matrix,
    h: &Buffer,
    ([ids, weights], slots): ([&Buffer; 2], usize),
    y: &Buffer,
) {
    let layout = Layout::new(client, matrix);
    // SAFETY: rows beyond the last are read again and not written.
    unsafe {
        down_kernel::launch_unchecked(
            client,
            CubeCount::Static(
                matrix.shape.rows.div_ceil(layout.rows()) as u32,
                (ids.len() / slots) as u32,
                1,
            ),
            CubeDim::new_2d(layout.units as u32, layout.rows() as u32),
            h.arg(),
            matrix.codes.arg(),
            matrix.scales.arg(),
            matrix.gains.arg(),
            matrix.table.arg(),
            ids.arg(),
            weights.arg(),
            y.arg(),
            slots as u32,
            matrix.shape.rows as u32,
            layout,
            y.elem,
        );
    }
}

/// The values of the matrices in f32, `[matrices * rows, width]`.
#[expect(unsafe_code, reason = "kernels are launched without bounds checks")]
pub fn unpack(client: &Client, matrix: &Matrix, values: &Buffer) {
    // SAFETY: units beyond the values return.
    unsafe {
        unpack_kernel::launch_unchecked(
            client,
            flat(values.len()).0,
            flat(values.len()).1,
            matrix.codes.arg(),
            matrix.scales.arg(),
            matrix.gains.arg(),
            matrix.table.arg(),
            values.arg(),
            Layout::new(client, matrix),
        );
    }
}

/// Value `index` of a word of codes.
#[cube]
fn value_of(word: u32, index: usize, table: &[f32], #[comptime] coding: Coding) -> f32 {
    if comptime!(coding.bytes) {
        finite(word >> (index as u32 * 8u32))
    } else {
        let code = (word >> (index as u32 * 4u32)) & 15u32;
        if comptime!(coding.e2m1) {
            let magnitude = code & 7u32;
            // Codes 2 to 7 are the top bits of a float; 0 and 1 are 0 and a half.
            let large = f32::from_bits((magnitude << 22u32) + 0x3F00_0000u32);
            let value = select(magnitude < 2u32, f32::cast_from(magnitude) * 0.5f32, large);
            select(code > 7u32, -value, value)
        } else {
            table[code as usize]
        }
    }
}

/// The factor of block `at` of all blocks.
#[cube]
fn factor_of(scales: &[u32], at: usize, #[comptime] coding: Coding) -> f32 {
    if comptime!(coding.scaling == Scaling::None) {
        f32::new(1.0)
    } else if comptime!(coding.scaling == Scaling::F32) {
        f32::from_bits(scales[at])
    } else if comptime!(coding.scaling == Scaling::Affine) {
        f32::from_bits(scales[at * 2usize])
    } else {
        let byte = (scales[at / 4usize] >> ((at % 4usize) as u32 * 8u32)) & 0xFFu32;
        if comptime!(coding.scaling == Scaling::E8m0) {
            f32::from_bits(byte << 23u32)
        } else {
            finite(byte)
        }
    }
}

/// Adds to `sums` this unit's share of row `row` of all matrices times rows `first ..` of `x`, which has `rows` rows.
#[cube]
fn accumulate<X: Float>(
    sums: &mut Array<f32>,
    x: &[X],
    first: usize,
    rows: usize,
    codes: &[u32],
    scales: &[u32],
    table: &[f32],
    row: usize,
    #[comptime] layout: Layout,
    #[comptime] tokens: usize,
) {
    let coding = layout.coding;
    let per_word = comptime!(if coding.bytes { 4usize } else { 8usize });
    let mut word_at = UNIT_POS_X as usize;
    while word_at < layout.words {
        let word = codes[row * layout.words + word_at];
        let column = word_at * per_word;
        let mut block = 0usize;
        if comptime!(coding.block > 0) {
            block = row * layout.blocks + column / coding.block;
        }
        let factor = factor_of(scales, block, coding);
        let mut offset = 0.0f32;
        if comptime!(coding.scaling == Scaling::Affine) {
            offset = f32::from_bits(scales[block * 2usize + 1usize]);
        }
        #[unroll]
        for i in 0..per_word {
            let at = column + i;
            if comptime!(layout.width.is_multiple_of(COLUMNS)) || at < layout.width {
                let value = value_of(word, i, table, coding) * factor + offset;
                #[unroll]
                for token in 0..tokens {
                    let wanted = first + token;
                    let from = select(wanted < rows, wanted, rows - 1usize);
                    sums[token] += value * f32::cast_from(x[from * layout.width + at]);
                }
            }
        }
        word_at += layout.units;
    }
}

/// The sum over the units of this row for `token`, for the unit that asks.
#[cube]
fn reduced(
    parts: &Shared<[f32]>,
    token: usize,
    #[comptime] layout: Layout,
    #[comptime] tokens: usize,
) -> f32 {
    let mut sum = 0.0f32;
    #[unroll]
    for unit in 0..layout.units {
        sum += parts[(UNIT_POS_Y as usize * layout.units + unit) * tokens + token];
    }
    sum
}

#[cube(launch_unchecked)]
fn product_kernel<X: Float>(
    x: &[X],
    codes: &[u32],
    scales: &[u32],
    gains: &[f32],
    table: &[f32],
    y: &mut [X],
    rows: u32,
    out: u32,
    #[comptime] layout: Layout,
    #[comptime] tokens: usize,
    #[define(X)] _elem: ElemType,
) {
    let (rows, out) = (rows as usize, out as usize);
    let wanted = CUBE_POS_X as usize * comptime!(layout.rows()) + UNIT_POS_Y as usize;
    let row = select(wanted < out, wanted, out - 1usize);
    let first = CUBE_POS_Y as usize * tokens;
    let mut sums = Array::<f32>::new(tokens);
    #[unroll]
    for token in 0..tokens {
        sums[token] = 0.0f32;
    }
    accumulate::<X>(
        &mut sums, x, first, rows, codes, scales, table, row, layout, tokens,
    );
    if comptime!(layout.units == 1) {
        #[unroll]
        for token in 0..tokens {
            if wanted < out && first + token < rows {
                y[(first + token) * out + row] = X::cast_from(sums[token] * gains[row]);
            }
        }
    } else {
        let mut parts = Shared::<[f32]>::new_slice(comptime!(UNITS * tokens));
        #[unroll]
        for token in 0..tokens {
            let at = UNIT_POS_Y as usize * layout.units + UNIT_POS_X as usize;
            parts[at * tokens + token] = sums[token];
        }
        sync_cube();
        let mut token = UNIT_POS_X as usize;
        while token < tokens {
            if wanted < out && first + token < rows {
                let sum = reduced(&parts, token, layout, tokens);
                y[(first + token) * out + row] = X::cast_from(sum * gains[row]);
            }
            token += layout.units;
        }
    }
}

#[cube(launch_unchecked)]
fn gate_up_kernel<X: Float>(
    x: &[X],
    codes: &[u32],
    scales: &[u32],
    gains: &[f32],
    table: &[f32],
    ids: &[u32],
    h: &mut [f32],
    slots: u32,
    half: u32,
    #[comptime] layout: Layout,
    #[define(X)] _elem: ElemType,
) {
    let half = half as usize;
    let choice = CUBE_POS_Y as usize;
    let wanted = CUBE_POS_X as usize * comptime!(layout.rows()) + UNIT_POS_Y as usize;
    let gate = ids[choice] as usize * half * 2usize + select(wanted < half, wanted, half - 1usize);
    let from = choice / slots as usize;
    let last = from + 1usize;
    let mut gate_sum = Array::<f32>::new(1usize);
    let mut up_sum = Array::<f32>::new(1usize);
    gate_sum[0] = 0.0f32;
    up_sum[0] = 0.0f32;
    accumulate::<X>(
        &mut gate_sum,
        x,
        from,
        last,
        codes,
        scales,
        table,
        gate,
        layout,
        1usize,
    );
    accumulate::<X>(
        &mut up_sum,
        x,
        from,
        last,
        codes,
        scales,
        table,
        gate + half,
        layout,
        1usize,
    );
    let mut gate_total = gate_sum[0];
    let mut up_total = up_sum[0];
    if comptime!(layout.units > 1) {
        let mut parts = Shared::<[f32]>::new_slice(comptime!(UNITS * 2));
        let at = UNIT_POS_Y as usize * layout.units + UNIT_POS_X as usize;
        parts[at * 2usize] = gate_total;
        parts[at * 2usize + 1usize] = up_total;
        sync_cube();
        gate_total = reduced(&parts, 0usize, layout, 2usize);
        up_total = reduced(&parts, 1usize, layout, 2usize);
    }
    if UNIT_POS_X == 0 && wanted < half {
        let value = gate_total * gains[gate];
        let up = up_total * gains[gate + half];
        h[choice * half + wanted] = value / (1.0f32 + (-value).exp()) * up;
    }
}

#[cube(launch_unchecked)]
fn down_kernel<X: Float>(
    h: &[f32],
    codes: &[u32],
    scales: &[u32],
    gains: &[f32],
    table: &[f32],
    ids: &[u32],
    weights: &[f32],
    y: &mut [X],
    slots: u32,
    out: u32,
    #[comptime] layout: Layout,
    #[define(X)] _elem: ElemType,
) {
    let (slots, out) = (slots as usize, out as usize);
    let wanted = CUBE_POS_X as usize * comptime!(layout.rows()) + UNIT_POS_Y as usize;
    let row = select(wanted < out, wanted, out - 1usize);
    let mut total = 0.0f32;
    for slot in 0..slots {
        let choice = CUBE_POS_Y as usize * slots + slot;
        let at = ids[choice] as usize * out + row;
        let mut sum = Array::<f32>::new(1usize);
        sum[0] = 0.0f32;
        accumulate::<f32>(
            &mut sum,
            h,
            choice,
            choice + 1usize,
            codes,
            scales,
            table,
            at,
            layout,
            1usize,
        );
        total += sum[0] * gains[at] * weights[choice];
    }
    if comptime!(layout.units > 1) {
        let mut parts = Shared::<[f32]>::new_slice(UNITS);
        parts[UNIT_POS_Y as usize * layout.units + UNIT_POS_X as usize] = total;
        sync_cube();
        total = reduced(&parts, 0usize, layout, 1usize);
    }
    if UNIT_POS_X == 0 && wanted < out {
        y[CUBE_POS_Y as usize * out + row] = X::cast_from(total);
    }
}

#[cube(launch_unchecked)]
fn unpack_kernel(
    codes: &[u32],
    scales: &[u32],
    gains: &[f32],
    table: &[f32],
    values: &mut [f32],
    #[comptime] layout: Layout,
) {
    let at = ABSOLUTE_POS;
    if at >= values.len() {
        terminate!();
    }
    let coding = layout.coding;
    let per_word = comptime!(if coding.bytes { 4usize } else { 8usize });
    let column = at % layout.width;
    let row = at / layout.width;
    let word = codes[row * layout.words + column / per_word];
    let mut block = 0usize;
    if comptime!(coding.block > 0) {
        block = row * layout.blocks + column / coding.block;
    }
    let mut value =
        value_of(word, column % per_word, table, coding) * factor_of(scales, block, coding);
    if comptime!(coding.scaling == Scaling::Affine) {
        value += f32::from_bits(scales[block * 2usize + 1usize]);
    }
    values[at] = value * gains[row];
}
