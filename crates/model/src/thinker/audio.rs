//! stub
use crate::config::AudioEncoderConfig;
use crate::processor::media::LogMel;
use burn::tensor::Tensor;
use burn_omni_quant::Weights;
/// stub
#[derive(Debug)]
pub struct AudioTower;
impl AudioTower {
    /// stub
    pub fn load(_: &Weights<'_>, _: &AudioEncoderConfig) -> Self {
        Self
    }
    /// stub
    pub fn forward(&self, _: &[LogMel]) -> Tensor<2> {
        todo!()
    }
}
