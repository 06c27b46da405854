//! Packed matrices on GPUs: in tiles where the device has matrix units that take them, else in checkpoint order.

use burn::tensor::DType;
use burn_cubecl::kernel::cast;
use burn_omni_kernels::few::{self, FEW, SEVERAL, Weights};
use burn_omni_kernels::many::{self, Added, Blocking, Plan, ROUNDED};
use burn_omni_kernels::packed::tiles::{
    self, Activations, ColumnOrder, Tiling, activations, scaled,
};
use burn_omni_kernels::packed::{Coding, Order, Scaling, Shape, rows};
use burn_omni_kernels::{Buffer, Matrix};
use cubecl::prelude::*;

use super::buffers::{flat, tensor};
use super::chosen::Chosen;
use super::products;
use super::{F, I};
use crate::PackedSpec;
use crate::packed::{Code, Scale};

/// Codes, scales and gains.
pub(super) type Parts = (I, I, F);

fn coding(spec: &PackedSpec) -> Coding {
    Coding {
        bytes: spec.format.code == Code::E4m3,
        e2m1: spec.format.code == Code::E2m1,
        scaling: match spec.format.scale {
            Scale::None => Scaling::None,
            Scale::E4m3 => Scaling::E4m3,
            Scale::E8m0 => Scaling::E8m0,
            Scale::F32 => Scaling::F32,
            Scale::Affine => Scaling::Affine,
        },
        block: spec.format.block,
    }
}

fn shape(spec: &PackedSpec) -> Shape {
    Shape {
        matrices: spec.matrices,
        rows: spec.rows,
        width: spec.width,
        gated: spec.gated,
    }
}

pub(super) fn in_tiles(client: &Client, spec: &PackedSpec) -> bool {
    Order::of(client, coding(spec)) == Order::Tiles
}

/// Whether this many rows are rounded to 4 bits: as few as a decoding step has gain nothing by it.
pub(super) fn in_four_bits(client: &Client, spec: &PackedSpec, rows: usize) -> bool {
    spec.w4a4 && rows > FEW && scaled::runs_on(client, coding(spec))
}

pub(super) fn pack(codes: I, scales: I, spec: &PackedSpec) -> (I, I) {
    let client = codes.client.clone();
    if !in_tiles(&client, spec) {
        return (codes, scales);
    }
    let tiling = Tiling::new(coding(spec), shape(spec));
    let counts = [
        tiling.code_words(spec.matrices),
        tiling.scale_words(spec.matrices),
    ];
    let [tiled_codes, tiled_scales] =
        counts.map(|count| Buffer::empty(&client, u32::elem_type_native(), count));
    let stored = [&flat(codes.clone()), &flat(scales)];
    tiles::pack(
        &client,
        stored,
        [&tiled_codes, &tiled_scales],
        tiling,
        shape(spec),
    );
    let [code_count, scale_count] = counts;
    (
        tensor(&codes, tiled_codes, [code_count], DType::U32),
        tensor(&codes, tiled_scales, [scale_count], DType::U32),
    )
}

pub(super) fn unpack(parts: Parts, spec: &PackedSpec) -> F {
    unpack_to(parts, spec, [spec.matrices * spec.rows, spec.width])
}

/// The values of experts, one matrix after another.
fn values(parts: Parts, spec: &PackedSpec) -> F {
    unpack_to(parts, spec, [spec.matrices, spec.rows, spec.width])
}

fn unpack_to<const D: usize>(parts: Parts, spec: &PackedSpec, size: [usize; D]) -> F {
    let like = parts.2.clone();
    let client = like.client.clone();
    let values = Buffer::empty(&client, f32::elem_type_native(), size.iter().product());
    if in_tiles(&client, spec) {
        let tiles::Matrix {
            codes,
            scales,
            gains,
            tiling,
            ..
        } = tiled(parts, spec);
        tiles::unpack(
            &client,
            [&codes, &scales, &gains],
            &values,
            tiling,
            shape(spec),
        );
    } else {
        rows::unpack(&client, &in_rows(parts, spec), &values);
    }
    tensor(&like, values, size, DType::F32)
}

pub(super) fn linear(x: F, parts: Parts, spec: &PackedSpec) -> F {
    let (like, client) = (x.clone(), x.client.clone());
    let count = x.meta.shape()[0];
    let x = flat(x);
    let y = Buffer::empty(&client, x.elem, count * spec.rows);
    if in_four_bits(&client, spec, count) {
        let matrix = tiled(parts, spec);
        let x = scaled::quantize(&client, (&x, spec.width), matrix.tiling);
        let blocking = Blocking::of(count, matrix.tiling.tiles);
        scaled::many(&client, &matrix, (&x, count), &y, blocking);
    } else if in_tiles(&client, spec) {
        let matrix = tiled(parts, spec);
        let weights = Weights::Tiles(matrix);
        let columns = if is_split(x.elem, count) { 2 } else { 1 } * count;
        let order = if columns <= SEVERAL {
            ColumnOrder::Natural
        } else {
            many::order(&client, &[&weights])
        };
        let x = rounded(&client, (x, count), spec, order);
        if columns <= SEVERAL {
            few::few(&client, &weights, (&x, count), &y);
        } else {
            many::many(&client, many::Product::new(&weights, &x, count), &y);
        }
    } else {
        rows::product(&client, &in_rows(parts, spec), (&x, count), &y);
    }
    tensor(&like, y, [count, spec.rows], like.dtype)
}

pub(super) fn experts(
    x: F,
    (ids, weights): (I, F),
    [up, down]: [Parts; 2],
    specs: &[PackedSpec; 2],
) -> F {
    let (like, client) = (x.clone(), x.client.clone());
    let [up_spec, down_spec] = specs;
    if in_tiles(&client, up_spec) != in_tiles(&client, down_spec) {
        // Two formats of which only one has tiles: what one kernel writes the other does not read.
        let [up, down] = [values(up, up_spec), values(down, down_spec)];
        return products::experts(x, (ids, weights), up, down);
    }
    let count = x.meta.shape()[0];
    let chosen = Chosen {
        slots: ids.meta.shape()[1],
        ids: flat(cast(ids, DType::I32)),
        weights: flat(cast(weights, DType::F32)),
    };
    let x = flat(x);
    let y = Buffer::empty(&client, x.elem, count * down_spec.rows);
    if in_tiles(&client, up_spec) {
        let matrices = [tiled(up, up_spec), tiled(down, down_spec)];
        let few = chosen.ids.len() <= up_spec.matrices;
        let narrow = specs.iter().all(|spec| in_four_bits(&client, spec, count));
        if narrow && !few {
            let x = scaled::quantize(&client, (&x, up_spec.width), matrices[0].tiling);
            let matrices = (&matrices, up_spec.matrices);
            grouped_in_four_bits(&client, &x, &chosen, matrices, &y);
        } else {
            let [up, down] = &matrices.map(Weights::Tiles);
            let order = if few {
                ColumnOrder::Natural
            } else {
                many::order(&client, &[up, down])
            };
            let x = rounded(&client, (x, count), up_spec, order);
            if few {
                chosen.listed(&client, &x, [up, down], &y);
            } else {
                chosen.grouped(&client, &x, ([up, down], up_spec.matrices), &y);
            }
        }
    } else {
        let [up, down] = [in_rows(up, up_spec), in_rows(down, down_spec)];
        experts_in_rows(&client, &x, &chosen, [&up, &down], &y);
    }
    tensor(&like, y, [count, down_spec.rows], like.dtype)
}

/// The rows of an expert together in 4 bits, to which what lies between gate·up and down is rounded too.
fn grouped_in_four_bits(
    client: &Client,
    x: &scaled::Quantized,
    chosen: &Chosen,
    ([up, down], experts): (&[tiles::Matrix; 2], usize),
    y: &Buffer,
) {
    let plan = Plan::new(
        client,
        (&chosen.ids, chosen.slots),
        experts,
        (false, ColumnOrder::Natural),
    );
    let width = up.rows / 2;
    let h = Buffer::empty(client, y.elem, chosen.ids.len() * width);
    scaled::gate_up(client, up, x, &plan, &h);
    let h = scaled::quantize(client, (&h, width), down.tiling);
    let parts = Buffer::empty(client, y.elem, chosen.ids.len() * down.rows);
    scaled::down(client, down, &h, (&plan, &chosen.weights), &parts);
    let parts = (&parts, chosen.slots);
    many::sum_slots(client, parts, Added::default(), (y, down.rows));
}

fn experts_in_rows(
    client: &Client,
    x: &Buffer,
    chosen: &Chosen,
    [up, down]: [&rows::Matrix; 2],
    y: &Buffer,
) {
    let count = chosen.ids.len() * up.shape.rows / 2;
    let h = Buffer::empty(client, f32::elem_type_native(), count);
    rows::gate_up(client, up, x, (&chosen.ids, chosen.slots), &h);
    let choices = ([&chosen.ids, &chosen.weights], chosen.slots);
    rows::down(client, down, &h, choices, y);
}

/// Whether so many rows are multiplied with what rounding takes away as well.
fn is_split(elem: ElemType, rows: usize) -> bool {
    elem != half::bf16::elem_type_native() && rows < ROUNDED
}

/// Rows in the form that tiles are multiplied with: bf16 as it is, a few rows of wider types with what rounding takes away.
fn rounded(
    client: &Client,
    (x, rows): (Buffer, usize),
    spec: &PackedSpec,
    order: ColumnOrder,
) -> Activations {
    let columns = Tiling::new(coding(spec), shape(spec)).columns();
    let split = is_split(x.elem, rows);
    let as_it_is = order == ColumnOrder::Natural && columns == spec.width;
    if x.elem == half::bf16::elem_type_native() && as_it_is {
        return Activations::new(x, split);
    }
    let x = Matrix {
        buffer: x,
        rows,
        width: spec.width,
        stride: spec.width,
    };
    activations::round(client, &x, (columns, order), split)
}

pub(super) fn tiled((codes, scales, gains): Parts, spec: &PackedSpec) -> tiles::Matrix {
    tiles::Matrix {
        codes: flat(codes),
        scales: flat(scales),
        gains: flat(gains),
        tiling: Tiling::new(coding(spec), shape(spec)),
        rows: spec.rows,
    }
}

fn in_rows((codes, scales, gains): Parts, spec: &PackedSpec) -> rows::Matrix {
    let client = gains.client.clone();
    let gains = flat(gains);
    // E2M1 and 8-bit codes are decoded without a table.
    let table = match spec.format.code.table() {
        Some(table) if spec.format.code != Code::E2m1 => Buffer::of(&client, &table),
        _ => gains.clone(),
    };
    rows::Matrix {
        codes: flat(codes),
        scales: flat(scales),
        gains,
        table,
        coding: coding(spec),
        shape: shape(spec),
    }
}
