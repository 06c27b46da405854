//! Keys and values of E4M3, four numbers a word.

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::parallel;
use super::view::{View, tensor, with_rows};
use crate::kv::WORD;
use crate::packed::{e4m3, encode_e4m3};

/// The value of every byte.
const VALUES: [f32; 256] = {
    let mut values = [0.0; 256];
    let mut byte = 0;
    while byte < 256 {
        values[byte] = e4m3(byte as u8);
        byte += 1;
    }
    values
};

/// Writes rows from row `at` on, in place where nobody else holds the store.
pub(super) fn write(mut store: FlexTensor, rows: &FlexTensor, at: usize) -> FlexTensor {
    let rows = with_rows(rows);
    let rows = View::new(&rows);
    let words = rows.width / WORD;
    let place = store.storage_mut::<u32>();
    let place = &mut place[at * rows.heads * words..][..rows.rows * rows.heads * words];
    for (i, head) in place.chunks_exact_mut(words).enumerate() {
        let numbers = rows.row(i / rows.heads, i % rows.heads);
        for (word, numbers) in head.iter_mut().zip(numbers.as_chunks::<WORD>().0) {
            *word = u32::from_le_bytes(numbers.map(encode_e4m3));
        }
    }
    store
}

/// The first `count` rows in f32.
pub(super) fn read(store: &FlexTensor, count: usize) -> FlexTensor {
    let shape = store.layout().shape();
    let [heads, words] = [shape[1], shape[2]];
    let store: &[u32] = store.as_slice().expect("words are contiguous u32");
    let mut numbers = vec![0.0; count * heads * words * WORD];
    let pieces = parallel::pieces(numbers.len());
    let part = (count * heads * words).div_ceil(pieces).max(1);
    let decode = |(numbers, words): (&mut [f32], &[u32])| {
        for (numbers, word) in numbers.as_chunks_mut::<WORD>().0.iter_mut().zip(words) {
            *numbers = word.to_le_bytes().map(|byte| VALUES[usize::from(byte)]);
        }
    };
    let parts = numbers.par_chunks_mut(part * WORD);
    parts.zip(store.par_chunks(part)).for_each(decode);
    tensor(numbers, &[count, heads, words * WORD])
}
