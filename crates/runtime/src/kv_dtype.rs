//! How keys and values of the thinker are stored.

use burn::tensor::{DType, Device};
use burn_omni_model::config::Config;
use burn_omni_ops::KvFormat;
use burn_omni_ops::decode::multiplies_bf16;

use crate::Error;

/// How keys and values of the thinker are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvDtype {
    /// In bf16 where tokens come from a captured step, else in f32.
    #[default]
    Auto,
    /// In bf16, on devices that capture steps.
    Bf16,
    /// In FP8 E4M3 without a scale: half the bytes of bf16, and 3 bits of mantissa in place of 7. Numbers beyond ±448 become
    /// that.
    Fp8,
}

impl KvDtype {
    /// What states are told, where it is not their own choice.
    pub(crate) fn format(self) -> Option<KvFormat> {
        match self {
            Self::Auto => None,
            Self::Bf16 => Some(KvFormat::Float(DType::BF16)),
            Self::Fp8 => Some(KvFormat::E4m3),
        }
    }

    /// Bytes of a number, in the caches of a captured step or in others.
    pub(crate) const fn bytes(self, captured: bool) -> u64 {
        match self {
            Self::Auto if captured => 2,
            Self::Auto => 4,
            Self::Bf16 => 2,
            Self::Fp8 => 1,
        }
    }

    /// Whether a device and a model can have it.
    pub(crate) fn check(self, config: &Config, device: &Device) -> Result<(), Error> {
        let field = "kv_dtype";
        if self == Self::Bf16 && !multiplies_bf16(device) {
            return Err(Error::BadSetting {
                field,
                expected: "auto or fp8 on a device that captures no steps".into(),
                found: "bf16".into(),
            });
        }
        let width = config.thinker.text_config.head_dim;
        match self.format() {
            Some(format) if !format.holds(width) => Err(Error::BadSetting {
                field,
                expected: format!("auto for heads of {width}, which are no whole words of FP8"),
                found: "fp8".into(),
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_or_a_model_that_cannot_have_it_says_so() {
        let device = Device::flex();
        let mut config = Config::preset("qwen3-omni-30b-a3b").unwrap();
        for dtype in [KvDtype::Auto, KvDtype::Fp8] {
            dtype.check(&config, &device).unwrap();
        }
        let refused = KvDtype::Bf16.check(&config, &device).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "kv_dtype: expected auto or fp8 on a device that captures no steps, found bf16"
        );
        config.thinker.text_config.head_dim = 6;
        KvDtype::Auto.check(&config, &device).unwrap();
        let refused = KvDtype::Fp8.check(&config, &device).unwrap_err();
        assert!(refused.to_string().contains("heads of 6"), "{refused}");
    }
}
