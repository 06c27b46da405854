//! What a query may look at.

/// Scale and mask of one attention call.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionSpec {
    /// Factor on the scores, usually `head_dim^-0.5`.
    pub scale: f32,
    /// Which keys each query sees.
    pub mask: Mask,
}

/// Which keys each query row sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mask {
    /// Query row `i` is at position `first + i` and sees the keys `0..=first + i`, or the last `window` of them.
    /// Keys behind the last query are unused space.
    Causal {
        /// Position of the first query row.
        first: usize,
        /// How many keys a query sees, itself included; `None` is all.
        window: Option<usize>,
    },
    /// Rows and keys are cut into consecutive segments of these lengths; a query sees its own segment, both ways.
    Segments(Vec<usize>),
}

impl AttentionSpec {
    /// Causal attention of queries whose first is at position `first`.
    pub fn causal(head_dim: usize, first: usize) -> Self {
        Self {
            scale: inverse_sqrt(head_dim),
            mask: Mask::Causal {
                first,
                window: None,
            },
        }
    }

    /// Bidirectional attention inside consecutive segments.
    pub fn segments(head_dim: usize, lengths: Vec<usize>) -> Self {
        Self {
            scale: inverse_sqrt(head_dim),
            mask: Mask::Segments(lengths),
        }
    }

    /// One more than the last key that any of `rows` queries sees.
    #[cfg(feature = "flex")]
    pub(crate) fn end(&self, rows: usize) -> usize {
        match &self.mask {
            Mask::Causal { first, .. } => first + rows,
            Mask::Segments(lengths) => lengths.iter().sum(),
        }
    }

    /// Limits causal attention to the last `window` keys, the query's own included.
    pub fn with_window(mut self, size: usize) -> Self {
        if let Mask::Causal { window, .. } = &mut self.mask {
            *window = Some(size);
        }
        self
    }
}

/// `head_dim^-0.5`, formed in f64 as the reference does.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the scale is an f32 everywhere"
)]
fn inverse_sqrt(head_dim: usize) -> f32 {
    (head_dim as f64).powf(-0.5) as f32
}
