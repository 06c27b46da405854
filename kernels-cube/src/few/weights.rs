//! What weights look like to a lane: its part of a tile of 16 rows, loaded and multiplied.

use std::fmt::Write;

use cubecl::prelude::*;

use super::kernel::Place;
use super::late;
use super::work::{COLUMNS, Form, Mode, ROWS, Work};
use crate::Buffer;
use crate::matrix_units::Instructions;
use crate::packed::tiles::decode::{mma, operand, scale_bf16};
use crate::packed::tiles::{self};

type N4 = Const<4>;

/// Matrices of weights.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "both are handles, and a layer has a few of them"
)]
pub enum Weights {
    /// Packed values in tiles.
    Tiles(tiles::Matrix),
    /// bf16.
    Rows(Rows),
}

/// One or several matrices of bf16, row after row.
#[derive(Clone, Debug)]
pub struct Rows {
    /// `[matrices, rows, width]`, 16-byte aligned.
    pub buffer: Buffer,
    /// Rows of one matrix.
    pub rows: usize,
    /// Columns, a multiple of 8.
    pub width: usize,
}

impl Weights {
    /// Rows of one matrix.
    #[must_use]
    pub const fn rows(&self) -> usize {
        match self {
            Self::Tiles(matrix) => matrix.rows,
            Self::Rows(matrix) => matrix.rows,
        }
    }

    /// Columns of the activations, padding included.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.pairs() * self.form().pair()
    }

    /// What a product reads most of.
    #[must_use]
    pub const fn memory(&self) -> &Buffer {
        match self {
            Self::Tiles(matrix) => &matrix.codes,
            Self::Rows(matrix) => &matrix.buffer,
        }
    }

    pub(super) const fn form(&self) -> Form {
        match self {
            Self::Tiles(matrix) => Form::Tiles(matrix.tiling.scaled),
            Self::Rows(matrix) => Form::Rows {
                partial: !matrix.width.is_multiple_of(128),
            },
        }
    }

    pub(super) fn pairs(&self) -> usize {
        match self {
            Self::Tiles(matrix) => matrix.tiling.pairs,
            Self::Rows(matrix) => matrix.width.div_ceil(self.form().pair()),
        }
    }

    /// Tiles below one another.
    pub(super) fn tiles(&self, mode: Mode) -> usize {
        self.tiles_of(mode == Mode::GateUp)
    }

    /// Tiles below one another; of gated matrices each has both halves of the same rows.
    pub(crate) fn tiles_of(&self, gated: bool) -> usize {
        match self {
            Self::Tiles(matrix) => matrix.tiling.tiles,
            Self::Rows(matrix) if gated => (matrix.rows / 2).div_ceil(ROWS / 2),
            Self::Rows(matrix) => matrix.rows.div_ceil(ROWS),
        }
    }

    /// Chunks of 64 columns.
    pub(crate) fn chunks(&self) -> usize {
        match self {
            Self::Tiles(matrix) => matrix.tiling.columns() / 64,
            Self::Rows(matrix) => matrix.width.div_ceil(64),
        }
    }

    /// Columns of the activations of [`many`](crate::many), which has no need of padding where weights lie in rows.
    #[must_use]
    pub fn width_of_many(&self) -> usize {
        match self {
            Self::Tiles(matrix) => matrix.tiling.columns(),
            Self::Rows(matrix) => matrix.width,
        }
    }

    /// Vectors of a row of a matrix in rows.
    pub(crate) const fn width(&self) -> usize {
        match self {
            Self::Tiles(_) => 0,
            Self::Rows(matrix) => matrix.width / 8,
        }
    }

    /// Codes or values, scales, gains; what a form lacks is not read.
    pub(crate) fn buffers(&self) -> [&Buffer; 3] {
        match self {
            Self::Tiles(matrix) => [&matrix.codes, &matrix.scales, &matrix.gains],
            Self::Rows(matrix) => [&matrix.buffer, &matrix.buffer, &matrix.buffer],
        }
    }
}

/// Loads all weights of the plane; where the compiler may put the loads where it likes, what is multiplied first last, so
/// that no load waits for a product.
#[cube]
pub(super) fn load(
    words: &mut Array<Vector<u32, N4>>,
    scale: &mut Array<u32>,
    codes: &[Vector<u32, N4>],
    scales: &[u32],
    place: &Place,
    #[comptime] work: Work,
) {
    #[unroll]
    for n in 0..work.each {
        let step = comptime!(work.nth(n, work.each));
        #[unroll]
        for n in 0..work.tiles {
            let i = comptime!(work.nth(n, work.tiles));
            let to = comptime!(step * work.tiles + i);
            if comptime!(work.form.is_tiles()) {
                load_tile(words, scale, codes, scales, place, step, i, work);
            } else {
                load_rows(words, codes, place, pair_of(place, step, work), to, i, work);
            }
        }
    }
}

/// The pair of a step, the last one where there is none.
#[cube]
fn pair_of(place: &Place, #[comptime] step: usize, #[comptime] work: Work) -> usize {
    let pair = place.pair + step;
    if comptime!(work.ragged) {
        select(pair < place.pairs, pair, place.pairs - 1usize)
    } else {
        pair
    }
}

/// The pair from which a step's loads count ([`Work::ahead`] says how far they are from it): where none is missing, the first
/// of all, so that one address serves them all.
#[cube]
fn base_of(place: &Place, #[comptime] step: usize, #[comptime] work: Work) -> usize {
    if comptime!(work.ragged) {
        pair_of(place, step, work)
    } else {
        place.pair
    }
}

/// Which pair of tile `i` of all matrices is the one from which a step's loads count.
#[cube]
fn place_of(
    place: &Place,
    #[comptime] step: usize,
    #[comptime] i: usize,
    #[comptime] work: Work,
) -> usize {
    let tile = place.matrix * place.tiles + tile_of(i.runtime(), place, work);
    tile * place.pairs + base_of(place, step, work)
}

#[cube]
fn load_tile(
    words: &mut Array<Vector<u32, N4>>,
    scale: &mut Array<u32>,
    codes: &[Vector<u32, N4>],
    scales: &[u32],
    place: &Place,
    #[comptime] step: usize,
    #[comptime] i: usize,
    #[comptime] work: Work,
) {
    let lane = UNIT_POS_X as usize;
    let chunks = comptime!(work.form.vectors());
    let ahead = comptime!(work.ahead(step));
    let to = comptime!(step * work.tiles + i);
    let at = place_of(place, step, i, work);
    let own = &codes[at * comptime!(chunks * 32) + lane..];
    #[unroll]
    for n in 0..chunks {
        let c = comptime!(work.nth(n, chunks));
        let offset = comptime!((ahead * chunks + c) * 32);
        if comptime!(!work.is_late(to * chunks + c)) {
            words[comptime!(to * chunks + c)] = load_weights(own, offset, work);
        }
    }
    if comptime!(work.form.scaled().in_sums()) {
        // Of rows `lane / 4` and 8 more.
        let own = &scales[at * ROWS + lane / 4usize..];
        scale[comptime!(2 * to)] = load_word(own, comptime!(ahead * ROWS), work);
        scale[comptime!(2 * to + 1)] = load_word(own, comptime!(ahead * ROWS + ROWS / 2), work);
    } else if comptime!(work.form.scaled().in_values()) {
        scale[to] = load_word(&scales[at * 32usize + lane..], comptime!(ahead * 32), work);
    }
}

/// Loads the last weights of the plane. The loads keep their order, and [`late::mask`](super::late::mask) stays behind them.
#[cube]
pub(super) fn load_late(
    words: &mut Array<Vector<u32, N4>>,
    codes: &[Vector<u32, N4>],
    place: &Place,
    #[comptime] work: Work,
) {
    let count = comptime!(work.each * work.form.vectors());
    let at = place_of(place, 0usize, 0usize, work);
    let own = &codes[at * comptime!(work.form.vectors() * 32) + UNIT_POS_X as usize..];
    #[unroll]
    for n in comptime!(count - work.late)..count {
        words[n] = late::load(own, comptime!(n * 32));
    }
}

/// A load of weights that passes the caches as [`Work::hints`] say; it keeps its place where [`load_vector`] does.
#[cube]
#[allow(
    clippy::if_same_then_else,
    reason = "a pure load may be moved, the other may not"
)]
fn load_weights(
    from: &[Vector<u32, N4>],
    #[comptime] at: usize,
    #[comptime] work: Work,
) -> Vector<u32, N4> {
    if comptime!(work.hints().is_empty()) {
        load_vector(from, at, work)
    } else if comptime!(work.stays) {
        let address = from.as_ptr();
        let value: Vector<u32, N4>;
        gpu_asm!(
            "ld.global.nc{hints}.v4.u32 {v}, [{a}+{o}];",
            hints = const work.hints(), v = out(_) value, a = in(_) address, o = const at * 16, options(nomem),
        );
        value
    } else {
        let address = from.as_ptr();
        let value: Vector<u32, N4>;
        gpu_asm!(
            "ld.global.nc{hints}.v4.u32 {v}, [{a}+{o}];",
            hints = const work.hints(), v = out(_) value, a = in(_) address, o = const at * 16, options(pure, nomem),
        );
        value
    }
}

/// A load that is not made twice, and together with [`stay`] stays before it: compilers put loads beside their uses to save
/// registers, so that each would wait for the one before. What is constant of the index is a part of the instruction.
/// Nothing that a launch writes is read so, but by the unit that writes it later.
#[cube]
fn load_vector(
    from: &[Vector<u32, N4>],
    #[comptime] at: usize,
    #[comptime] work: Work,
) -> Vector<u32, N4> {
    if comptime!(work.stays) {
        let address = from.as_ptr();
        let value: Vector<u32, N4>;
        gpu_asm!(
            "ld.global.nc.v4.u32 {v}, [{a}+{o}];",
            v = out(_) value, a = in(_) address, o = const at * 16, options(nomem),
        );
        value
    } else {
        from[at]
    }
}

/// The same for a word.
#[cube]
fn load_word(from: &[u32], #[comptime] at: usize, #[comptime] work: Work) -> u32 {
    if comptime!(work.stays) {
        let address = from.as_ptr();
        let value: u32;
        gpu_asm!(
            "ld.global.nc.u32 {v}, [{a}+{o}];",
            v = out(_) value, a = in(_) address, o = const at * 4, options(nomem),
        );
        value
    } else {
        from[at]
    }
}

#[cube]
fn load_rows(
    words: &mut Array<Vector<u32, N4>>,
    values: &[Vector<u32, N4>],
    place: &Place,
    pair: usize,
    #[comptime] to: usize,
    #[comptime] i: usize,
    #[comptime] work: Work,
) {
    let lane = UNIT_POS_X as usize;
    let count = comptime!(work.form.vectors());
    #[unroll]
    for half in 0..2usize {
        let row = row_of(
            tile_of(i.runtime(), place, work),
            lane / 4usize,
            half,
            place,
            work,
        );
        let row = place.matrix * place.rows + select(row < place.rows, row, place.rows - 1usize);
        let own = &values[row * place.width..];
        let first = pair * 16usize + lane % 4usize;
        #[unroll]
        for n in 0..comptime!(count / 2) {
            let c = comptime!(count / 2 - 1 - n);
            let mut at = first + comptime!(c * 4);
            if comptime!(work.form.is_partial()) {
                // Meets zeros.
                at = select(at < place.width, at, place.width - 1usize);
            }
            words[comptime!(to * count + c * 2 + half)] = load_weights(&own[at..], 0usize, work);
        }
    }
}

/// Tile number `i` of this cube, the last one where there are no more.
#[cube]
pub(super) fn tile_of(i: usize, place: &Place, #[comptime] work: Work) -> usize {
    let wanted = CUBE_POS_X as usize * work.tiles + i;
    let last = place.tiles - 1usize;
    select(wanted < last, wanted, last)
}

/// The row in one half of a tile; `place.rows` or more is padding.
#[cube]
pub(super) fn row_of(
    tile: usize,
    slot: usize,
    half: usize,
    place: &Place,
    #[comptime] work: Work,
) -> usize {
    if comptime!(work.mode == Mode::GateUp) {
        let row = tile * comptime!(ROWS / 2) + slot;
        let gated = place.rows / 2usize;
        select(row < gated, row + half * gated, place.rows)
    } else {
        tile * ROWS + slot + half * comptime!(ROWS / 2)
    }
}

/// A load of one factor that is asked for here, though it is needed later: see [`stay`].
#[cube]
pub(super) fn load_now(from: &[f32], at: usize) -> f32 {
    let address = from[at..].as_ptr();
    let value: f32;
    gpu_asm!("ld.global.f32 {v}, [{a}];", v = out(_) value, a = in(_) address, options(nomem));
    value
}

/// What no load of tiles and factors sinks below: a way out that is not taken, since no number of rows or of a matrix is so
/// large.
#[cube]
pub(super) fn stay(number: u32) {
    gpu_asm!("{{ .reg .pred p; setp.eq.u32 p, {n}, 4294967295; @p trap; }}", n = in(_) number, options(nomem));
}

/// Adds the products of the plane's pair number `step`, whose activations were loaded early if there is room for them.
///
/// - mask: what decodes tiles, see [`mask_of`](crate::packed::tiles::decode::mask_of)
#[cube]
pub(super) fn multiply(
    sums: &mut Array<Vector<f32, N4>>,
    words: &Array<Vector<u32, N4>>,
    scale: &Array<u32>,
    early: &Array<Vector<u32, N4>>,
    x: &[Vector<u32, N4>],
    place: &Place,
    mask: u32,
    #[comptime] step: usize,
    #[comptime] work: Work,
) {
    let count = comptime!(work.values());
    let mut values = Array::<Vector<u32, N4>>::new(count);
    if comptime!(work.early) {
        #[unroll]
        for n in 0..count {
            values[n] = early[comptime!(step * count + n)];
        }
    } else {
        load_values(&mut values, x, place, step, 0usize, work);
    }
    #[unroll]
    for i in 0..work.tiles {
        let from = comptime!(step * work.tiles + i);
        if comptime!(work.form.is_tiles()) {
            multiply_tile(sums, words, scale, &values, mask, from, i, work);
        } else {
            multiply_rows(sums, words, &values, from, i, work);
        }
    }
}

#[cube]
fn multiply_tile(
    sums: &mut Array<Vector<f32, N4>>,
    words: &Array<Vector<u32, N4>>,
    scale: &Array<u32>,
    values: &Array<Vector<u32, N4>>,
    mask: u32,
    #[comptime] from: usize,
    #[comptime] i: usize,
    #[comptime] work: Work,
) {
    let first = comptime!(i * work.groups);
    if comptime!(work.form.scaled().in_sums()) {
        let mut parts = Array::<Vector<f32, N4>>::new(work.groups);
        #[unroll]
        for group in 0..work.groups {
            parts[group] = Vector::<f32, N4>::new(0.0f32);
        }
        add_tile(&mut parts, words, scale, values, mask, from, 0usize, work);
        let upper = f32::from_bits(scale[comptime!(2 * from)]);
        let lower = f32::from_bits(scale[comptime!(2 * from + 1)]);
        #[unroll]
        for group in 0..work.groups {
            let part = parts[group];
            let mut sum = sums[comptime!(first + group)];
            #[unroll]
            for n in 0..4usize {
                let factor = if comptime!(n < 2) { upper } else { lower };
                sum.insert(n, sum.extract(n) + part.extract(n) * factor);
            }
            sums[comptime!(first + group)] = sum;
        }
    } else {
        add_tile(sums, words, scale, values, mask, from, first, work);
    }
}

/// Adds the products of a tile, scaled where its values are, to the sums from number `first` on.
#[cube]
fn add_tile(
    sums: &mut Array<Vector<f32, N4>>,
    words: &Array<Vector<u32, N4>>,
    scale: &Array<u32>,
    values: &Array<Vector<u32, N4>>,
    mask: u32,
    #[comptime] from: usize,
    #[comptime] first: usize,
    #[comptime] work: Work,
) {
    let scaled = comptime!(work.form.scaled());
    let chunks = comptime!(scaled.chunks());
    let vectors = comptime!(work.form.vectors());
    let word_of_scales = comptime!(if scaled.in_values() { from } else { 0 });
    let mut a = Array::<u32>::new(4usize);
    #[unroll]
    for c in 0..chunks {
        let span = comptime!(c / (chunks / 2));
        let lo = scale_bf16(scale[word_of_scales], comptime!(span * 2), scaled);
        let hi = scale_bf16(scale[word_of_scales], comptime!(span * 2 + 1), scaled);
        #[unroll]
        for b in 0..4usize {
            let parts = comptime!(4 / scaled.vectors());
            let codes = words[comptime!(from * vectors + c * scaled.vectors() + b / parts)];
            let four = operand(
                codes,
                lo,
                hi,
                mask,
                comptime!(b % parts),
                scaled,
                Instructions::Native,
            );
            #[unroll]
            for n in 0..4usize {
                a[n] = four.extract(n);
            }
            #[unroll]
            for group in 0..work.groups {
                let v = values[comptime!((group * chunks + c) * 2 + b / 2)];
                let at = comptime!(first + group);
                sums[at] = mma(
                    a[0],
                    a[1],
                    a[2],
                    a[3],
                    v.extract(comptime!(b % 2 * 2)),
                    v.extract(comptime!(b % 2 * 2 + 1)),
                    sums[at],
                );
            }
        }
    }
}

#[cube]
fn multiply_rows(
    sums: &mut Array<Vector<f32, N4>>,
    words: &Array<Vector<u32, N4>>,
    values: &Array<Vector<u32, N4>>,
    #[comptime] from: usize,
    #[comptime] i: usize,
    #[comptime] work: Work,
) {
    let count = comptime!(work.form.vectors());
    #[unroll]
    for c in 0..comptime!(count / 2) {
        let upper = words[comptime!(from * count + c * 2)];
        let lower = words[comptime!(from * count + c * 2 + 1)];
        #[unroll]
        for u in 0..2usize {
            #[unroll]
            for group in 0..work.groups {
                let v = values[comptime!(group * count / 2 + c)];
                let at = comptime!(i * work.groups + group);
                sums[at] = mma(
                    upper.extract(comptime!(u * 2)),
                    lower.extract(comptime!(u * 2)),
                    upper.extract(comptime!(u * 2 + 1)),
                    lower.extract(comptime!(u * 2 + 1)),
                    v.extract(comptime!(u * 2)),
                    v.extract(comptime!(u * 2 + 1)),
                    sums[at],
                );
            }
        }
    }
}

/// The activations of a pair, of each group's column `lane / 4`: for tiles the lane's own blocks, for rows the columns that
/// it has of them.
#[cube]
pub(super) fn load_values(
    values: &mut Array<Vector<u32, N4>>,
    x: &[Vector<u32, N4>],
    place: &Place,
    #[comptime] step: usize,
    #[comptime] to: usize,
    #[comptime] work: Work,
) {
    let lane = UNIT_POS_X as usize;
    let count = comptime!(work.form.pair() / 32);
    let ahead = comptime!(work.ahead(step) * work.form.pair() / 8);
    let pair = base_of(place, step, work);
    #[unroll]
    for group in 0..work.groups {
        let wanted = group * COLUMNS + lane / 4usize;
        let pair = pair * comptime!(work.form.pair() / 8);
        if comptime!(work.jumps) {
            let row = (place.row + wanted) * place.x_stride + pair;
            let own = &x[row + lane % 4usize * comptime!(work.form.apart())..];
            let mut columns = place.columns;
            if comptime!(work.single) {
                columns = comptime!(work.halves()).runtime();
            }
            let to = [step, comptime!(to + group * count)];
            load_some(values, own, ahead, to, wanted as u32, columns as u32, work);
        } else {
            let last = place.columns - 1usize;
            let column = select(wanted < last, wanted, last);
            let row = (place.row + column) * place.x_stride + pair;
            let own = &x[row + lane % 4usize * comptime!(work.form.apart())..];
            #[unroll]
            for n in 0..count {
                let at = comptime!(ahead + work.form.vector(n));
                if comptime!(work.early) {
                    values[comptime!(to + group * count + n)] = load_vector(own, at, work);
                } else {
                    values[comptime!(to + group * count + n)] = own[at];
                }
            }
        }
    }
}

/// The activations of a pair for lanes that have a column of so many. What the others hold is anything, as are the sums of
/// these columns, which nobody reads: a load of 16 bytes occupies the cache as long for a lane that reads what another one
/// reads as for any, and not at all for one that asks for nothing.
///
/// - to: the step, and where in `values`
#[cube]
fn load_some(
    values: &mut Array<Vector<u32, N4>>,
    from: &[Vector<u32, N4>],
    #[comptime] ahead: usize,
    #[comptime] to: [usize; 2],
    column: u32,
    columns: u32,
    #[comptime] work: Work,
) {
    let address = from.as_ptr();
    gpu_asm!(
        "{text} /* {a} {c} {n} */",
        text = const loads(ahead, to, work), a = in(_) address, c = in(_) column, n = in(_) columns, options(nomem),
    );
    #[unroll]
    for n in 0..comptime!(work.form.pair() / 32) {
        let value: Vector<u32, N4>;
        gpu_asm!(
            "mov.v4.b32 {v}, {{{text}}};",
            v = out(_) value, text = const registers(to[0], to[1] + n), options(nomem),
        );
        values[comptime!(to[1] + n)] = value;
    }
}

/// The registers of a vector of activations: a text with several results has to name them itself.
fn registers(step: usize, to: usize) -> String {
    let names: Vec<String> = (0..4).map(|i| format!("x{step}_{to}_{i}")).collect();
    names.join(", ")
}

/// Loads all vectors of a pair or none. Operands: the address of the first one, the column, how many there are.
fn loads(ahead: usize, [step, to]: [usize; 2], work: Work) -> String {
    let (mut names, mut loads) = (String::new(), String::new());
    for n in 0..work.form.pair() / 32 {
        let vector = registers(step, to + n);
        let offset = (ahead + work.form.vector(n)) * 16;
        let _ = writeln!(names, ".reg .b32 {vector};");
        let _ = writeln!(loads, "ld.global.nc.v4.u32 {{{vector}}}, [$0+{offset}];");
    }
    // One jump: of conditions the compiler makes a jump of every load.
    format!(
        "{names}{{ .reg .pred none; setp.ge.u32 none, $1, $2; @none bra behind;\n{loads}behind: }}"
    )
}
