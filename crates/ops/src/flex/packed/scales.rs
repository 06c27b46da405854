//! The scales of a panel as f32.

use super::layout::Panel;
use crate::PackedSpec;
use crate::packed::Scale;

/// Scales of a panel, a vector a block; those of rows that the panel does not have are zero.
#[derive(Default)]
pub(super) struct Scales {
    /// `[blocks, lanes]`; with offsets `[blocks, factor and offset, lanes]`
    pub(super) values: Vec<f32>,
    /// Columns that share a scale.
    pub(super) block: usize,
}

impl Scales {
    /// Reads the scales of `panel` for vectors of `lanes`.
    #[inline(always)]
    pub(super) fn read(&mut self, panel: &Panel<'_>, spec: &PackedSpec, lanes: usize) {
        if spec.format.scale == Scale::None {
            self.block = spec.columns();
            self.values.clear();
            self.values.resize(lanes, 1.0);
            return;
        }
        self.block = spec.format.block;
        let size = spec.format.scale.bytes().min(size_of::<f32>());
        let vectors = spec.scale_bytes() / size;
        self.values.resize(vectors * lanes, 0.0);
        // Full vectors that follow one another are read as one.
        let rows = panel.rows();
        let (step, count) = if rows == lanes {
            (vectors * lanes, vectors * lanes)
        } else {
            (lanes, rows)
        };
        let places = self.values.chunks_exact_mut(step);
        match spec.format.scale {
            Scale::None => {}
            Scale::E4m3 => {
                for (places, bytes) in places.zip(panel.scales.chunks_exact(count)) {
                    for (place, byte) in places.iter_mut().zip(bytes) {
                        *place = e4m3(*byte);
                    }
                }
            }
            Scale::E8m0 => {
                for (places, bytes) in places.zip(panel.scales.chunks_exact(count)) {
                    for (place, byte) in places.iter_mut().zip(bytes) {
                        *place = e8m0(*byte);
                    }
                }
            }
            Scale::F32 | Scale::Affine => {
                let scales = bytemuck::cast_slice::<u8, f32>(panel.scales);
                for (places, scales) in places.zip(scales.chunks_exact(count)) {
                    places[..count].copy_from_slice(scales);
                }
            }
        }
    }
}

/// The value of an E4M3 byte that is neither negative nor NaN: its bits are those of an f32 with a smaller bias.
#[inline(always)]
fn e4m3(byte: u8) -> f32 {
    const BIAS: f32 = f32::from_bits((127 + 120) << 23);
    f32::from_bits(u32::from(byte) << 20) * BIAS
}

/// The value of an E8M0 byte that is not NaN.
#[inline(always)]
fn e8m0(byte: u8) -> f32 {
    const SMALLEST: u32 = 1 << 22; // 2^-127, subnormal
    f32::from_bits((u32::from(byte) << 23).max(SMALLEST))
}

#[cfg(test)]
mod tests {
    use crate::packed;

    #[test]
    fn every_scale_byte_has_its_value() {
        for byte in 0..0x7F {
            assert_eq!(super::e4m3(byte), packed::e4m3(byte));
        }
        for byte in 0..0xFF {
            assert_eq!(super::e8m0(byte), packed::e8m0(byte));
        }
    }
}
