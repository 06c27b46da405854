//! Vectors of words as vectors of numbers.

use pulp::Simd;

/// Columns that meet at a time: what every word has at least.
pub(super) const GROUP: usize = 4;

/// How the codes in a word become numbers.
pub(super) trait Decode: Copy {
    /// Codes in a word.
    const PER_WORD: usize;

    /// Code number `index` of every word.
    fn value<S: Simd>(self, simd: S, words: S::u32s, index: usize) -> S::f32s;
}

/// 4-bit codes, each an entry of a table.
#[derive(Clone, Copy)]
pub(super) struct Nibbles {
    pub(super) table: [f32; 16],
}

impl Decode for Nibbles {
    const PER_WORD: usize = 8;

    #[inline(always)]
    fn value<S: Simd>(self, simd: S, words: S::u32s, index: usize) -> S::f32s {
        let index = simd.wrapping_dyn_shr_u32s(words, simd.splat_u32s(4 * index as u32));
        lookup(simd, &self.table, index)
    }
}

/// E4M3 bytes that are not NaN.
#[derive(Clone, Copy)]
pub(super) struct Bytes;

impl Decode for Bytes {
    const PER_WORD: usize = 4;

    #[inline(always)]
    fn value<S: Simd>(self, simd: S, words: S::u32s, index: usize) -> S::f32s {
        const SIGN: u32 = 1 << 31;
        const MAGNITUDE: u32 = 0x7F << 20;
        const BIAS: f32 = f32::from_bits((127 + 120) << 23);
        let code = simd.wrapping_dyn_shl_u32s(words, simd.splat_u32s(24 - 8 * index as u32));
        let magnitude = simd.wrapping_dyn_shr_u32s(code, simd.splat_u32s(4));
        let bits = simd.or_u32s(
            simd.and_u32s(code, simd.splat_u32s(SIGN)),
            simd.and_u32s(magnitude, simd.splat_u32s(MAGNITUDE)),
        );
        // The bits of an f32 with a smaller bias, subnormal numbers among them.
        simd.mul_f32s(simd.transmute_f32s_u32s(bits), simd.splat_f32s(BIAS))
    }
}

/// The entries that the low four bits of each lane name.
#[inline(always)]
fn lookup<S: Simd>(simd: S, table: &[f32; 16], index: S::u32s) -> S::f32s {
    #[cfg(target_arch = "x86_64")]
    {
        use std::any::Any;
        use std::arch::x86_64::{__m256, __m512};

        use bytemuck::cast;

        // Which of these it is is known when this is compiled.
        if let Some(simd) = (&simd as &dyn Any).downcast_ref::<pulp::x86::V4>() {
            let table: __m512 = cast(*table);
            return cast(simd.avx512f._mm512_permutexvar_ps(cast(index), table));
        }
        if let Some(simd) = (&simd as &dyn Any).downcast_ref::<pulp::x86::V3>() {
            let [low, high]: [__m256; 2] = cast(*table);
            let low = simd.avx2._mm256_permutevar8x32_ps(low, cast(index));
            let high = simd.avx2._mm256_permutevar8x32_ps(high, cast(index));
            // The fourth bit, where the choice reads it.
            let choice = simd.avx2._mm256_slli_epi32::<28>(cast(index));
            return cast(simd.avx._mm256_blendv_ps(low, high, cast(choice)));
        }
    }
    let mut out = simd.splat_f32s(0.0);
    let lanes: &mut [f32] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut out));
    let indices: &[u32] = bytemuck::cast_slice(std::slice::from_ref(&index));
    for (lane, index) in lanes.iter_mut().zip(indices) {
        *lane = table[(index & 15) as usize];
    }
    out
}
