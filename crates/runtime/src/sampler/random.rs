//! Random numbers that are a function of their number.

/// Philox 4x32-10 (Salmon et al., 2011): draw `n` of a stage depends on the seed, the stage and `n` alone, so neither
/// the order of the stages nor the device that draws changes a result.
#[derive(Clone, Copy, Debug)]
pub struct Random {
    key: [u32; 2],
    stage: u32,
}

impl Random {
    /// The numbers of one stage of a request.
    #[must_use]
    pub fn new(seed: u64, stage: u32) -> Self {
        Self {
            key: [low(seed), low(seed >> 32)],
            stage,
        }
    }

    /// What the numbers depend on.
    pub(super) fn seed(&self) -> u64 {
        u64::from(self.key[1]) << 32 | u64::from(self.key[0])
    }

    /// Which numbers of the request these are.
    pub(super) fn stage(&self) -> u32 {
        self.stage
    }

    /// Number `n` in `[0, 1)`, with 53 bits. Devices that draw in f32 have the first 24 of them.
    #[must_use]
    pub fn uniform(&self, n: u64) -> f64 {
        let [a, b, ..] = philox([low(n), low(n >> 32), self.stage, 0], self.key);
        let bits = (u64::from(a) << 32 | u64::from(b)) >> 11;
        bits as f64 / (1_u64 << 53) as f64
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the low half is what is asked for"
)]
fn low(x: u64) -> u32 {
    x as u32
}

fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = 0xD251_1F53_u64 * u64::from(counter[0]);
        let b = 0xCD9E_8D57_u64 * u64::from(counter[2]);
        counter = [
            low(b >> 32) ^ counter[1] ^ key[0],
            low(b),
            low(a >> 32) ^ counter[3] ^ key[1],
            low(a),
        ];
        key = [
            key[0].wrapping_add(0x9E37_79B9),
            key[1].wrapping_add(0xBB67_AE85),
        ];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers that come with the authors' Random123.
    #[test]
    fn philox_gives_the_published_numbers() {
        assert_eq!(
            philox([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox([!0; 4], [!0; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        let counter = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        let expected = [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1];
        assert_eq!(philox(counter, [0xa409_3822, 0x299f_31d0]), expected);
    }
}
