//! The vision tower.

use serde::Serialize;
use serde_json::json;

use super::section::Section;
use super::text::divided;
use super::{Activation, ConfigError};

/// `vision_config` of the thinker: patches of images and video frames.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VisionEncoderConfig {
    /// Encoder blocks.
    pub depth: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Activation of the blocks: GELU in its tanh approximation.
    pub hidden_act: Activation,
    /// Inner width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Colour channels.
    pub in_channels: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// Side of the square of patches that becomes one output row.
    pub spatial_merge_size: usize,
    /// Frames in one patch.
    pub temporal_patch_size: usize,
    /// Width of an output row: the text decoder's `hidden_size`.
    pub out_hidden_size: usize,
    /// Rows of the learned position table, a square.
    pub num_position_embeddings: usize,
    /// Side of the training images in pixels; not needed, and absent in some releases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_size: Option<usize>,
    /// Blocks whose output is also added to the text decoder, after its layers 0, 1, ….
    pub deepstack_visual_indexes: Vec<usize>,
}

impl VisionEncoderConfig {
    pub(super) fn read(section: &Section<'_>) -> Result<Self, ConfigError> {
        section.only("apply_vit_abs_pos_embed", &json!(true))?;
        let activation = Activation::GeluPytorchTanh;
        let config = Self {
            depth: section.size("depth")?,
            hidden_size: section.size("hidden_size")?,
            hidden_act: Activation::read(section, "hidden_act", activation)?,
            intermediate_size: section.size("intermediate_size")?,
            num_heads: section.size("num_heads")?,
            in_channels: section.size_of(["in_channels", "in_chans"])?,
            patch_size: section.size_of(["patch_size", "spatial_patch_size"])?,
            spatial_merge_size: section.size("spatial_merge_size")?,
            temporal_patch_size: section.size("temporal_patch_size")?,
            out_hidden_size: section.size("out_hidden_size")?,
            num_position_embeddings: section.size("num_position_embeddings")?,
            image_size: section.optional_size("image_size")?,
            deepstack_visual_indexes: section.indexes("deepstack_visual_indexes")?,
        };
        config.check(section)?;
        Ok(config)
    }

    fn check(&self, section: &Section<'_>) -> Result<(), ConfigError> {
        let heads = ("num_heads", self.num_heads);
        let head_dim = divided(section, ("hidden_size", self.hidden_size), heads)?;
        if !head_dim.is_multiple_of(4) {
            let heads = section.reference("num_heads", self.num_heads);
            let expected = format!("4 values, two pairs, in each head of {heads}");
            return Err(section.contradiction("hidden_size", self.hidden_size, expected));
        }
        let positions = self.num_position_embeddings;
        if positions.isqrt().pow(2) != positions {
            let key = "num_position_embeddings";
            return Err(section.contradiction(key, positions, "a square number"));
        }
        let indexes = &self.deepstack_visual_indexes;
        let rising = indexes.windows(2).all(|pair| pair[0] < pair[1]);
        if !rising || indexes.last().is_some_and(|&last| last >= self.depth) {
            let depth = section.reference("depth", self.depth);
            let expected = format!("rising block numbers below {depth}");
            let key = "deepstack_visual_indexes";
            return Err(section.contradiction(key, format!("{indexes:?}"), expected));
        }
        Ok(())
    }

    /// Width of one attention head.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_heads
    }

    /// Side of the position table: its rows are a grid of this many by this many.
    #[must_use]
    pub fn position_side(&self) -> usize {
        self.num_position_embeddings.isqrt()
    }

    /// Patches that become one output row.
    #[must_use]
    pub fn merge_unit(&self) -> usize {
        self.spatial_merge_size
            .saturating_mul(self.spatial_merge_size)
    }

    /// Width of the merged patches: columns of the merger's first linear layer.
    #[must_use]
    pub fn merged_width(&self) -> usize {
        self.hidden_size.saturating_mul(self.merge_unit())
    }

    /// Values of one patch: channels × frames × side × side.
    #[must_use]
    pub fn patch_values(&self) -> usize {
        [self.temporal_patch_size, self.patch_size, self.patch_size]
            .into_iter()
            .fold(self.in_channels, usize::saturating_mul)
    }
}
