//! Products with packed matrices.

use burn::tensor::{Int, Tensor};
use burn_flex::{Flex, FlexTensor};

use crate::{PackedSpec, Routes, reference};

/// Codes, scales and gains.
type Parts<'a> = [&'a FlexTensor; 3];

pub(super) fn unpack(
    codes: &FlexTensor,
    scales: &FlexTensor,
    gains: &FlexTensor,
    spec: &PackedSpec,
) -> FlexTensor {
    lower(weight([codes, scales, gains], spec))
}

pub(super) fn linear(x: &FlexTensor, parts: Parts<'_>, spec: &PackedSpec) -> FlexTensor {
    lower(reference::linear(float(x), weight(parts, spec), None))
}

pub(super) fn experts(
    x: &FlexTensor,
    ids: &FlexTensor,
    weights: &FlexTensor,
    parts: [Parts<'_>; 2],
    specs: &[PackedSpec; 2],
) -> FlexTensor {
    let [up, down] = [0, 1].map(|i| {
        let spec = &specs[i];
        weight(parts[i], spec).reshape([spec.matrices, spec.rows, spec.width])
    });
    let routes = Routes {
        ids: Tensor::from_primitive::<Flex>(ids.clone()),
        weights: float(weights),
    };
    lower(reference::experts(float(x), routes, up, down))
}

fn weight([codes, scales, gains]: Parts<'_>, spec: &PackedSpec) -> Tensor<2> {
    let int = |x: &FlexTensor| Tensor::<1, Int>::from_primitive::<Flex>(x.clone());
    reference::unpack(int(codes), int(scales), float(gains), *spec)
}

fn float<const D: usize>(x: &FlexTensor) -> Tensor<D> {
    Tensor::from_primitive::<Flex>(x.clone())
}

fn lower<const D: usize>(x: Tensor<D>) -> FlexTensor {
    x.try_into_primitive::<Flex>()
        .expect("the inputs are on this backend")
}
