//! stub
use crate::config::VisionEncoderConfig;
use crate::processor::media::Patches;
use burn::tensor::Tensor;
use burn_omni_quant::Weights;
/// stub
#[derive(Debug)]
pub struct VisionTower;
/// stub
#[derive(Debug)]
pub struct VisionRows {
    /// stub
    pub rows: Tensor<2>,
    /// stub
    pub deepstack: Vec<Tensor<2>>,
}
impl VisionTower {
    /// stub
    pub fn load(_: &Weights<'_>, _: &VisionEncoderConfig) -> Self {
        Self
    }
    /// stub
    pub fn forward(&self, _: &[Patches]) -> VisionRows {
        todo!()
    }
}
