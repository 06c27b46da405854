//! Mixture of experts: each expert computes only the rows that were routed to it.

use burn::tensor::{DType, Shape, TensorData};
use burn_flex::FlexTensor;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::elementwise::swiglu_row;
use super::gemm::Rows;
use super::linear::matmul;
use super::math::{exp, vectorized};
use super::parallel;
use super::view::{Stored, View, tensor, with_rows};

pub(super) fn route(
    logits: &FlexTensor,
    top_k: usize,
    normalize: bool,
) -> (FlexTensor, FlexTensor) {
    let logits = with_rows(logits);
    let view = View::new(&logits);
    let mut ids = Vec::with_capacity(view.rows * top_k);
    let mut weights = Vec::with_capacity(view.rows * top_k);
    let mut scores = vec![0.0; view.width];
    for row in 0..view.rows {
        vectorized(Softmax {
            x: view.row(row, 0),
            out: &mut scores,
        });
        let start = weights.len();
        for _ in 0..top_k {
            let best = first_largest(&scores);
            ids.push(i64::try_from(best).expect("expert numbers are small"));
            weights.push(scores[best]);
            scores[best] = f32::NEG_INFINITY;
        }
        if normalize {
            let sum: f32 = weights[start..].iter().sum();
            weights[start..].iter_mut().for_each(|w| *w /= sum);
        }
    }
    let shape = [view.rows, top_k];
    let ids = FlexTensor::from_data(TensorData::new(ids, Shape::from(shape.to_vec())));
    (ids, tensor(weights, &shape))
}

/// The number of the first of the largest scores.
fn first_largest(scores: &[f32]) -> usize {
    let mut best = 0;
    for (i, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = i;
        }
    }
    best
}

pub(super) fn experts(
    x: &FlexTensor,
    ids: &FlexTensor,
    weights: &FlexTensor,
    [gate_up, down]: [&FlexTensor; 2],
) -> FlexTensor {
    let [gate_up, down] = [gate_up, down].map(|weight| {
        let [count, rows, width] = weight.layout().shape().dims();
        Dense {
            weight: Stored::new(weight),
            count,
            shape: [rows, width],
        }
    });
    mix(x, ids, weights, [&gate_up, &down])
}

/// The matrices of all experts, however they are stored.
pub(super) trait Matrices: Sync {
    /// How many there are.
    fn count(&self) -> usize;

    /// Rows and columns of each.
    fn shape(&self) -> [usize; 2];

    /// `out = x * matrix^T` with matrix number `index`, in up to `pieces` pieces.
    fn multiply(&self, index: usize, x: Rows<'_>, out: &mut [f32], pieces: usize);
}

struct Dense<'a> {
    weight: Stored<'a>,
    count: usize,
    shape: [usize; 2],
}

impl Matrices for Dense<'_> {
    fn count(&self) -> usize {
        self.count
    }

    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn multiply(&self, index: usize, x: Rows<'_>, out: &mut [f32], pieces: usize) {
        let [rows, width] = self.shape;
        let size = rows * width;
        let weight = self.weight.part(index * size, (index + 1) * size);
        matmul(out, x, weight, width, pieces);
    }
}

/// The weighted sum over each row's experts; `gate_up` and `down`.
pub(super) fn mix<M: Matrices>(
    x: &FlexTensor,
    ids: &FlexTensor,
    weights: &FlexTensor,
    [gate_up, down]: [&M; 2],
) -> FlexTensor {
    let (x, weights) = (with_rows(x), with_rows(weights));
    let (x, weights) = (View::new(&x), View::new(&weights));
    let ([double, _], [hidden, _]) = (gate_up.shape(), down.shape());
    let chosen = slots_by_expert(ids, gate_up.count(), weights.width);
    let part = Part {
        x: &x,
        gate_up,
        down,
        // Threads that are left when each expert has one.
        pieces: rayon::current_num_threads() / chosen.len().max(1),
    };

    // One output row for every (row, choice), then summed in the order of the choices.
    let slots = x.rows * weights.width;
    let run = |(expert, slots): &(usize, Vec<usize>)| part.forward(*expert, slots, weights.width);
    let outputs: Vec<Vec<f32>> = if parallel::pieces(slots * hidden * double / 4) == 1 {
        chosen.iter().map(run).collect()
    } else {
        chosen.par_iter().map(run).collect()
    };
    let mut place = vec![(0, 0); slots];
    for (group, (_, slots)) in chosen.iter().enumerate() {
        for (i, slot) in slots.iter().enumerate() {
            place[*slot] = (group, i);
        }
    }
    let mut out = vec![0.0; x.rows * hidden];
    parallel::rows(&mut out, hidden, slots * hidden, |row, out| {
        for choice in 0..weights.width {
            let (group, i) = place[row * weights.width + choice];
            let factor = weights.row(row, 0)[choice];
            let output = &outputs[group][i * hidden..(i + 1) * hidden];
            out.iter_mut()
                .zip(output)
                .for_each(|(y, x)| *y += factor * x);
        }
    });
    tensor(out, &[x.rows, hidden])
}

/// For each expert that was chosen, the slots `row * top_k + choice` that chose it.
fn slots_by_expert(ids: &FlexTensor, experts: usize, top_k: usize) -> Vec<(usize, Vec<usize>)> {
    let mut slots = vec![Vec::new(); experts];
    let mut push = |slot: usize, id: usize| slots[id].push(slot);
    let ids = ids.to_contiguous();
    let expert = |id: i64| usize::try_from(id).expect("expert numbers are not negative");
    match ids.dtype() {
        DType::I64 => ids
            .storage::<i64>()
            .iter()
            .enumerate()
            .for_each(|(i, id)| push(i, expert(*id))),
        DType::I32 => ids
            .storage::<i32>()
            .iter()
            .enumerate()
            .for_each(|(i, id)| push(i, expert((*id).into()))),
        other => panic!("expert numbers are i64 or i32, got {other:?}"),
    }
    debug_assert!(top_k > 0);
    slots
        .into_iter()
        .enumerate()
        .filter(|(_, slots)| !slots.is_empty())
        .collect()
}

/// What every expert's call shares.
struct Part<'a, M> {
    x: &'a View<'a>,
    gate_up: &'a M,
    down: &'a M,
    pieces: usize,
}

impl<M: Matrices> Part<'_, M> {
    /// The outputs of one expert for its slots, `[slots, hidden]`.
    fn forward(&self, expert: usize, slots: &[usize], top_k: usize) -> Vec<f32> {
        let ([double, width], [hidden, intermediate]) = (self.gate_up.shape(), self.down.shape());
        let product = |matrices: &M, x: &[f32], [out, width]: [usize; 2]| {
            let rows = Rows {
                data: x,
                rows: slots.len(),
                stride: width,
            };
            let mut result = vec![0.0; slots.len() * out];
            let pieces = parallel::pieces(result.len() * width / 4).min(self.pieces.max(1));
            matrices.multiply(expert, rows, &mut result, pieces);
            result
        };
        let mut input = Vec::with_capacity(slots.len() * width);
        for slot in slots {
            input.extend_from_slice(self.x.row(slot / top_k, 0));
        }
        let gate_up = product(self.gate_up, &input, [double, width]);
        let mut middle = vec![0.0; slots.len() * intermediate];
        for (gate_up, middle) in gate_up
            .chunks_exact(double)
            .zip(middle.chunks_exact_mut(intermediate))
        {
            swiglu_row(gate_up, middle);
        }
        product(self.down, &middle, [hidden, intermediate])
    }
}

/// Softmax of one row.
struct Softmax<'a> {
    x: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let largest = self.x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for (out, x) in self.out.iter_mut().zip(self.x) {
            *out = exp::<S>(x - largest);
        }
        let sum: f32 = self.out.iter().sum();
        self.out.iter_mut().for_each(|x| *x /= sum);
    }
}
