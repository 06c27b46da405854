//! Random weights and copies, a part a thread.

use burn::tensor::DType;
use burn_flex::FlexTensor;
use half::bf16;
use rayon::prelude::*;

use crate::draw::{Words, drawn_float};

/// Numbers of a part.
const PART: usize = 1 << 16;

/// In place where nobody else holds the tensor.
pub(super) fn words(mut words: FlexTensor, drawn: Words) -> FlexTensor {
    fill(words.storage_mut(), |index| drawn.word(index));
    words
}

/// In place where nobody else holds the tensor.
pub(super) fn floats(mut floats: FlexTensor, seed: u32) -> FlexTensor {
    match floats.dtype() {
        DType::F32 => fill(floats.storage_mut(), |index| drawn_float(index, seed)),
        DType::BF16 => fill(floats.storage_mut(), |index| {
            bf16::from_f32(drawn_float(index, seed))
        }),
        other => panic!("weights are drawn in f32 or bf16, not in {other:?}"),
    }
    floats
}

/// In place where nobody else holds the tensor.
pub(super) fn copy(from: &FlexTensor, mut to: FlexTensor) -> FlexTensor {
    let from: &[u32] = from.as_slice().expect("words are contiguous u32");
    let out: &mut [u32] = to.storage_mut();
    out.par_chunks_mut(PART)
        .zip(from.par_chunks(PART))
        .for_each(|(out, part)| out.copy_from_slice(part));
    to
}

fn fill<T: Send>(out: &mut [T], number: impl Fn(u32) -> T + Sync) {
    out.par_chunks_mut(PART)
        .enumerate()
        .for_each(|(part, out)| {
            let indices = (part * PART) as u32..;
            for (out, index) in out.iter_mut().zip(indices) {
                *out = number(index);
            }
        });
}
