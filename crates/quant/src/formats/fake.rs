//! What a quantizer left beside weights that it only rounded, or did not touch.

use super::Module;

/// Names of the largest weight that a quantizer saw.
const NAMES: [&str; 2] = ["weight_quantizer._amax", "weight_quantizer.amax"];

/// The largest weight that a quantizer recorded: of the whole tensor, or the largest of its blocks.
pub(crate) fn amax(module: &Module<'_>) -> Option<f32> {
    let values = module.first(&NAMES)?.to_f32().ok()?;
    let largest = values.into_iter().map(f32::abs).fold(0.0, f32::max);
    super::bytes::is_factor(largest).then_some(largest)
}
